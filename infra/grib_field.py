"""One GRIB field: what it is (header) and its values, through ecCodes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import eccodes
import numpy as np

from infra.errors import InvalidFieldError
from infra.grib_parameters import Parameter, identify

SPECTRAL = "sh"
_HEADER_ROUNDING_DEGREES = 2e-3
_MISSING = 1e36


@dataclass(frozen=True, kw_only=True)
class SourceGrid:
    """The grid of a message.

    Args:
        gridded: latitude and longitude are axes; otherwise every point has its own.
        latitude: degrees, ascending, or of each point.
        longitude: degrees, ascending in 0…360, or of each point.
        specification: as MIR writes it (``"O32"``, ``"N48"``, ``"F48"``, ``"H8"``), empty for a regular
            latitude-longitude grid; says which grid the points form.
        order: permutation from the message's values to ours; None: as they are.
    """

    gridded: bool
    latitude: np.ndarray
    longitude: np.ndarray
    specification: str
    order: np.ndarray | None

    @property
    def shape(self) -> tuple[int, ...]:
        """(latitude, longitude) sizes, or (points,)."""
        return (self.latitude.size, self.longitude.size) if self.gridded else (self.latitude.size,)

    def same_points(self, other: SourceGrid) -> bool:
        """Whether both have the same points, up to the rounding of headers (1 m° in edition 1)."""
        return (
            self.gridded == other.gridded
            and self.shape == other.shape
            and bool(np.allclose(self.latitude, other.latitude, atol=_HEADER_ROUNDING_DEGREES))
            and bool(np.allclose(self.longitude, other.longitude, atol=_HEADER_ROUNDING_DEGREES))
        )


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a message says about its field.

    Args:
        parameter: what it is to us; None if we do not take it.
        short_name: ecCodes' name of the parameter.
        level: hPa for pressure levels, otherwise as coded.
        init_time, valid_time: start of the run; end of the accumulation, or the instant.
        accumulation: interval of an accumulated field, else None.
        number: ensemble member, 0 if there is none.
        experiment: ECMWF's experiment version (``"0001"``, ``"0005"``), empty elsewhere.
        centre: originating centre as ecCodes names it.
        edition: 1 or 2.
        grid_type: ecCodes' gridType.
        grid_digest: distinguishes grids.
    """

    parameter: Parameter | None
    short_name: str
    level: float
    init_time: datetime
    valid_time: datetime
    accumulation: tuple[datetime, datetime] | None
    number: int
    experiment: str
    centre: str
    edition: int
    grid_type: str
    grid_digest: str

    def __str__(self) -> str:
        return (
            f"{self.short_name} at {self.level:g}, valid {self.valid_time:%Y-%m-%dT%HZ}, member {self.number}"
        )


@contextmanager
def opened(message: bytes, *, where: str) -> Iterator[int]:
    """An ecCodes handle on a message's bytes; what ecCodes cannot read becomes an InvalidFieldError."""
    try:
        handle = eccodes.codes_new_from_message(message)
    except Exception as error:
        raise InvalidFieldError(f"{where}: ecCodes cannot read this message: {error}") from error
    try:
        yield handle
    except InvalidFieldError as error:
        raise InvalidFieldError(f"{where}: {error}") from error
    except (eccodes.CodesInternalError, ValueError, OverflowError) as error:
        raise InvalidFieldError(f"{where}: damaged GRIB message: {error}") from error
    finally:
        eccodes.codes_release(handle)


def header(handle: int, *, keep_unknown: bool = False) -> Header:
    """Read what a message says about its field.

    Args:
        handle: ecCodes handle.
        keep_unknown: give parameters that are none of our variables a name made of ecCodes' own.
    """
    type_of_level = _get(handle, "typeOfLevel", str, "unknown")
    level = float(_get(handle, "level", int, 0))
    if type_of_level == "isobaricInPa":
        level /= 100.0
    init_time = _time(_get(handle, "dataDate", int), _get(handle, "dataTime", int))
    valid_time = _time(_get(handle, "validityDate", int), _get(handle, "validityTime", int))
    parameter_number = _get(handle, "paramId", int, 0)
    short_name = _get(handle, "shortName", str, "unknown")
    parameter = identify(parameter_number, type_of_level)
    if parameter is None and keep_unknown:
        parameter = Parameter(name=f"{short_name}_{type_of_level}_{level:g}")
    accumulation = None
    if _get(handle, "stepType", str, "instant") == "accum":
        start, end = _get(handle, "startStep", int), _get(handle, "endStep", int)
        accumulation = (valid_time - (end - start) * _step_unit(handle), valid_time)
    return Header(
        parameter=parameter,
        short_name=short_name,
        level=level,
        init_time=init_time,
        valid_time=valid_time,
        accumulation=accumulation,
        number=_get(handle, "number", int, 0),
        experiment=_get(handle, "expver", str, "") if _get(handle, "centre", str, "") == "ecmf" else "",
        centre=_get(handle, "centre", str, "unknown"),
        edition=_get(handle, "edition", int),
        grid_type=_get(handle, "gridType", str, "unknown"),
        grid_digest=_get(handle, "md5GridSection", str, ""),
    )


