"""The synthetic atmosphere in balance as a mirror's fields: what is ingested from it passes every check."""

from __future__ import annotations

from datetime import datetime
from functools import cache

import numpy as np
import xarray as xr

from model.grid import Grid
from model.variables import STANDARD_GRAVITY
from tests.model.diagnostics.atmospheres import synthetic_state, task

TASK = task()
"""GraphCast_operational's inputs on 13 levels."""

_NAMES = {
    "2t": "2m_temperature",
    "skt": "2m_temperature",
    "10u": "10m_u_component_of_wind",
    "10v": "10m_v_component_of_wind",
    "msl": "mean_sea_level_pressure",
    "lsm": "land_sea_mask",
    "t": "temperature",
    "u": "u_component_of_wind",
    "v": "v_component_of_wind",
    "w": "vertical_velocity",
    "q": "specific_humidity",
    "gh": "geopotential",
}


def balanced_field(
    short_name: str, level: int | None, valid_time: datetime, latitude: np.ndarray, longitude: np.ndarray
) -> np.ndarray:
    """What ``open_data_mirror.write_run`` takes as ``fields``: (latitude, longitude) in the mirror's units."""
    if short_name == "r":  # published, and not read where there is q
        return np.full((latitude.size, longitude.size), 50.0)
    state = _state(valid_time, latitude.size)
    name = "geopotential_at_surface" if short_name == "z" else _NAMES[short_name]
    field = state[name] if level is None else state[name].sel(level=level)
    rows, columns = np.argsort(np.argsort(latitude)), np.argsort(np.argsort(longitude))
    values = field.values[rows][:, columns].astype(np.float64)
    return values / STANDARD_GRAVITY if short_name == "gh" else values


@cache
def _state(valid_time: datetime, rows: int) -> xr.Dataset:
    state = synthetic_state(TASK, Grid(resolution=180 / (rows - 1)), init_time=valid_time)
    return state.sel(time=np.datetime64(valid_time.replace(tzinfo=None), "ns"))
