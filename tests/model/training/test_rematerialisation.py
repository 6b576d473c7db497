from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.graphcast import GraphCastNetwork, ModelConfig
from model.graphs.model_graphs import model_graphs
from model.grid import Grid
from model.training.rematerialisation import (
    KEEP_ALL,
    LEVELS,
    Rematerialisation,
    in_groups,
    least_saving_that_fits,
    program_peak_bytes,
)

GRID = Grid(resolution=30.0)
CONFIG = ModelConfig(
    resolution=30.0,
    mesh_size=1,
    latent_size=8,
    gnn_msg_steps=4,
    hidden_layers=1,
    radius_query_fraction_edge_length=0.6,
)


def value_and_gradient(recompute: Rematerialisation) -> tuple[jax.Array, Any]:
    graphs = model_graphs(
        latitude=GRID.latitude, longitude=GRID.longitude, mesh_size=1, radius_fraction=0.6, normalization=None
    )
    network = GraphCastNetwork(config=CONFIG, inputs=5, outputs=3, recompute=recompute)
    structure = network.structure(graphs)
    features = jax.random.normal(jax.random.PRNGKey(1), (np.prod(GRID.shape), 5))

    def loss(params: Any) -> jax.Array:
        embedding = network.embed_structure(params, structure)
        return jnp.mean(network.forward(params, structure, embedding, features) ** 2)

    return jax.jit(jax.value_and_grad(loss))(network.initial_parameters(jax.random.PRNGKey(0)))


@pytest.fixture(scope="module")
def kept() -> tuple[jax.Array, Any]:
    return value_and_gradient(KEEP_ALL)


@pytest.mark.parametrize(
    "level",
    [
        Rematerialisation(encoder=True, decoder=True),
        Rematerialisation(message_steps=3),
        Rematerialisation(edge_chunks=True),
    ],
)
def test_gradients_do_not_depend_on_what_is_kept(
    kept: tuple[jax.Array, Any], level: Rematerialisation
) -> None:
    """Each level by itself; all together and in float64 in test_gradients.py."""
    again = value_and_gradient(level)

    np.testing.assert_allclose(kept[0], again[0], rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6), kept[1], again[1])


def test_groups_of_layers_are_not_kept() -> None:
    """Twelve layers of 800 kB outputs: by the compiler's account, about as many are kept as there are groups."""
    weights = jax.ShapeDtypeStruct((12, 16, 16), jnp.float32)
    x = jax.ShapeDtypeStruct((12_500, 16), jnp.float32)

    def layers(x: jax.Array, some: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda x, w: (jnp.tanh(jnp.tanh(x @ w) + 1) @ w, None), x, some)[0]

    def temporaries(kept_every: int) -> int:
        def loss(weights: jax.Array, x: jax.Array) -> jax.Array:
            return jnp.mean(in_groups(layers, x, weights, kept_every=kept_every) ** 2)

        program = jax.jit(jax.grad(loss)).lower(weights, x).compile()
        return int(program.memory_analysis().temp_size_in_bytes)

    assert temporaries(3) < 0.5 * temporaries(0)


def test_the_first_level_that_fits_is_taken() -> None:
    peaks = dict(zip(LEVELS, (500, 400, 300, 200, 100)))

    assert least_saving_that_fits(peaks.__getitem__, 320) == LEVELS[2]
    assert least_saving_that_fits(peaks.__getitem__, 500) == LEVELS[0]
    assert least_saving_that_fits(peaks.__getitem__, 50) is None


def test_the_compiler_counts_arguments_and_results() -> None:
    array = jax.ShapeDtypeStruct((1000,), jnp.float32)

    # 4000 bytes in and 4000 out; an elementwise product needs nothing else.
    program = jax.jit(lambda x: x * 2).lower(array).compile()
    assert program_peak_bytes(program) == pytest.approx(8000, abs=64)


def test_settings_that_mean_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="message_steps"):
        Rematerialisation(message_steps=-1)
