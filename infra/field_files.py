"""NetCDF and Zarr files of gridded fields to canonical names, units and order, on their own grid.

Understood are our own names, those of the Copernicus Climate Data Store, ecCodes' short names and DeepMind's
example datasets (``batch, time, level, lat, lon`` with ``datetime``). A variable without units has those that
its name has with ECMWF (https://codes.ecmwf.int/grib/param-db): geopotential height is in metres, geopotential in
m² s⁻².
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import xarray as xr

from infra.errors import InvalidFieldError
from infra.grib_parameters import ACCUMULATED_PRECIPITATION
from model.times import numpy_time
from model.variables import STANDARD_GRAVITY, STATICS, VARIABLES

_DIMENSIONS = {
    "lat": "latitude",
    "lon": "longitude",
    "valid_time": "time",
    "pressure_level": "level",
    "isobaricInhPa": "level",
    "plev": "level",
}
_SHORT_NAMES = {
    "t2m": "2m_temperature",
    "2t": "2m_temperature",
    "u10": "10m_u_component_of_wind",
    "10u": "10m_u_component_of_wind",
    "v10": "10m_v_component_of_wind",
    "10v": "10m_v_component_of_wind",
    "msl": "mean_sea_level_pressure",
    "sst": "sea_surface_temperature",
    "skt": "skin_temperature",
    "siconc": "sea_ice_cover",
    "lsm": "land_sea_mask",
    "t": "temperature",
    "u": "u_component_of_wind",
    "v": "v_component_of_wind",
    "w": "vertical_velocity",
    "q": "specific_humidity",
    "tp": ACCUMULATED_PRECIPITATION,
}
_AUXILIARY = {"skin_temperature": "K", "sea_ice_cover": "1", ACCUMULATED_PRECIPITATION: "m"}
_HEIGHTS = ("gh", "geopotential_height", "orog")
_LEVEL_UNITS = {"Pa": 0.01, "hPa": 1.0, "mb": 1.0, "mbar": 1.0, "millibar": 1.0, "millibars": 1.0}
_UNITS = {  # (as written, canonical) → (factor, offset)
    ("degC", "K"): (1.0, 273.15),
    ("°C", "K"): (1.0, 273.15),
    ("C", "K"): (1.0, 273.15),
    ("celsius", "K"): (1.0, 273.15),
    ("hPa", "Pa"): (100.0, 0.0),
    ("mbar", "Pa"): (100.0, 0.0),
    ("mm", "m"): (1e-3, 0.0),
    ("kg m-2", "m"): (1e-3, 0.0),
    ("kg m**-2", "m"): (1e-3, 0.0),
    ("g kg-1", "kg kg-1"): (1e-3, 0.0),
    ("gpm", "m2 s-2"): (STANDARD_GRAVITY, 0.0),
    ("m", "m2 s-2"): (STANDARD_GRAVITY, 0.0),
}
_SAME_UNITS = {"(0 - 1)": "1", "dimensionless": "1", "": ""}

_GAUSSIAN_GRID = re.compile("[FNO][1-9][0-9]*")


def read_fields(
    path: Path | str, file_format: Literal["netcdf", "zarr"], *, valid_time: datetime | None = None
) -> xr.Dataset:
    """The known variables of a file.

    Args:
        path: a NetCDF file or a Zarr folder.
        file_format: which.
        valid_time: read that time alone (and what has no time), nothing if it is not there; default: all.

    Returns:
        float32 Dataset with dims (time, [level,] latitude, longitude), statics without time, other variables
        left out; coordinates in the file's own order; accumulations as they are named in the file.
        ``attrs["experiment"]``: ERA5's experiment version (0001 final, 0005 ERA5T), if the file says it;
        ``attrs["grid"]``: the name of its Gaussian grid, if the file has it there.

    Raises:
        InvalidFieldError: the file cannot be read, has no known variable, or units that are not understood.
    """
    with opened(path, file_format, where=str(path)) as dataset:
        return canonical(dataset, where=str(path), valid_time=valid_time).load()


@contextmanager
def opened(
    file: Path | str | IO[bytes] | Any, file_format: Literal["netcdf", "zarr"], *, where: str
) -> Iterator[xr.Dataset]:
    """A file as it is; nothing is read but what is looked at.

    Args:
        file: a path or an open file; a path or a Zarr store.
        file_format: which.
        where: for the error message.

    Raises:
        InvalidFieldError: it cannot be read, now or within the block.
        OSError: a Zarr store's, as it is: that may be the network.
    """
    damage: tuple[type[Exception], ...] = (ValueError, KeyError, RuntimeError)
    if file_format == "netcdf" or isinstance(file, (Path, str)):
        damage = (*damage, OSError)
    try:
        engine = "zarr" if file_format == "zarr" else _netcdf_engine(file)
        with xr.open_dataset(file, engine=engine) as dataset:
            yield dataset
    except damage as error:
        raise InvalidFieldError(f"{where}: cannot be read as {file_format}: {error}") from error


def _netcdf_engine(file: Path | str | IO[bytes]) -> Literal["scipy", "h5netcdf"]:
    if isinstance(file, (Path, str)):
        with open(file, "rb") as opened_here:
            start = opened_here.read(3)
    else:
        start = file.read(3)
        file.seek(0)
    return "scipy" if start == b"CDF" else "h5netcdf"  # the classic format has no HDF5 inside


def contents(dataset: xr.Dataset, *, where: str, valid_time: datetime) -> dict[str, tuple[int, ...]]:
    """Which known variables an opened file has at a time, with their levels (none at the surface); not read.

    Raises:
        InvalidFieldError: it has none at any time.
    """
    dataset, names = _named(dataset, where)
    dataset = _at(dataset, valid_time)
    found = {}
    for name in map(str, dataset.data_vars):
        long_name = names[name]
        timeless = long_name == ACCUMULATED_PRECIPITATION and "time" not in dataset.coords
        if long_name is not None and not timeless and {"latitude", "longitude"} <= set(dataset[name].dims):
            on_levels = "level" in dataset[name].dims
            found[long_name] = tuple(map(int, dataset["level"].values)) if on_levels else ()
    return found


def canonical(
    dataset: xr.Dataset,
    *,
    where: str,
    valid_time: datetime | None = None,
    variables: Collection[str] | None = None,
    levels: Collection[int] | None = None,
) -> xr.Dataset:
    """Rename, convert and order what is known in a Dataset; see ``read_fields``.

    Args:
        dataset: as in the file.
        where: for the error message.
        valid_time: as there.
        variables, levels: long names and hPa of what alone is read; default: all.
    """
    grid = str(dataset.attrs.get("grid", ""))
    dataset, names = _named(dataset, where)
    if variables is not None:
        dataset = dataset[[name for name in dataset.data_vars if names[str(name)] in variables]]
    if levels is not None and "level" in dataset.dims:
        dataset = dataset.sel(level=[int(level) for level in dataset["level"].values if level in levels])
    dataset = _at(dataset, valid_time)
    experiment = _experiment(dataset)
    known: dict[str, xr.DataArray] = {}
    for name in map(str, dataset.data_vars):
        array = dataset[name]
        long_name = names[name]
        if long_name is None or not {"latitude", "longitude"} <= set(array.dims):
            continue
        array = _in_our_units(array, long_name, where)
        if long_name in STATICS and "time" in array.dims:
            array = array.isel(time=0, drop=True)
        elif long_name not in STATICS and "time" not in array.dims and "time" in dataset.coords:
            array = array.expand_dims("time")
        order = [dim for dim in ("time", "number", "level") if dim in array.dims]
        axes = [*order, "latitude", "longitude"]
        array = array.drop_vars([name for name in array.coords if name not in axes])
        known[long_name] = array.transpose(..., *axes).astype(np.float32)
    named = grid if _GAUSSIAN_GRID.fullmatch(grid) else ""
    return xr.Dataset(known, attrs={"grid": named, "experiment": experiment})


def _named(dataset: xr.Dataset, where: str) -> tuple[xr.Dataset, dict[str, str | None]]:
    """With our axes, and the long name of each of its variables that has one."""
    dataset = _axes(dataset, where)
    names = {str(name): _long_name(str(name), "level" in dataset[name].dims) for name in dataset.data_vars}
    if not any(names.values()):
        raise InvalidFieldError(f"{where}: no known variable; it has {', '.join(sorted(names))}")
    return dataset, names


def _at(dataset: xr.Dataset, valid_time: datetime | None) -> xr.Dataset:
    """Only that time, before anything is loaded: archives hold years."""
    if valid_time is None or "time" not in dataset.coords:
        return dataset
    wanted = numpy_time(valid_time)
    found = np.flatnonzero(np.atleast_1d(dataset["time"].values) == wanted)
    if "time" not in dataset.dims:
        return dataset if found.size else dataset.drop_vars(list(dataset.data_vars))
    return dataset.isel(time=found) if found.size else dataset.drop_dims("time")


def _experiment(dataset: xr.Dataset) -> str:
    if "expver" in dataset.coords and dataset["expver"].ndim <= 1:
        return ",".join(sorted({str(version) for version in np.atleast_1d(dataset["expver"].values)}))
    return str(dataset.attrs.get("experiment", ""))


def _axes(dataset: xr.Dataset, where: str) -> xr.Dataset:
    if "datetime" in dataset.coords and "time" in dataset.dims:  # DeepMind: time is relative to datetime
        stamps = dataset["datetime"].values.reshape(-1)
        if stamps.size == dataset.sizes["time"]:
            dataset = dataset.drop_vars("datetime").assign_coords(time=("time", stamps))
    if "batch" in dataset.dims and dataset.sizes["batch"] == 1:
        dataset = dataset.isel(batch=0, drop=True)
    names = {
        old: new
        for old, new in _DIMENSIONS.items()
        if (old in dataset.dims or old in dataset.coords) and new not in dataset.dims
    }
    if "valid_time" in names and "time" in dataset.coords:
        dataset = dataset.drop_vars("time")
    dataset = dataset.rename(names)
    if "level" in dataset.coords:
        usual = "Pa" if "plev" in names else "hPa"
        units = str(dataset["level"].attrs.get("units", "")).strip() or usual
        if units not in _LEVEL_UNITS:
            raise InvalidFieldError(f"{where}: levels: expected hPa or Pa, got units {units!r}")
        levels = np.rint(np.atleast_1d(dataset["level"].values) * _LEVEL_UNITS[units]).astype(np.int32)
        if "level" in dataset.dims:
            dataset = dataset.assign_coords(level=("level", levels)).sortby("level")
    return dataset


def _long_name(name: str, on_levels: bool) -> str | None:
    if name in VARIABLES or name in _AUXILIARY:
        return name
    if name == "z" or name in _HEIGHTS:
        return "geopotential" if on_levels else "geopotential_at_surface"
    return _SHORT_NAMES.get(name)


def _in_our_units(array: xr.DataArray, long_name: str, where: str) -> xr.DataArray:
    expected = VARIABLES[long_name].units if long_name in VARIABLES else _AUXILIARY[long_name]
    written = str(array.attrs.get("units", "")).strip()
    if not written and array.name in _HEIGHTS:
        written = "gpm"
    plain = _SAME_UNITS.get(written, written.replace("**", "").replace("^", "").replace("_", " "))
    result = array
    if plain and plain != expected:
        conversion = _UNITS.get((plain, expected)) or _UNITS.get((written, expected))
        if conversion is None:
            raise InvalidFieldError(
                f"{where}: {array.name}: expected {long_name} in {expected}, got units {written!r}"
            )
        factor, offset = conversion
        result = array.astype(np.float64) * factor + offset
    result.attrs = {"units": expected}
    return result
