"""The climatology a model's products and verification refer to."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import fsspec
import numpy as np
import xarray as xr

from infra.errors import StoreError
from model.diagnostics.climatology import COEFFICIENT, climatological_mean
from model.times import numpy_time

ClimatologyAt = Callable[[datetime], xr.Dataset]
"""The climatological mean at a valid time, dims ([level,] latitude, longitude)."""


def load_climatology(location: str) -> xr.Dataset:
    """A climatology file (NetCDF, as ``model.diagnostics.climatology`` assembles it) from a path or URL.

    Raises:
        StoreError: there is no such file, or it is no climatology.
    """
    try:
        with fsspec.open(location, "rb") as file:
            climatology = xr.load_dataset(file, engine="h5netcdf")
    except (OSError, ValueError) as error:
        raise StoreError(f"climatology {location}: could not be read: {error}") from error
    if COEFFICIENT not in climatology.dims:
        dims = sorted(map(str, climatology.dims))
        raise StoreError(f"climatology {location}: expected a dimension {COEFFICIENT!r}, got {dims}")
    return climatology


def climatology_variables(climatology: xr.Dataset) -> tuple[str, ...]:
    """Variables whose mean it has."""
    return tuple(str(name) for name, array in climatology.data_vars.items() if COEFFICIENT in array.dims)


def climatology_at(climatology: xr.Dataset) -> ClimatologyAt:
    """The mean as a function of valid time; the last time asked for is kept."""
    kept: dict[datetime, xr.Dataset] = {}

    def at(time: datetime) -> xr.Dataset:
        if time not in kept:
            kept.clear()
            moment = np.array([numpy_time(time)])
            kept[time] = climatological_mean(climatology, moment).isel(time=0, drop=True)
        return kept[time]

    return at