def values(handle: int, grid: SourceGrid, *, factor: float) -> np.ndarray:
    """The field in our units and order on its grid, float32, missing points NaN.

    Raises:
        InvalidFieldError: the number of values is not the grid's, or values are not finite.
    """
    eccodes.codes_set(handle, "missingValue", _MISSING)  # the default, 9999, is a value fields may have
    raw = eccodes.codes_get_values(handle)
    expected = int(np.prod(grid.shape))
    if raw.size != expected:
        raise InvalidFieldError(f"expected {expected} values on the message's own grid, got {raw.size}")
    if not np.isfinite(raw).all():
        raise InvalidFieldError(f"{int((~np.isfinite(raw)).sum())} of {raw.size} values are not finite")
    missing = raw == _MISSING
    result = np.where(missing, np.nan, raw * factor if factor != 1.0 else raw).astype(np.float32)
    return (result if grid.order is None else result[grid.order]).reshape(grid.shape)


def source_grid(handle: int) -> SourceGrid:
    """The grid of a message and the order of its values.

    Raises:
        InvalidFieldError: a kind of grid that is not read here.
    """
    kind = _get(handle, "gridType", str, "unknown")
    if kind in ("regular_ll", "regular_gg"):
        return _gridded(handle, kind)
    if kind in ("reduced_gg", "healpix", "reduced_ll", "unstructured_grid"):
        return SourceGrid(
            gridded=False,
            latitude=eccodes.codes_get_array(handle, "latitudes"),
            longitude=eccodes.codes_get_array(handle, "longitudes") % 360.0,
            specification=_specification(handle, kind),
            order=None,
        )
    raise InvalidFieldError(
        f"grid type {kind!r} is not read; known: regular_ll, regular_gg, reduced_gg, healpix, "
        "and sh where there is a target grid"
    )


def _specification(handle: int, kind: str) -> str:
    if kind == "healpix":
        nested = _get(handle, "orderingConvention", str, "ring").startswith("nest")
        return f"H{_get(handle, 'Nside', int)}" + ("n" if nested else "")
    if kind == "reduced_gg":
        octahedral = _get(handle, "isOctahedral", int, 0)
        return f"{'O' if octahedral else 'N'}{_get(handle, 'N', int)}"
    return ""


def _gridded(handle: int, kind: str) -> SourceGrid:
    rows, columns = _get(handle, "Nj", int), _get(handle, "Ni", int)
    if rows < 2 or columns < 2:
        raise InvalidFieldError(f"expected a grid of at least 2 × 2 points, got {rows} × {columns}")
    first_longitude = _get(handle, "longitudeOfFirstGridPointInDegrees", float)
    last_longitude = _get(handle, "longitudeOfLastGridPointInDegrees", float)
    westward = bool(_get(handle, "iScansNegatively", int, 0))
    span = (first_longitude - last_longitude if westward else last_longitude - first_longitude) % 360.0
    step = span / (columns - 1)
    if abs(step * columns - 360.0) < 0.5 * step:  # the whole circle: coordinates in the header are rounded
        step = 360.0 / columns
    longitude = (first_longitude + (-step if westward else step) * np.arange(columns)) % 360.0
    longitude[np.abs(longitude - 360.0) < 1e-6] = 0.0
    if kind == "regular_ll":
        latitude = np.linspace(
            _get(handle, "latitudeOfFirstGridPointInDegrees", float),
            _get(handle, "latitudeOfLastGridPointInDegrees", float),
            rows,
        )
    else:
        latitude = np.sort(eccodes.codes_get_array(handle, "distinctLatitudes"))
        if not _get(handle, "jScansPositively", int, 0):
            latitude = latitude[::-1]
    index = np.arange(rows * columns)
    if _get(handle, "jPointsAreConsecutive", int, 0):
        index = index.reshape(columns, rows).T
    else:
        index = index.reshape(rows, columns)
    if _get(handle, "alternativeRowScanning", int, 0):
        index = index.copy()
        index[1::2] = index[1::2, ::-1]
    south_to_north, west_to_east = np.argsort(latitude), np.argsort(longitude)
    order = index[south_to_north][:, west_to_east].ravel()
    return SourceGrid(
        gridded=True,
        latitude=latitude[south_to_north],
        longitude=longitude[west_to_east],
        specification=f"F{_get(handle, 'N', int)}" if kind == "regular_gg" else "",
        order=order,
    )


def _step_unit(handle: int) -> timedelta:
    unit = _get(handle, "stepUnits", int, 1)
    hours = {1: 1, 2: 24, 10: 3, 11: 6, 12: 12}
    if unit == 0:
        return timedelta(minutes=1)
    if unit not in hours:
        raise InvalidFieldError(f"step in unit {unit} of code table 4: expected minutes or hours")
    return timedelta(hours=hours[unit])


def _time(date: int, clock: int) -> datetime:
    return datetime.strptime(f"{date:08d}{clock:04d}", "%Y%m%d%H%M").replace(tzinfo=UTC)


def _get(handle: int, key: str, kind: type, *default: Any) -> Any:
    try:
        return eccodes.codes_get(handle, key, kind)
    except (eccodes.CodesInternalError, ValueError):
        if default:
            return default[0]
        raise
