"""The rearranged denoiser against the network as it is written down, layer by layer, in NumPy."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.gencast.attention_options import AttentionOptions
from model.gencast.configs import DenoiserArchitectureConfig, GenCastConfig, SparseTransformerConfig
from model.gencast.gencast import gencast_graphs, gencast_network, gencast_structure
from model.gencast.mesh_order import banded_mesh, mesh_neighbourhood
from model.gencast.structure import DenoiserStructure
from model.graphs.model_graphs import GridMeshGraphs
from model.grid import Grid
from model.task import TaskConfig

TASK = TaskConfig(
    input_variables=("2m_temperature", "temperature", "day_progress_sin", "land_sea_mask"),
    target_variables=("2m_temperature", "total_precipitation_12hr", "temperature"),
    forcing_variables=("day_progress_sin",),
    pressure_levels=(500, 850),
    input_duration="24h",
)
GRID = Grid(resolution=30.0)
CONDITIONING = 2 + 4 + 2 + 1 + 1
TARGETS = 1 + 1 + 2


def config(**changes: object) -> GenCastConfig:
    transformer = SparseTransformerConfig(
        attention_k_hop=2,
        d_model=8,
        num_layers=2,
        num_heads=2,
        ffw_hidden=12,
        ffw_winit_final_mult=1.0,
        attn_winit_final_mult=1.0,
    )
    architecture = DenoiserArchitectureConfig(
        sparse_transformer_config=transformer,
        mesh_size=1,
        latent_size=8,
        **changes,  # type: ignore[arg-type]
    )
    return GenCastConfig(denoiser_architecture_config=architecture)


def random_parameters(shapes: dict[str, dict[str, tuple[int, ...]]]) -> dict[str, dict[str, np.ndarray]]:
    random = np.random.default_rng(1)
    return {
        module: {
            name: random.normal(scale=0.7 * shape[0] ** -0.5, size=shape).astype(np.float32)
            for name, shape in layer.items()
        }
        for module, layer in shapes.items()
    }


class WrittenDown:
    """F of Price et al. 2023 with concatenations, gathers and dense attention, float64."""

    def __init__(
        self, params: dict[str, dict[str, np.ndarray]], settings: GenCastConfig, graphs: GridMeshGraphs
    ):
        self.params, self.settings, self.graphs = params, settings, graphs
        self.architecture = settings.denoiser_architecture_config

    def linear(self, name: str, x: np.ndarray) -> np.ndarray:
        layer = self.params[name]
        return x.astype(np.float64) @ layer["w"] + layer.get("b", 0)

    def norm(self, name: str, x: np.ndarray, encoding: np.ndarray) -> np.ndarray:
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        scale, offset = np.split(self.linear(f"{name}_norm_conditioning/linear", encoding), 2)
        return x * (1 + scale) + offset

    def mlp(self, name: str, *parts: np.ndarray) -> np.ndarray:
        x = np.concatenate(parts, axis=-1)
        for layer in range(self.architecture.hidden_layers + 1):
            x = self.linear(f"{name}_mlp/~/linear_{layer}", x if layer == 0 else x / (1 + np.exp(-x)))
        return x

    def gelu(self, x: np.ndarray) -> np.ndarray:
        return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

    def encoding(self, noise_level: float) -> np.ndarray:
        angles = np.log(noise_level) * 2 * np.pi * np.arange(1, 33) / 16
        x = self.linear(
            "fourier_features_mlp/~/mlp/~/linear_0", np.concatenate([np.cos(angles), np.sin(angles)])
        )
        return self.linear("fourier_features_mlp/~/mlp/~/linear_1", self.gelu(x))

    def attention(self, path: str, x: np.ndarray) -> np.ndarray:
        mesh = banded_mesh(self.architecture.mesh_size)
        mask = mesh_neighbourhood(mesh, 2).matrix.toarray()
        out = []
        for head in range(2):
            q, k, v = (self.linear(f"{path}/mha_proj_{n}", x)[:, 4 * head : 4 * head + 4] for n in "qkv")
            weights = np.where(mask, np.exp(q @ k.T / 2), 0)
            out.append(weights @ v / weights.sum(1, keepdims=True))
        return self.linear(f"{path}/mha_final", np.concatenate(out, axis=-1))

    def __call__(self, features: np.ndarray, noise_level: float) -> np.ndarray:
        """Features (grid, all channels in published order) to (grid, targets)."""
        c = self.encoding(noise_level)
        to_mesh, to_grid = self.graphs.grid_to_mesh, self.graphs.mesh_to_grid
        p = "grid2mesh_gnn/~_networks_builder"

        def block(name: str, *parts: np.ndarray) -> np.ndarray:
            return self.norm(f"{p}/{name}", self.mlp(f"{p}/{name}", *parts), c)

        grid = block("encoder_nodes_grid_nodes", features, self.graphs.grid_features)
        nothing = np.zeros((len(self.graphs.mesh_features), features.shape[1]))
        mesh = block("encoder_nodes_mesh_nodes", nothing, self.graphs.mesh_features)
        edges = block("encoder_edges_grid2mesh", to_mesh.features)
        edges = block("processor_edges_0_grid2mesh", edges, grid[to_mesh.senders], mesh[to_mesh.receivers])
        received = np.zeros_like(mesh)
        np.add.at(received, to_mesh.receivers, edges)
        received /= self.architecture.grid2mesh_aggregate_normalization or 1
        mesh = mesh + block("processor_nodes_0_mesh_nodes", mesh, received)
        grid = grid + block("processor_nodes_0_grid_nodes", grid)
        for layer in range(2):
            path = f"mesh_transformer/~/transformer/block_{layer:02d}"
            name = f"{path}/block_{layer:02d}"
            mesh = mesh + self.attention(path, self.norm(name, mesh, c))
            wide = self.linear(f"{path}/ffw_up", self.conditioned_again(name, mesh, c))
            mesh = mesh + self.linear(f"{path}/ffw_down", self.gelu(wide))
        mesh = self.norm("mesh_transformer/~/transformer/transformer_final", mesh, c)
        p = "mesh2grid_gnn/~_networks_builder"
        edges = block("encoder_edges_mesh2grid", to_grid.features)
        edges = block("processor_edges_0_mesh2grid", edges, mesh[to_grid.senders], grid[to_grid.receivers])
        received = np.zeros_like(grid)
        np.add.at(received, to_grid.receivers, edges)
        grid = grid + block("processor_nodes_0_grid_nodes", grid, received)
        return self.mlp(f"{p}/decoder_nodes_grid_nodes", grid)

    def conditioned_again(self, name: str, x: np.ndarray, c: np.ndarray) -> np.ndarray:
        second = {f"{name}_norm_conditioning/linear": self.params[f"{name}_norm_conditioning_1/linear"]}
        return WrittenDown({**self.params, **second}, self.settings, self.graphs).norm(name, x, c)


@pytest.mark.parametrize(
    "changes",
    [{}, {"hidden_layers": 2, "grid2mesh_aggregate_normalization": 3.0}],
    ids=["as published", "deeper, normalised sums"],
)
def test_network_equals_the_one_written_down(changes: dict[str, object]) -> None:
    settings = config(**changes)
    network = gencast_network(settings, TASK)
    graphs = gencast_graphs(settings, GRID)
    params = random_parameters(network.parameter_shapes())
    random = np.random.default_rng(2)
    points = GRID.shape[0] * GRID.shape[1]
    conditioning = random.normal(size=(points, CONDITIONING)).astype(np.float32)
    noisy = random.normal(size=(points, TARGETS)).astype(np.float32)
    level = np.float32(0.7)

    @jax.jit
    def evaluate(
        params: dict, structure: DenoiserStructure, conditioning: jax.Array, noisy: jax.Array
    ) -> jax.Array:
        denoiser = network.denoiser
        embedding = denoiser.embed_structure(params, structure)
        conditioned = denoiser.condition(params, embedding, conditioning)
        return denoiser.evaluate(params, structure, embedding, conditioned, noisy, level)

    scaled = noisy / np.sqrt(level**2 + 1)
    # Published order: inputs; then 2m_temperature, day_progress_sin, temperature, total_precipitation_12hr.
    inputs, forcing = conditioning[:, :-1], conditioning[:, -1:]
    features = np.concatenate([inputs, scaled[:, :1], forcing, scaled[:, 1:]], axis=1)
    raw = WrittenDown(params, settings, graphs)(features, float(level))
    expected = raw * level / np.sqrt(level**2 + 1) + noisy / (level**2 + 1)
    result = evaluate(params, gencast_structure(network, graphs), conditioning, noisy)
    np.testing.assert_allclose(result, expected, atol=2e-5)


def test_fresh_parameters_have_the_published_spread() -> None:
    network = gencast_network(config(), TASK)
    params = jax.jit(network.initial_parameters)(jax.random.PRNGKey(0))
    shapes = {module: {name: x.shape for name, x in layer.items()} for module, layer in params.items()}
    assert shapes == network.parameter_shapes()
    # Variance 2 / (layers · inputs) of attention's projections; 2 / inputs, uniform, of the noise encoder.
    query = params["mesh_transformer/~/transformer/block_00/mha_proj_q"]["w"]
    assert float(query.std()) == pytest.approx(np.sqrt(2 / (2 * 8)), rel=0.3)
    encoder = params["fourier_features_mlp/~/mlp/~/linear_0"]["w"]
    assert float(encoder.std()) == pytest.approx(np.sqrt(2 / 64), rel=0.05)
    assert float(jnp.abs(encoder).max()) < np.sqrt(3 * 2 / 64)
    condition = params["mesh2grid_gnn/~_networks_builder/encoder_edges_mesh2grid_norm_conditioning/linear"]
    assert float(jnp.abs(condition["w"]).max()) < 3e-8
    assert all(float(jnp.abs(layer["b"]).max()) == 0 for layer in params.values() if "b" in layer)


def test_output_size_in_the_file_must_be_the_tasks() -> None:
    settings = config(node_output_size=5)
    with pytest.raises(ValueError, match=r"expected the task's 4, got 5"):
        gencast_network(settings, TASK)
    allowed = dataclasses.replace(
        settings, denoiser_architecture_config=config(node_output_size=4).denoiser_architecture_config
    )
    assert (
        gencast_network(allowed, TASK, attention=AttentionOptions(kind="mha")).denoiser.channels.outputs == 4
    )
