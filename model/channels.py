"""Between named fields and the channels of grid points, in the order of the published checkpoints.

Variables come in alphabetical order; within a variable time is outermost, then level. Inputs come first, then
the forcings of the target time. Statics have one channel each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from model.task import TaskConfig
from model.variables import STATICS, VARIABLES

INPUT_FRAMES = 2
"""Frames of the past that both families take."""


@dataclass(frozen=True, kw_only=True)
class ChannelBlock:
    """The channels of one variable.

    Args:
        variable: its long name.
        frames: how many times; 0 for one static field.
        levels: how many levels; 0 without a level dimension.
    """

    variable: str
    frames: int
    levels: int

    @property
    def channels(self) -> int:
        """How many channels it takes."""
        return max(self.frames, 1) * max(self.levels, 1)


def _blocks(names: Sequence[str], *, frames: int, levels: int) -> tuple[ChannelBlock, ...]:
    return tuple(
        ChannelBlock(
            variable=name,
            frames=0 if name in STATICS else frames,
            levels=levels if VARIABLES[name].on_levels else 0,
        )
        for name in sorted(names)
    )


def input_blocks(task: TaskConfig) -> tuple[ChannelBlock, ...]:
    """Blocks of the inputs: past frames and statics."""
    return _blocks(task.input_variables, frames=INPUT_FRAMES, levels=len(task.pressure_levels))


def forcing_blocks(task: TaskConfig) -> tuple[ChannelBlock, ...]:
    """Blocks of the forcings at the target time."""
    return _blocks(task.forcing_variables, frames=1, levels=len(task.pressure_levels))


def target_blocks(task: TaskConfig) -> tuple[ChannelBlock, ...]:
    """Blocks of the predicted fields at the target time."""
    return _blocks(task.target_variables, frames=1, levels=len(task.pressure_levels))


def count_channels(blocks: Sequence[ChannelBlock]) -> int:
    """Channels of all blocks together."""
    return sum(block.channels for block in blocks)


def stack_channels(fields: Mapping[str, jax.Array], blocks: Sequence[ChannelBlock]) -> jax.Array:
    """Fields as channels of grid points.

    Args:
        fields: by name, dims ([frame,] [level,] latitude, longitude), as the blocks say.

    Returns:
        Shape (latitude·longitude, channel).
    """
    stacked = [fields[block.variable].reshape(block.channels, -1) for block in blocks]
    return jnp.concatenate(stacked, axis=0).T


def unstack_channels(
    channels: jax.Array, blocks: Sequence[ChannelBlock], *, shape: tuple[int, int]
) -> dict[str, jax.Array]:
    """The inverse of ``stack_channels`` for blocks of one frame: fields of dims ([level,] latitude, longitude).

    Args:
        channels: shape (latitude·longitude, channel).
        shape: (latitude, longitude) sizes.
    """
    fields, start = {}, 0
    for block in blocks:
        values = channels[:, start : start + block.channels].T
        fields[block.variable] = values.reshape(*([block.levels] if block.levels else []), *shape)
        start += block.channels
    return fields
