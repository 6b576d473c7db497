"""Gradients of both families' losses against finite differences, in float64."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.gencast.configs import DenoiserArchitectureConfig, GenCastConfig, SparseTransformerConfig
from model.gencast.gencast import gencast_graphs, gencast_network, gencast_structure, noise_basis
from model.graphcast_config import ProcessorConfig
from model.graphs.graph_network import Parameters
from model.networks import graphcast_graphs, graphcast_network
from model.normalization import channel_scaling
from model.step import ModelStep
from model.task import TaskConfig
from model.training.family_losses import FamilyLoss, GenCastLoss, GraphCastLoss
from model.training.losses import loss_weights
from model.training.rematerialisation import KEEP_ALL, LEVELS, Rematerialisation
from model.variables import VARIABLES
from tests.model.tiny import CONFIG, GRID, TASK, statistics

GENCAST = GenCastConfig(
    denoiser_architecture_config=DenoiserArchitectureConfig(
        sparse_transformer_config=SparseTransformerConfig(
            attention_k_hop=2, d_model=8, num_layers=2, num_heads=2, ffw_hidden=8
        ),
        mesh_size=1,
        latent_size=8,
    )
)
WIDTH = 1e-4
STEP = ModelStep(task=TASK, grid=GRID, scaling=channel_scaling(TASK, statistics()))


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def common() -> dict[str, Any]:
    random = np.random.default_rng(5)
    return {
        "model_step": STEP,
        "weights": loss_weights(TASK, GRID),
        "statics": {"land_sea_mask": jnp.asarray(random.uniform(size=GRID.shape))},
        "precision": "float64",
    }


def graphcast(kind: str | None, recompute: Rematerialisation = KEEP_ALL) -> tuple[FamilyLoss, Any]:
    processor = ProcessorConfig(kind=kind, attention_k_hop=2, num_heads=2) if kind else None
    config = replace(CONFIG, processor=processor, gnn_msg_steps=2)
    network = replace(graphcast_network(config, TASK), recompute=recompute)
    structure = network.structure(graphcast_graphs(config, GRID), dtype=jnp.dtype("float64"))
    return GraphCastLoss(network=network, structure=structure, **common()), network.parameter_shapes()


def gencast(recompute: Rematerialisation = KEEP_ALL) -> tuple[FamilyLoss, Any]:
    network = gencast_network(GENCAST, TASK)
    loss = GenCastLoss(
        network=network,
        structure=gencast_structure(network, gencast_graphs(GENCAST, GRID), dtype=jnp.dtype("float64")),
        basis={name: jnp.asarray(array) for name, array in noise_basis(GRID).items()},
        **common(),
    )
    return loss.recomputing(recompute), network.parameter_shapes()


def parameters(shapes: dict[str, dict[str, tuple[int, ...]]]) -> Parameters:
    """Random everywhere, so that nothing starts as zero or as the identity."""
    random = np.random.default_rng(1)
    return {
        module: {name: random.normal(size=shape) / np.sqrt(shape[0]) for name, shape in layer.items()}
        for module, layer in shapes.items()
    }


def batch(steps: int, task: TaskConfig = TASK) -> dict[str, dict[str, np.ndarray]]:
    """Two examples of noise, float64."""
    random = np.random.default_rng(2)

    def fields(names: tuple[str, ...], frames: int) -> dict[str, np.ndarray]:
        levels = {name: (len(task.pressure_levels),) if VARIABLES[name].on_levels else () for name in names}
        return {name: random.normal(size=(2, frames, *levels[name], *GRID.shape)) for name in names}

    return {
        "frames": fields(task.time_inputs, 2),
        "targets": fields(task.target_variables, steps),
        "forcings": fields(task.forcing_variables, 2 + steps),
    }


@pytest.mark.parametrize(
    ("family", "steps"),
    [
        (lambda: graphcast(None), 2),
        (lambda: graphcast(None, LEVELS[-1]), 2),
        (lambda: graphcast("gated_message_passing"), 1),
        (lambda: graphcast("sparse_transformer"), 1),
        (gencast, 1),
    ],
    ids=["message passing", "recomputed", "gated", "transformer", "gencast"],
)
def test_the_gradient_is_that_of_finite_differences(family: Any, steps: int) -> None:
    loss, shapes = family()
    params, examples = parameters(shapes), batch(steps)
    keys = jax.random.split(jax.random.PRNGKey(3), 2)
    value = jax.jit(lambda params: loss(params, examples, keys)[0])
    gradient = jax.jit(jax.grad(lambda params: loss(params, examples, keys)[0]))(params)
    assert all(leaf.dtype == jnp.float64 for leaf in jax.tree.leaves(gradient))

    random = np.random.default_rng(4)
    for _ in range(3):
        direction = jax.tree.map(lambda array: random.normal(size=array.shape), params)
        slope = sum(jax.tree.leaves(jax.tree.map(lambda a, b: jnp.vdot(a, b), gradient, direction)))
        # A five-point stencil: errors of order width⁴ of the loss, and of 1e-16 / width in rounding.
        at = {
            k: float(value(jax.tree.map(lambda p, d, k=k: p + k * WIDTH * d, params, direction)))
            for k in (-2, -1, 1, 2)
        }
        difference = (at[-2] - 8 * at[-1] + 8 * at[1] - at[2]) / (12 * WIDTH)
        assert difference == pytest.approx(float(slope), rel=1e-8, abs=1e-8 * abs(at[1]))


@pytest.mark.parametrize(
    ("family", "steps"),
    [(lambda level: graphcast(None, level), 2), (gencast, 1)],
    ids=["graphcast", "gencast"],
)
def test_recomputation_changes_gradients_by_rounding_alone(family: Any, steps: int) -> None:
    examples, keys = batch(steps), jax.random.split(jax.random.PRNGKey(0), 2)
    gradients = []
    # One message-passing step, or block of the transformer, at a time: both have two.
    for level in (LEVELS[0], replace(LEVELS[-1], message_steps=1)):
        loss, shapes = family(level)
        params = parameters(shapes)
        gradients.append(jax.jit(jax.grad(lambda params, loss=loss: loss(params, examples, keys)[0]))(params))

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12 * float(jnp.abs(a).max())),
        *gradients,
    )
