"""The training losses of both families: squared error weighted by area, pressure and variable.

Errors are those of normalised targets. A variable's loss is the mean over grid points and levels of its squared
error, weighted by the area of the grid cell and by the pressure of the level, both of mean 1 (Lam et al. 2023,
supplement 4.2). The loss is the weighted sum over variables; over several autoregressive steps, the mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from model.channels import target_blocks
from model.grid import Grid
from model.precision import accumulation_type
from model.step import Fields, ModelStep, forcings_around
from model.task import TaskConfig

Carried = TypeVar("Carried")
Loss = tuple[jax.Array, dict[str, jax.Array]]
"""The loss, and the unweighted loss of each variable; scalars, or shape (step,)."""

VARIABLE_WEIGHTS = {
    "2m_temperature": 1.0,
    "10m_u_component_of_wind": 0.1,
    "10m_v_component_of_wind": 0.1,
    "mean_sea_level_pressure": 0.1,
    "sea_surface_temperature": 0.1,
    "total_precipitation_6hr": 0.1,
    "total_precipitation_12hr": 0.1,
}
"""Weights of the surface variables in both families; those on levels weigh 1."""


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """The weights of a task on a grid.

    Args:
        area: of each grid point, mean 1, float32, shape (grid,).
        level: of each target channel within its variable, summing to 1, float32, shape (channel,).
        variable: the variable's weight, by name.
        channels: which channels are the variable's, by name.
    """

    area: np.ndarray
    level: np.ndarray
    variable: dict[str, float]
    channels: dict[str, slice]


def loss_weights(task: TaskConfig, grid: Grid) -> LossWeights:
    """The weights of the published models for a task on a grid."""
    pressure = np.array(task.pressure_levels, dtype=np.float64)
    level, channels, start = [], {}, 0
    for block in target_blocks(task):
        level.append(pressure / pressure.sum() if block.levels else np.ones(1))
        channels[block.variable] = slice(start, start + block.channels)
        start += block.channels
    rows, columns = grid.shape
    return LossWeights(
        area=np.repeat(grid.area_weights() * rows, columns).astype(np.float32),
        level=np.concatenate(level).astype(np.float32),
        variable={name: VARIABLE_WEIGHTS.get(name, 1.0) for name in channels},
        channels=channels,
    )


def weighted_squared_error(
    predicted: jax.Array, target: jax.Array, weights: LossWeights
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The loss of one prediction and each variable's share before its weight.

    Args:
        predicted, target: normalised, shape (grid, channel).

    Returns:
        The loss, and the unweighted loss of each variable; float32 scalars (float64 of float64).
    """
    return weighted_mean((predicted.astype(accumulation_type(predicted.dtype)) - target) ** 2, weights)


def weighted_mean(pointwise: jax.Array, weights: LossWeights) -> tuple[jax.Array, dict[str, jax.Array]]:
    """A pointwise loss, shape (grid, channel), summed up as ``weighted_squared_error`` does it."""
    by_channel = (pointwise * weights.area[:, None]).mean(axis=0) * weights.level
    by_variable = {name: by_channel[channels].sum() for name, channels in weights.channels.items()}
    total = sum(
        (weights.variable[name] * loss for name, loss in by_variable.items()), jnp.zeros((), by_channel.dtype)
    )
    return total, by_variable


class Predict(Protocol):
    """A deterministic network: normalised features (grid, channel) to normalised targets (grid, channel)."""

    def __call__(self, features: jax.Array) -> jax.Array:
        """The prediction."""


def autoregressive_loss(
    predict: Predict,
    model_step: ModelStep,
    weights: LossWeights,
    *,
    statics: Mapping[str, jax.Array],
    frames: Mapping[str, jax.Array],
    forcings: Mapping[str, jax.Array],
    targets: Mapping[str, jax.Array],
    rematerialize: bool = False,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The mean loss over the steps of a forecast that feeds on itself: GraphCast's loss, for one example.

    Args:
        statics: (latitude, longitude).
        frames: input window, (2, [level,] latitude, longitude).
        forcings: from the first input frame to the last target, (2 + step, latitude, longitude).
        targets: the truth at each step, (step, [level,] latitude, longitude).
        rematerialize: compute a step's activations again in the backward pass instead of keeping them.

    Returns:
        The loss, and the unweighted loss of each variable; float32 scalars (float64 of float64).
    """

    def one_step(window: Fields, around: Fields, truth: Fields) -> tuple[Fields, Loss]:
        predicted = predict(model_step.features(statics, window, around))
        loss = weighted_squared_error(predicted, model_step.normalized_targets(truth, window), weights)
        fields = model_step.fields(predicted.astype(accumulation_type(predicted.dtype)), window)
        return model_step.next_frames(window, fields), loss

    return mean_over_rollout(
        one_step, dict(frames), forcings=forcings, targets=targets, rematerialize=rematerialize
    )


def mean_over_rollout(
    one_step: Callable[[Carried, Fields, Fields], tuple[Carried, Loss]],
    start: Carried,
    *,
    forcings: Mapping[str, jax.Array],
    targets: Mapping[str, jax.Array],
    rematerialize: bool,
) -> Loss:
    """The mean of a loss over the steps of a forecast that feeds on itself.

    Args:
        one_step: what is carried, the forcings around the step and the truth at its end, to what is carried on
            and the step's loss.
        start: what the first step is given.
        forcings, targets, rematerialize: as for ``autoregressive_loss``.
    """
    steps = next(iter(targets.values())).shape[0]

    def at(carried: Carried, index: jax.Array) -> tuple[Carried, Loss]:
        truth = {
            name: jax.lax.dynamic_index_in_dim(field, index, keepdims=False)
            for name, field in targets.items()
        }
        return one_step(carried, forcings_around(forcings, index), truth)

    body = jax.checkpoint(at) if rematerialize and steps > 1 else at
    _, (total, by_variable) = jax.lax.scan(body, start, jnp.arange(steps))
    return total.mean(), {name: loss.mean() for name, loss in by_variable.items()}
