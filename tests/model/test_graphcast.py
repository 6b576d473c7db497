from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from model.checkpoint_file import read_checkpoint
from model.graphcast import ModelConfig
from model.networks import graphcast_network
from tests.model.tiny import CONFIG, TASK


@pytest.mark.parametrize("case", ["graphcast_small_f32", "graphcast_operational_f32"])
def test_parameters_have_the_published_names_and_shapes(parity_dir: Path, case: str) -> None:
    published = read_checkpoint((parity_dir / case / "params.npz").read_bytes())
    network = graphcast_network(published.config, published.task)
    shapes = {m: {n: a.shape for n, a in names.items()} for m, names in published.params.items()}
    assert network.parameter_shapes() == shapes


def test_the_operational_model_takes_two_channels_fewer(parity_dir: Path) -> None:
    # Two frames of precipitation are no inputs: 184 against 186 with three spatial features.
    channels = []
    for case in ("graphcast_small_f32", "graphcast_operational_f32"):
        published = read_checkpoint((parity_dir / case / "params.npz").read_bytes())
        channels.append(graphcast_network(published.config, published.task).inputs + 3)
    assert channels == [186, 184]


def test_fresh_parameters_are_drawn_as_haiku_draws_them() -> None:
    network = graphcast_network(replace(CONFIG, latent_size=64), TASK)
    params = network.initial_parameters(jax.random.PRNGKey(0))
    weights = params["mesh_gnn/~_networks_builder/processor_edges_0_mesh_mlp/~/linear_0"]["w"]
    assert weights.shape == (192, 64)
    # A normal cut at two standard deviations has spread 0.8796; inputs are 192.
    assert float(weights.std()) == pytest.approx(0.8796 / np.sqrt(192), rel=0.03)
    assert float(abs(weights).max()) <= 2 / np.sqrt(192) + 1e-6
    norm = params["mesh_gnn/~_networks_builder/encoder_edges_mesh_layer_norm"]
    assert float(norm["scale"].min()) == 1.0
    assert float(abs(norm["offset"]).max()) == 0.0
    again = network.initial_parameters(jax.random.PRNGKey(0))
    assert jax.tree.all(jax.tree.map(np.array_equal, params, again))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("latent_size", 0, "latent_size: expected a positive number, got 0"),
        ("resolution", -1.0, "resolution: expected a positive number"),
        ("mesh_size", -1, "mesh_size, hidden_layers: expected at least 0"),
    ],
)
def test_impossible_configurations_are_refused(field: str, value: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModelConfig(**{**vars(CONFIG), field: value})
