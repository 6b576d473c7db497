"""One model step around the network: fields to normalised channels, predictions to fields and the next window.

Pure functions of arrays for one member; ``jax.vmap`` gives batches. Fields are mappings by variable name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from model.channels import (
    INPUT_FRAMES,
    forcing_blocks,
    input_blocks,
    stack_channels,
    target_blocks,
    unstack_channels,
)
from model.grid import Grid
from model.normalization import NAN_CLEANED, ChannelScaling
from model.task import TaskConfig

Fields = dict[str, jax.Array]


def forcings_around(forcings: Mapping[str, jax.Array], index: jax.Array) -> Fields:
    """The forcings of one step of a rollout: at its two input frames and at its target, (3, latitude, longitude).

    Args:
        forcings: from the first input frame to the last target, (2 + step, latitude, longitude).
        index: number of the step.
    """
    return {
        name: jax.lax.dynamic_slice_in_dim(field, index, INPUT_FRAMES + 1) for name, field in forcings.items()
    }


@dataclass(frozen=True, kw_only=True)
class ModelStep:
    """What surrounds the network in a step.

    Args:
        task: what the model takes and gives.
        grid: on which it works.
        scaling: its statistics as channels.
    """

    task: TaskConfig
    grid: Grid
    scaling: ChannelScaling

    def features(
        self,
        statics: Mapping[str, jax.Array],
        frames: Mapping[str, jax.Array],
        forcings: Mapping[str, jax.Array],
    ) -> jax.Array:
        """What the network sees: normalised inputs, then forcings, float32, shape (grid, channel).

        Args:
            statics: (latitude, longitude).
            frames: input window, (2, [level,] latitude, longitude).
            forcings: at the two input frames and the target time, (3, latitude, longitude).
        """
        past = {name: field[:INPUT_FRAMES] for name, field in forcings.items()}
        target_time = {name: field[INPUT_FRAMES:] for name, field in forcings.items()}
        inputs = {**past, **statics, **self.cleaned(frames)}
        channels = jnp.concatenate(
            [
                stack_channels(inputs, input_blocks(self.task)),
                stack_channels(target_time, forcing_blocks(self.task)),
            ],
            axis=1,
        )
        return (channels - self.scaling.input_mean) / self.scaling.input_stddev

    def fields(self, predicted: jax.Array, frames: Mapping[str, jax.Array]) -> Fields:
        """The fields a prediction means, ([level,] latitude, longitude).

        Args:
            predicted: normalised, float32, shape (grid, channel).
            frames: the input window it was made from.
        """
        values = predicted * self.scaling.target_stddev + self.scaling.target_mean
        fields = unstack_channels(values, target_blocks(self.task), shape=self.grid.shape)
        last = {name: window[-1] for name, window in self.cleaned(frames).items()}
        fields = {name: field + last[name] if name in last else field for name, field in fields.items()}
        if NAN_CLEANED in fields and NAN_CLEANED in frames:
            absent = jnp.isnan(frames[NAN_CLEANED]).any(axis=0)
            fields[NAN_CLEANED] = jnp.where(absent, jnp.nan, fields[NAN_CLEANED])
        return fields

    def normalized_targets(
        self, targets: Mapping[str, jax.Array], frames: Mapping[str, jax.Array]
    ) -> jax.Array:
        """What the network should have predicted, float32, shape (grid, channel).

        Args:
            targets: the truth, ([level,] latitude, longitude).
            frames: the input window.
        """
        last = {name: window[-1] for name, window in self.cleaned(frames).items()}
        truth = self.cleaned(targets)
        change = {name: field - last[name] if name in last else field for name, field in truth.items()}
        channels = stack_channels(change, target_blocks(self.task))
        return (channels - self.scaling.target_mean) / self.scaling.target_stddev

    def next_frames(self, frames: Mapping[str, jax.Array], fields: Mapping[str, jax.Array]) -> Fields:
        """The input window one step on."""
        return {name: jnp.concatenate([window[1:], fields[name][None]]) for name, window in frames.items()}

    def cleaned(self, fields: Mapping[str, jax.Array]) -> Fields:
        """Fields with a number where there is no value."""
        return {
            name: jnp.where(jnp.isnan(field), self.scaling.fill_values[name], field)
            if name in self.scaling.fill_values
            else field
            for name, field in fields.items()
        }
