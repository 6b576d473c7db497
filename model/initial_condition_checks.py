"""What must hold of an initial condition before a model is compiled for it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
import xarray as xr

from model.channels import INPUT_FRAMES
from model.errors import InvalidFieldError
from model.grid import Grid
from model.normalization import NAN_CLEANED
from model.task import TaskConfig
from model.times import numpy_time
from model.variables import VARIABLES


def checked_frames(dataset: xr.Dataset, task: TaskConfig, grid: Grid, *, init_time: datetime) -> xr.Dataset:
    """The input frames of a model, checked, ordered and selected.

    Args:
        dataset: float32, dims (time=2, [level,] latitude, longitude); ``time`` in UTC, the second is init_time.
        init_time: start of the forecast, time-zone aware.

    Returns:
        The task's time-dependent inputs alone, dims (time, [level,] latitude, longitude), on the task's levels.

    Raises:
        InvalidFieldError: saying what was expected and what came.
    """
    where = f"initial condition {init_time.astimezone(UTC):%Y-%m-%dT%H}"
    _check_grid(dataset, grid, where)
    _check_present(dataset, task.time_inputs, where)
    _check_times(dataset, task, init_time, where)
    frames = {name: _checked_field(dataset[name], name, ("time",), task, where) for name in task.time_inputs}
    coordinates = {"time": dataset["time"].values, "latitude": grid.latitude, "longitude": grid.longitude}
    if any(VARIABLES[name].on_levels for name in frames):
        coordinates["level"] = np.array(task.pressure_levels, dtype=np.int32)
    return xr.Dataset(frames, coords=coordinates)


def checked_statics(dataset: xr.Dataset, task: TaskConfig, grid: Grid) -> dict[str, np.ndarray]:
    """The task's static fields, float32, shape (latitude, longitude).

    Raises:
        InvalidFieldError: one is missing, has a time dimension or NaN, or lies on another grid.
    """
    _check_grid(dataset, grid, "statics")
    _check_present(dataset, task.statics, "statics")
    for name in task.statics:
        if "time" in dataset[name].dims:
            raise InvalidFieldError(
                f"statics: {name}: expected dims (latitude, longitude), got {dataset[name].dims}: "
                "a static field has no time dimension"
            )
    return {name: _checked_field(dataset[name], name, (), task, "statics").values for name in task.statics}


def _check_grid(dataset: xr.Dataset, grid: Grid, where: str) -> None:
    mismatch = grid.mismatch(dataset)
    if mismatch:
        raise InvalidFieldError(f"{where}: {mismatch}")


def _check_present(dataset: xr.Dataset, names: Sequence[str], where: str) -> None:
    missing = [name for name in names if name not in dataset.data_vars]
    if missing:
        raise InvalidFieldError(
            f"{where}: missing variables {missing}; got {sorted(map(str, dataset.data_vars))}"
        )


def _check_times(dataset: xr.Dataset, task: TaskConfig, init_time: datetime, where: str) -> None:
    times = np.atleast_1d(dataset["time"].values) if "time" in dataset.coords else np.array([])
    if times.size != INPUT_FRAMES or not np.issubdtype(times.dtype, np.datetime64):
        raise InvalidFieldError(
            f"{where}: time: expected {INPUT_FRAMES} valid times, got {times.size} of {times.dtype}"
        )
    step = np.timedelta64(task.step)
    if times[1] - times[0] != step:
        apart = (times[1] - times[0]) / np.timedelta64(1, "h")
        raise InvalidFieldError(
            f"{where}: expected frames {step / np.timedelta64(1, 'h'):g} h apart, got {apart:g} h"
        )
    expected = numpy_time(init_time)
    if times[1] != expected:
        raise InvalidFieldError(f"{where}: expected the last frame at {expected}, got {times[1]}")


def _checked_field(
    field: xr.DataArray, name: str, leading: tuple[str, ...], task: TaskConfig, where: str
) -> xr.DataArray:
    levels = ("level",) if VARIABLES[name].on_levels else ()
    dims = (*leading, *levels, "latitude", "longitude")
    if set(field.dims) != set(dims):
        raise InvalidFieldError(f"{where}: {name}: expected dims {dims}, got {field.dims}")
    if levels:
        missing = sorted(set(task.pressure_levels) - set(np.atleast_1d(field["level"].values).tolist()))
        if missing:
            raise InvalidFieldError(
                f"{where}: {name}: missing levels {missing} hPa; got {field['level'].values.tolist()}"
            )
        field = field.sel(level=list(task.pressure_levels))
    values = np.ascontiguousarray(field.transpose(*dims).values, dtype=np.float32)
    if name != NAN_CLEANED and not np.isfinite(values).all():
        bad = np.argwhere(~np.isfinite(values))
        place = dict(zip(dims, bad[0].tolist()))
        raise InvalidFieldError(
            f"{where}: {name}: expected finite values, got {len(bad)} that are NaN or infinite, first at {place}"
        )
    return xr.DataArray(values, dims=dims)
