from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.checkpoint_file import read_checkpoint, write_checkpoint
from model.graphcast_config import ModelConfig, ProcessorConfig
from model.graphs.icosahedral_mesh import directed_edges, mesh_hierarchy
from model.networks import graphcast_graphs, graphcast_network
from tests.model.tiny import CONFIG, GRID, TASK, checkpoint

_MESH = "mesh_gnn/~_networks_builder"


def config(kind: str) -> ModelConfig:
    return replace(
        CONFIG, gnn_msg_steps=2, processor=ProcessorConfig(kind=kind, attention_k_hop=1, num_heads=2)
    )


def outputs(of: ModelConfig, params: dict) -> np.ndarray:
    network = graphcast_network(of, TASK)
    structure = network.structure(graphcast_graphs(of, GRID))
    params = jax.tree.map(jnp.asarray, params)
    x = jax.random.normal(jax.random.PRNGKey(1), (int(np.prod(GRID.shape)), network.inputs))
    embedding = network.embed_structure(params, structure)
    return np.asarray(network.forward(network.needed_in_forward(params), structure, embedding, x))


@pytest.mark.parametrize("kind", ["gated_message_passing", "sparse_transformer"])
def test_the_file_says_its_processor_and_reads_back(kind: str) -> None:
    written = checkpoint(config(kind))
    read = read_checkpoint(write_checkpoint(written))

    assert read.config == written.config
    np.testing.assert_array_equal(outputs(read.config, read.params), outputs(written.config, written.params))


def test_published_files_name_no_processor() -> None:
    content = write_checkpoint(checkpoint(CONFIG))

    assert b"processor:kind" not in content
    assert read_checkpoint(content).config.processor_kind == "message_passing"


def test_open_gates_are_plain_message_passing() -> None:
    gated = checkpoint(config("gated_message_passing"))
    params = dict(gated.params)
    for step in range(2):
        gate = params[f"{_MESH}/processor_gates_{step}_mesh"]
        # σ(30) is 1 in float32.
        params[f"{_MESH}/processor_gates_{step}_mesh"] = {"w": 0 * gate["w"], "b": 0 * gate["b"] + 30}
    plain = {name: values for name, values in params.items() if "gates" not in name}

    np.testing.assert_allclose(
        outputs(gated.config, params), outputs(replace(gated.config, processor=None), plain), atol=1e-6
    )


def test_the_transformer_is_attention_to_neighbours_written_down() -> None:
    """In the mesh's own order and with a dense mask, float64."""
    network = graphcast_network(config("sparse_transformer"), TASK)
    params = checkpoint(network.config).params
    mesh = mesh_hierarchy(1)[-1]
    senders, receivers = directed_edges(mesh.faces)
    count, latent, heads = mesh.vertices.shape[0], 8, 2
    near = np.eye(count, dtype=bool)
    near[receivers, senders] = True
    start = np.random.default_rng(0).normal(size=(count, latent))

    def norm(x: np.ndarray, module: dict[str, np.ndarray]) -> np.ndarray:
        scale, offset = np.split(module["w"][0] + module["b"], 2)
        centred = x - x.mean(axis=-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5) * (1 + scale) + offset

    x = start
    path = "mesh_transformer/~/transformer"
    for block in range(2):
        of = {name.rpartition("/")[2]: v for name, v in params.items() if f"block_{block:02d}/mha" in name}
        of |= {name.rpartition("/")[2]: v for name, v in params.items() if f"block_{block:02d}/ffw" in name}
        condition = f"{path}/block_{block:02d}/block_{block:02d}_norm_conditioning"
        y = norm(x, params[f"{condition}/linear"])
        q, k, v = (
            (y @ of[f"mha_proj_{name}"]["w"]).reshape(count, heads, -1).transpose(1, 0, 2) for name in "qkv"
        )
        logits = np.where(near, q @ k.transpose(0, 2, 1) / np.sqrt(latent / heads), -np.inf)
        weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        attended = (weights @ v).transpose(1, 0, 2).reshape(count, latent)
        x = x + attended @ of["mha_final"]["w"] + of["mha_final"]["b"]
        y = norm(x, params[f"{condition}_1/linear"])
        hidden = y @ of["ffw_up"]["w"] + of["ffw_up"]["b"]
        hidden = hidden / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (hidden + 0.044715 * hidden**3)))
        x = x + hidden @ of["ffw_down"]["w"] + of["ffw_down"]["b"]
    expected = norm(x, params[f"{path}/transformer_final_norm_conditioning/linear"])

    structure = network.structure(graphcast_graphs(network.config, GRID))
    params = jax.tree.map(jnp.asarray, params)
    steps = network.embed_structure(params, structure).processor
    result = network._process(steps, structure.mesh, None, jnp.asarray(start, jnp.float32))
    np.testing.assert_allclose(result, expected, atol=2e-5)


def test_processors_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="expected one of message_passing"):
        ProcessorConfig(kind="convolution")
    with pytest.raises(ValueError, match="divisor of the latent size 8"):
        replace(CONFIG, processor=ProcessorConfig(kind="sparse_transformer", num_heads=3))
