"""Data sets in the form of DeepMind's examples: dims batch, time, level, lat, lon, and a coordinate ``datetime``.

Only here do the names ``lat``, ``lon``, ``batch``, ``sample`` and ``datetime`` appear.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import xarray as xr

from model.channels import INPUT_FRAMES
from model.errors import InvalidFieldError
from model.forcings import SOLAR_RADIATION, GivenForcings
from model.grid import Grid
from model.times import aware_time
from model.variables import VARIABLES

_RENAMED = {"lat": "latitude", "lon": "longitude"}


@dataclass(frozen=True, kw_only=True)
class Example:
    """An example data set in our terms.

    Args:
        initial_condition: the first two frames and the statics, dims (time, [level,] latitude, longitude).
        init_time: of the second frame.
        given: solar radiation, where the file carries it.
        frames: all frames, dims as the initial condition, without statics.
    """

    initial_condition: xr.Dataset
    init_time: datetime
    given: GivenForcings
    frames: xr.Dataset

    @property
    def grid(self) -> Grid:
        """The grid the data seem to lie on, by the number of latitudes."""
        return Grid(resolution=180.0 / (self.initial_condition.sizes["latitude"] - 1))


def read_example(dataset: xr.Dataset) -> Example:
    """Translate an example data set.

    Raises:
        InvalidFieldError: coordinates are missing, there are several batches, or fewer than two frames.
    """
    missing = [name for name in ("lat", "lon", "time", "datetime") if name not in dataset.coords]
    if missing:
        raise InvalidFieldError(
            f"dataset: expected the coordinates lat, lon, time and datetime; missing {missing}; "
            f"got {sorted(map(str, dataset.coords))}"
        )
    if dataset.sizes.get("batch", 1) != 1:
        raise InvalidFieldError(f"dataset: expected one batch, got {dataset.sizes['batch']}")
    if dataset.sizes.get("lat", 0) < 2:
        raise InvalidFieldError(f"dataset: expected several latitudes, got {dataset.sizes.get('lat', 0)}")
    valid_times = np.atleast_1d(
        dataset["datetime"].squeeze("batch", drop=True).values
        if "batch" in dataset["datetime"].dims
        else dataset["datetime"].values
    )
    if valid_times.size < INPUT_FRAMES:
        raise InvalidFieldError(f"dataset: expected at least {INPUT_FRAMES} frames, got {valid_times.size}")
    known = dataset[[name for name in dataset.data_vars if name in VARIABLES]].drop_vars("datetime")
    known = known.squeeze("batch", drop=True) if "batch" in known.dims else known
    known = known.rename(_RENAMED).assign_coords(time=valid_times.astype("datetime64[ns]"))
    in_time = [name for name, field in known.data_vars.items() if "time" in field.dims]
    moments = [aware_time(moment) for moment in valid_times]
    radiation: Mapping[datetime, np.ndarray] = {}
    if SOLAR_RADIATION in known:
        fields = known[SOLAR_RADIATION].transpose("time", "latitude", "longitude").values.astype(np.float32)
        radiation = dict(zip(moments, fields))
    return Example(
        initial_condition=known.isel(time=slice(0, INPUT_FRAMES)),
        init_time=moments[INPUT_FRAMES - 1],
        given=GivenForcings(solar_radiation=radiation),
        frames=known[in_time],
    )


def example_fields(fields: xr.Dataset, lead_time: timedelta) -> xr.Dataset:
    """One step's fields as they stand in an example file: dims batch, time, (level,) lat, lon."""
    renamed = fields.rename({ours: theirs for theirs, ours in _RENAMED.items()})
    return renamed.expand_dims(
        batch=1, time=np.array([np.timedelta64(lead_time)], dtype="timedelta64[ns]")
    ).transpose("batch", "time", "level", "lat", "lon", missing_dims="ignore")
