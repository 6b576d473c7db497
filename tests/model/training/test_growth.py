from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.checkpoint_file import CheckpointFile, read_checkpoint, write_checkpoint
from model.errors import UnknownOptionError
from model.graphcast_config import ModelConfig, ProcessorConfig
from model.networks import graphcast_graphs, graphcast_network
from model.training.growth import grow
from tests.model.tiny import CONFIG, GRID, TASK, checkpoint

SMALL = replace(CONFIG, gnn_msg_steps=2)


def outputs(of: CheckpointFile, features: jax.Array) -> np.ndarray:
    assert isinstance(of.config, ModelConfig)
    network = graphcast_network(of.config, TASK)
    structure = network.structure(graphcast_graphs(of.config, GRID))
    params = jax.tree.map(jnp.asarray, of.params)
    return np.asarray(
        network.forward(params, structure, network.embed_structure(params, structure), features)
    )


def features(of: ModelConfig = SMALL) -> jax.Array:
    network = graphcast_network(of, TASK)
    return jax.random.normal(jax.random.PRNGKey(1), (int(np.prod(GRID.shape)), network.inputs))


@pytest.mark.parametrize(
    "changes",
    [{"gnn_msg_steps": 4}, {"latent_size": 16}, {"latent_size": 24, "gnn_msg_steps": 3}],
    ids=["deeper", "wider", "both"],
)
def test_a_grown_model_is_the_same_function(changes: dict[str, int]) -> None:
    small = checkpoint(SMALL)
    large = grow(small, replace(SMALL, **changes), seed=3)
    assert isinstance(large.config, ModelConfig)
    assert large.config == replace(SMALL, **changes)

    before, after = outputs(small, features()), outputs(large, features())
    np.testing.assert_allclose(after, before, atol=2e-5 * np.abs(before).max())
    # A file of it reads back: names and shapes are those of a model trained at that size.
    read = read_checkpoint(write_checkpoint(large))
    np.testing.assert_array_equal(outputs(read, features()), after)


def test_copies_part_company_and_added_steps_learn() -> None:
    large = grow(checkpoint(SMALL), replace(SMALL, latent_size=16, gnn_msg_steps=3), seed=3)
    assert isinstance(large.config, ModelConfig)
    network = graphcast_network(large.config, TASK)
    structure = network.structure(graphcast_graphs(large.config, GRID))
    x = features()

    def loss(params: Any) -> jax.Array:
        embedding = network.embed_structure(params, structure)
        return jnp.mean((network.forward(params, structure, embedding, x) - 1) ** 2)

    gradient = jax.jit(jax.grad(loss))(jax.tree.map(jnp.asarray, large.params))
    bias = gradient["mesh_gnn/~_networks_builder/encoder_edges_mesh_mlp/~/linear_0"]["b"]
    assert not np.allclose(bias[:8], bias[8:], rtol=1e-2)
    added = gradient["mesh_gnn/~_networks_builder/processor_nodes_2_mesh_nodes_layer_norm"]
    assert float(jnp.abs(added["scale"]).max()) > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latent_size": 12}, "multiple of the latent size 8"),
        ({"gnn_msg_steps": 1}, "at least 2"),
        ({"mesh_size": 2, "latent_size": 16}, "another mesh_size"),
        ({"processor": ProcessorConfig(kind="gated_message_passing")}, "another processor"),
    ],
)
def test_what_is_no_larger_model_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UnknownOptionError, match=message):
        grow(checkpoint(SMALL), replace(SMALL, **changes), seed=0)
