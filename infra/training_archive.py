"""Archives of analyses that models are trained on: Zarr stores, read into memory or, if large, as needed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
import xarray as xr

from infra.errors import MissingDataError
from model.variables import STATICS, VARIABLES


class StoredField:
    """A field that stays on disk and is read by times; what of an array the examples of a training use.

    Args:
        array: lazily read, time first.
    """

    def __init__(self, array: xr.DataArray) -> None:
        self._array = array

    @property
    def shape(self) -> tuple[int, ...]:
        """As of the array."""
        return tuple(self._array.shape)

    def __getitem__(self, places: np.ndarray) -> np.ndarray:
        """The fields at some times, by place, float32: (…) to (…, rest of the dims)."""
        places = np.asarray(places)
        different, back = np.unique(places, return_inverse=True)
        read = self._array.isel(time=different).values.astype(np.float32)
        return np.asarray(read[back.reshape(places.shape)])


def read_archive(
    path: Path,
    variables: Sequence[str],
    levels: Sequence[int],
    *,
    start: datetime | None = None,
    end: datetime | None = None,
    load: bool = True,
) -> xr.Dataset:
    """Some variables of a period, float32, in memory.

    Args:
        path: a Zarr store with dims (time, [level,] latitude, longitude) and canonical names; it may still grow.
        variables: long names; those without a time dimension among them.
        levels: hPa.
        start, end: bounds of the period, both included; None for those of the archive.
        load: False leaves the fields on disk, in the archive's type, until they are asked for.

    Raises:
        MissingDataError: no such store, or it lacks a variable, a level or the period.
    """
    try:
        archive = xr.open_zarr(path, consolidated=False, chunks=None)
    except (FileNotFoundError, KeyError) as error:
        raise MissingDataError(f"{path}: expected a Zarr store of analyses, found none ({error})") from error
    missing = sorted(set(variables) - set(map(str, archive.data_vars)))
    if missing:
        raise MissingDataError(f"{path}: expected {missing}, got {sorted(map(str, archive.data_vars))}")
    if any(VARIABLES[name].on_levels for name in variables):
        absent = sorted(set(levels) - set(archive["level"].values.tolist()))
        if absent:
            raise MissingDataError(
                f"{path}: expected levels {absent} hPa, got {archive['level'].values.tolist()}"
            )
        archive = archive.sel(level=list(levels))
    period = archive[list(variables)].sel(time=slice(_naive(start), _naive(end)))
    if not period.sizes["time"]:
        times = archive["time"].values
        raise MissingDataError(
            f"{path}: expected analyses from {start or 'its start'} to {end or 'its end'}, "
            f"got {times[0]} to {times[-1]}"
        )
    fields = {
        name: period[name].isel(time=0) if name in STATICS and "time" in period[name].dims else period[name]
        for name in variables
    }
    if not load:
        return xr.Dataset(fields)
    loaded: xr.Dataset = xr.Dataset(fields).astype(np.float32).load()
    return loaded


def _naive(time: datetime | None) -> np.datetime64 | None:
    """NumPy's times have no zone; ours are UTC."""
    return None if time is None else np.datetime64(int(time.timestamp()), "s")
