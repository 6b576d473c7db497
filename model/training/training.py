"""Training of either family: the state, one update of it, and the families' losses.

An update is a pure function of the state, of a batch and of the seed; all randomness follows from the number of
the update. So two trainings from one state over the same batches agree bit for bit on one kind of device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from model.training.optimizer import OptimizerConfig, Params

Batch = Any
"""A pytree of arrays with a leading axis over examples."""

Loss = Callable[[Params, Batch, jax.Array], tuple[jax.Array, dict[str, jax.Array]]]
"""Parameters, batch and key to a scalar and to diagnostics by name, both means over the batch."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """Everything a training needs to go on.

    Args:
        params: float32, under their published names.
        average: their running average; what is published.
        optimizer: the optimiser's own.
        update: number of the next update, int32.
    """

    params: Params
    average: Params
    optimizer: optax.OptState
    update: jax.Array


def initial_state(params: Params, optimizer: optax.GradientTransformation) -> TrainingState:
    """A training's state before its first update."""
    params = jax.tree.map(lambda array: jnp.array(array, jnp.float32), params)
    return TrainingState(
        params=params,
        average=jax.tree.map(jnp.copy, params),
        optimizer=optimizer.init(params),
        update=jnp.zeros((), jnp.int32),
    )


def make_update(
    loss: Loss, optimizer: optax.GradientTransformation, config: OptimizerConfig, *, seed: int
) -> Callable[[TrainingState, Batch], tuple[TrainingState, dict[str, jax.Array]]]:
    """The function that makes one update, compiled; it takes over the state it is given.

    Its batch has two leading axes: gradients of the first are averaged one after the other (gradient
    accumulation), examples of the second are taken together. It returns the next state and, as float32 scalars,
    ``loss``, ``gradient_norm`` and the diagnostics of the loss.
    """

    def update(state: TrainingState, batch: Batch) -> tuple[TrainingState, dict[str, jax.Array]]:
        key = jax.random.fold_in(jax.random.PRNGKey(seed), state.update)
        parts = jax.tree.leaves(batch)[0].shape[0]

        def gradient(part: Batch, key: jax.Array) -> tuple[dict[str, jax.Array], Params]:
            (value, diagnostics), gradients = jax.value_and_grad(loss, has_aux=True)(state.params, part, key)
            return {"loss": value, **diagnostics}, gradients

        if parts == 1:
            metrics, gradients = gradient(jax.tree.map(lambda array: array[0], batch), key)
        else:
            results = jax.lax.map(lambda item: gradient(*item), (batch, jax.random.split(key, parts)))
            metrics, gradients = jax.tree.map(lambda array: array.mean(axis=0), results)
        metrics["gradient_norm"] = optax.tree.norm(gradients)
        changes, optimizer_state = optimizer.update(gradients, state.optimizer, state.params)
        params = optax.apply_updates(state.params, changes)
        done = state.update.astype(jnp.float32)
        # A young average forgets faster, or it would remember the fresh parameters for long.
        decay = jnp.minimum(config.average_decay, (1 + done) / (10 + done))
        average = jax.tree.map(lambda old, new: old + (1 - decay) * (new - old), state.average, params)
        next_state = TrainingState(
            params=params, average=average, optimizer=optimizer_state, update=state.update + 1
        )
        return next_state, metrics

    return jax.jit(update, donate_argnums=0)
