"""Single fields to one Dataset: the last step of ``infra.grib``."""

from __future__ import annotations

import json
from datetime import datetime

import numpy as np
import xarray as xr

from infra.grib_field import SourceGrid
from infra.grib_parameters import RELATIVE_HUMIDITY
from model.times import numpy_time
from model.variables import STATICS, VARIABLES

FieldKey = tuple[str, int, datetime, int]
"""Name, level (0 at the surface), valid time (``datetime.min`` for statics), member."""

_AUXILIARY_UNITS = {"skin_temperature": "K", "sea_ice_cover": "1", RELATIVE_HUMIDITY: "%"}


def assemble(arrays: dict[FieldKey, np.ndarray], grid: SourceGrid) -> xr.Dataset:
    """The Dataset of fields that lie on one grid; see ``infra.grib.decode`` for its form.

    Args:
        arrays: the fields, in canonical units, shape of the grid; emptied on the way to spare memory.
        grid: where they lie.
    """
    times = sorted({time for name, _, time, _ in arrays if name not in STATICS})
    numbers = sorted({number for name, _, _, number in arrays if name not in STATICS})
    horizontal: tuple[str, ...] = ("latitude", "longitude") if grid.gridded else ("points",)
    levels = sorted({level for name, level, _, _ in arrays if level})
    data: dict[str, tuple[tuple[str, ...], np.ndarray]] = {}
    absent: list[str] = []
    for name in sorted({key[0] for key in arrays}):
        if name in STATICS:
            data[name] = (horizontal, arrays.pop((name, 0, datetime.min, 0)))
            continue
        on_levels = name == RELATIVE_HUMIDITY or (name in VARIABLES and VARIABLES[name].on_levels)
        own_levels = levels if on_levels else [0]
        cube = np.full((len(times), len(numbers), len(own_levels), *grid.shape), np.nan, dtype=np.float32)
        for i, time in enumerate(times):
            for j, number in enumerate(numbers):
                for k, level in enumerate(own_levels):
                    found = arrays.pop((name, level, time, number), None)
                    if found is None:
                        absent.append(_label(name, level, time, number if len(numbers) > 1 else None))
                    else:
                        cube[i, j, k] = found
        dims: tuple[str, ...] = ("time", "number", "level", *horizontal)
        if not on_levels:
            cube, dims = cube[:, :, 0], tuple(dim for dim in dims if dim != "level")
        if len(numbers) == 1:
            cube, dims = cube[:, 0], tuple(dim for dim in dims if dim != "number")
        data[name] = (dims, cube)
    coordinates: dict[str, object] = {
        "latitude": ("latitude" if grid.gridded else "points", grid.latitude),
        "longitude": ("longitude" if grid.gridded else "points", grid.longitude),
    }
    if times:
        coordinates["time"] = np.array([numpy_time(time) for time in times])
    if levels:
        coordinates["level"] = np.array(levels, dtype=np.int32)
    if len(numbers) > 1:
        coordinates["number"] = np.array(numbers, dtype=np.int32)
    dataset = xr.Dataset(data, coords=coordinates, attrs={"grid": grid.specification})
    for variable in map(str, dataset.data_vars):
        units = VARIABLES[variable].units if variable in VARIABLES else _AUXILIARY_UNITS.get(variable)
        if units:
            dataset[variable].attrs["units"] = units
    if absent:
        dataset.attrs["absent"] = json.dumps(absent)
    return dataset


def _label(name: str, level: int, time: datetime, number: int | None) -> str:
    at = f" at {level} hPa" if level else ""
    member = "" if number is None else f", member {number}"
    return f"{name}{at}, valid {time:%Y%m%dT%HZ}{member}"
