"""Station observations as one plain table, from CSV, Parquet or NetCDF files.

A row is one report of one variable: ``station`` (identifier), ``latitude`` and ``longitude`` (degrees), ``height``
(metres above mean sea level, may be empty), ``time`` (UTC), ``variable`` (long name, e.g. ``2m_temperature``) and
``value`` in the variable's units.
"""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta

import fsspec
import numpy as np
import pandas as pd
import xarray as xr

from infra.errors import InvalidFieldError, MissingDataError, StoreError
from infra.store_errors import translated
from model.stations import Stations

COLUMNS = ("station", "latitude", "longitude", "height", "time", "variable", "value")


def read_observations(place: str) -> pd.DataFrame:
    """The table in a file.

    Args:
        place: path or fsspec URL ending in ``.csv``, ``.parquet`` or ``.nc``.

    Raises:
        MissingDataError: there is no such file (yet).
        StoreError: another ending, Parquet without ``pyarrow``, or a store that refuses.
        InvalidFieldError: a column is missing, or times, places or values are not such.
    """
    try:
        with translated(f"read {place}"), fsspec.open(place, "rb") as file:
            data = file.read()
    except StoreError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise MissingDataError(f"observations {place}: no such file") from error
        raise
    return _checked(_parsed(data, place), place)


def reports_at(
    table: pd.DataFrame, valid_time: datetime, *, tolerance: timedelta = timedelta(minutes=30)
) -> tuple[Stations, dict[str, np.ndarray]]:
    """The reports nearest to a valid time: of each station and variable one at most.

    Args:
        table: as ``read_observations`` gives it.
        valid_time: UTC.
        tolerance: how far from it a report may be.

    Returns:
        The stations, in order of their names, and by variable their reports, shape (station,), NaN where there is
        none.
    """
    wanted = pd.Timestamp(valid_time.astimezone(UTC))
    distance = (table["time"] - wanted).abs()
    near = table.assign(distance=distance)[(distance <= tolerance) & table["value"].notna()]
    near = near.sort_values(["distance", "time"], kind="stable")
    near = near.drop_duplicates(["station", "variable"])
    places = near.drop_duplicates("station").set_index("station").sort_index()
    values = near.pivot(index="station", columns="variable", values="value").reindex(places.index)
    stations = Stations(
        names=tuple(map(str, places.index)),
        latitude=places["latitude"].to_numpy(np.float64),
        longitude=places["longitude"].to_numpy(np.float64),
        height=places["height"].to_numpy(np.float64),
    )
    return stations, {str(name): values[name].to_numpy(np.float64) for name in values.columns}


def _parsed(data: bytes, place: str) -> pd.DataFrame:
    buffer = io.BytesIO(data)
    try:
        if place.endswith(".csv"):
            return pd.read_csv(buffer, dtype={"station": str, "variable": str})
        if place.endswith(".parquet"):
            return pd.read_parquet(buffer)
        if place.endswith(".nc"):
            return xr.load_dataset(buffer, engine="h5netcdf").to_dataframe().reset_index()
    except ImportError as error:
        raise StoreError(f"observations {place}: reading Parquet needs the package pyarrow") from error
    except (ValueError, OSError) as error:
        raise InvalidFieldError(f"observations {place}: not readable: {error}") from error
    raise StoreError(f"observations {place}: expected a name ending in .csv, .parquet or .nc")


def _checked(table: pd.DataFrame, place: str) -> pd.DataFrame:
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing:
        raise InvalidFieldError(
            f"observations {place}: columns {', '.join(missing)} are missing; it has "
            f"{', '.join(map(str, table.columns))}"
        )
    table = table[list(COLUMNS)].copy()
    try:
        table["time"] = pd.to_datetime(table["time"], utc=True, format="ISO8601")
        for name in ("latitude", "longitude", "height", "value"):
            table[name] = pd.to_numeric(table[name]).astype(np.float64)
    except (ValueError, TypeError) as error:
        raise InvalidFieldError(f"observations {place}: {error}") from error
    for name in ("station", "variable"):
        table[name] = table[name].astype(str)
    wrong = ~(table["latitude"].abs() <= 90) | ~np.isfinite(table["longitude"]) | table["time"].isna()
    if wrong.any():
        raise InvalidFieldError(
            f"observations {place}: {int(wrong.sum())} rows without a place or time on Earth, first row "
            f"{int(np.argmax(wrong)) + 1}"
        )
    return table
