"""Between physical values and what the networks see.

Inputs and forcings are centred and divided by their climatological spread. Of a target that is also an input the
network predicts the change since the last frame, in units of the spread of such changes; of another target
(precipitation where it is no input) the value itself, in its own units.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import xarray as xr

from model.channels import ChannelBlock, forcing_blocks, input_blocks, target_blocks
from model.errors import InvalidFieldError
from model.task import TaskConfig

NAN_CLEANED = "sea_surface_temperature"
"""The one variable with places without a value; there the networks see its climatological minimum."""

TIMESTEP_HOURS = "timestep_hours"
"""Attribute of statistics: the step of the model that they are for. GenCast's published files have it."""

_DAY_PROGRESS, _YEAR_PROGRESS = "day_progress_sin", "year_progress_sin"
_DAY_PROGRESS_TOLERANCE, _LARGEST_YEAR_PROGRESS = 0.01, 0.02


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Climatological statistics by variable and level, as published in the ``*_by_level.nc`` files.

    Args:
        mean, stddev: of the values.
        diffs_stddev: of the change over one model step.
        minimum: of the values; only GenCast's files have it.
    """

    mean: xr.Dataset
    stddev: xr.Dataset
    diffs_stddev: xr.Dataset
    minimum: xr.Dataset | None = None


@dataclass(frozen=True, kw_only=True)
class ChannelScaling:
    """The statistics laid out as channels, float32.

    Args:
        input_mean, input_stddev: of inputs and then forcings, shape (input channel,).
        target_mean, target_stddev: what turns a prediction into physical values, shape (target channel,);
            for a predicted change the mean is 0.
        target_is_change: per target channel, whether the last frame is to be added.
        fill_values: what stands in for a missing value, by variable.
    """

    input_mean: np.ndarray
    input_stddev: np.ndarray
    target_mean: np.ndarray
    target_stddev: np.ndarray
    target_is_change: np.ndarray
    fill_values: dict[str, float]


def channel_scaling(task: TaskConfig, statistics: Statistics) -> ChannelScaling:
    """Lay out the statistics in the order of the channels of a task.

    Raises:
        InvalidFieldError: a variable or level is missing from a file, a number is not finite, a spread is not
            positive, or the changes are those over another step than the task's.
    """
    _require_step(task, statistics.diffs_stddev)
    inputs = [*input_blocks(task), *forcing_blocks(task)]
    targets = target_blocks(task)
    changes = [block for block in targets if block.variable in task.input_variables]
    of_target = {
        block.variable: statistics.diffs_stddev if block in changes else statistics.stddev
        for block in targets
    }
    stddev = np.concatenate(
        [
            _channel_values(
                of_target[block.variable], "diffs_stddev" if block in changes else "stddev", block, task
            )
            for block in targets
        ]
    )
    mean = np.concatenate(
        [
            np.zeros(block.channels, np.float32)
            if block in changes
            else _channel_values(statistics.mean, "mean", block, task)
            for block in targets
        ]
    )
    fill_values = {}
    if NAN_CLEANED in {*task.input_variables, *task.target_variables}:
        if statistics.minimum is None or NAN_CLEANED not in statistics.minimum:
            raise InvalidFieldError(
                f"min_by_level: expected {NAN_CLEANED!r}, which fills the places without a value; got "
                + (
                    "no such file"
                    if statistics.minimum is None
                    else f"{sorted(map(str, statistics.minimum))}"
                )
            )
        fill_values[NAN_CLEANED] = float(statistics.minimum[NAN_CLEANED])
    return ChannelScaling(
        input_mean=_concatenate(statistics.mean, "mean", inputs, task),
        input_stddev=_concatenate(statistics.stddev, "stddev", inputs, task),
        target_mean=mean,
        target_stddev=stddev,
        target_is_change=np.concatenate([np.full(block.channels, block in changes) for block in targets]),
        fill_values=fill_values,
    )


def _require_step(task: TaskConfig, diffs_stddev: xr.Dataset) -> None:
    """Refuse changes over another step, where the file tells which it is; some published ones do not."""
    expected = task.step / timedelta(hours=1)
    told = diffs_stddev.attrs.get(TIMESTEP_HOURS)
    if told is not None and float(told) != expected:
        raise InvalidFieldError(
            f"diffs_stddev_by_level: expected changes over the model's step of {expected:g} h, "
            f"got those over {float(told):g} h"
        )
    measured = _spread_of_day_progress(diffs_stddev)
    due = math.sqrt(2) * abs(math.sin(math.pi * expected / 24))
    if told is None and measured is not None and abs(measured - due) > _DAY_PROGRESS_TOLERANCE:
        raise InvalidFieldError(
            f"diffs_stddev_by_level: expected changes over the model's step of {expected:g} h, in which "
            f"day_progress_sin changes by {due:.3f}; got {measured:.3f}"
        )


def _spread_of_day_progress(diffs_stddev: xr.Dataset) -> float | None:
    """By how much the sine of local time changes in the step of the file: √2 |sin(π step / 24 h)| on every globe.

    None where the file has no such number, or has placeholders: within a day the year's progress changes by less
    than a fiftieth.
    """
    if not {_DAY_PROGRESS, _YEAR_PROGRESS} <= set(diffs_stddev.data_vars):
        return None
    day, year = float(diffs_stddev[_DAY_PROGRESS]), float(diffs_stddev[_YEAR_PROGRESS])
    return day if year < _LARGEST_YEAR_PROGRESS else None


def _concatenate(
    dataset: xr.Dataset, kind: str, blocks: Sequence[ChannelBlock], task: TaskConfig
) -> np.ndarray:
    return np.concatenate([_channel_values(dataset, kind, block, task) for block in blocks])


def _channel_values(dataset: xr.Dataset, kind: str, block: ChannelBlock, task: TaskConfig) -> np.ndarray:
    """One statistic for each channel of a block: time outermost, then level."""
    if block.variable not in dataset:
        raise InvalidFieldError(
            f"{kind} statistics: expected {block.variable!r}, got {sorted(map(str, dataset.data_vars))}"
        )
    values = dataset[block.variable]
    if block.levels:
        missing = sorted(set(task.pressure_levels) - set(values["level"].values.tolist()))
        if missing:
            raise InvalidFieldError(f"{kind} statistics: {block.variable}: missing levels {missing} hPa")
        values = values.sel(level=list(task.pressure_levels))
    elif values.ndim:
        raise InvalidFieldError(
            f"{kind} statistics: {block.variable}: expected one number, got {values.dims}"
        )
    if not np.isfinite(values.values).all() or (kind != "mean" and not (values.values > 0).all()):
        expected = "finite means" if kind == "mean" else "positive, finite spreads"
        raise InvalidFieldError(
            f"{kind}_by_level: {block.variable}: expected {expected}, got {values.values.tolist()}"
        )
    return np.tile(np.atleast_1d(values.values), max(block.frames, 1)).astype(np.float32)
