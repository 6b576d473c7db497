"""Analyses as GRIB2 on the regular Gaussian grid, with ECMWF's parameter numbers.

One message a field, CCSDS packing. Analysis fields have step 0; precipitation is, as in a forecast archive,
the six-hour amount of a run that started six hours before, so that its interval ends at the valid time.
Points without a value (sea surface temperature over land) are in a bitmap.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import eccodes
import numpy as np
import xarray as xr

from infra.errors import InvalidFieldError
from model.variables import VARIABLES

_PARAMETERS = {
    "2m_temperature": 167,
    "10m_u_component_of_wind": 165,
    "10m_v_component_of_wind": 166,
    "mean_sea_level_pressure": 151,
    "sea_surface_temperature": 34,
    "total_precipitation_6hr": 228,
    "geopotential": 129,
    "temperature": 130,
    "u_component_of_wind": 131,
    "v_component_of_wind": 132,
    "specific_humidity": 133,
    "geopotential_at_surface": 129,
    "land_sea_mask": 172,
}
_BITS = {"geopotential": 16, "mean_sea_level_pressure": 16, "geopotential_at_surface": 16}
"""Bits per packed value; the others take 12, at most 1/4096 of a field's range off."""

_MISSING = 9999.0
_RESEARCH_PRODUCT = 2  # GRIB2 code table 1.3


def encode(fields: xr.Dataset, valid_time: datetime) -> bytes:
    """GRIB2 messages of all fields of one valid time.

    Args:
        fields: dims ([level,] latitude, longitude), latitude descending over the Gaussian rows; statics are
            written with the given time.
        valid_time: time-zone aware, on a whole hour.

    Raises:
        InvalidFieldError: a variable there is no parameter for, an axis that is no Gaussian grid, or a
            missing or infinite value elsewhere than in sea surface temperature.
    """
    return b"".join(_messages(fields, valid_time.astimezone(UTC)))


def _messages(fields: xr.Dataset, valid_time: datetime) -> Iterator[bytes]:
    template = _template(fields)
    try:
        for name in sorted(map(str, fields.data_vars)):
            if name not in _PARAMETERS:
                raise InvalidFieldError(f"{name}: expected one of {sorted(_PARAMETERS)}")
            field = fields[name].transpose(..., "latitude", "longitude")
            levels: list[int | None] = [None] if "level" not in field.dims else list(field["level"].values)
            for level in levels:
                values = (field if level is None else field.sel(level=level)).values
                yield _message(template, name, level, values.astype(np.float64), valid_time)
    finally:
        eccodes.codes_release(template)


def _template(fields: xr.Dataset) -> int:
    latitude, longitude = fields["latitude"].values, fields["longitude"].values
    rows, columns = latitude.size, longitude.size
    if rows % 2 or latitude[0] <= 0 or abs(latitude[0] + latitude[-1]) > 1e-3 or columns != 2 * rows:
        raise InvalidFieldError(
            f"latitude, longitude: expected a regular Gaussian grid from north to south, got {rows} rows "
            f"{latitude[0]:g}…{latitude[-1]:g} and {columns} columns"
        )
    handle = eccodes.codes_grib_new_from_samples("regular_gg_pl_grib2")
    keys: dict[str, float | int | str] = {
        "centre": "ecmf",
        "productionStatusOfProcessedData": _RESEARCH_PRODUCT,
        "N": rows // 2,
        "Ni": columns,
        "Nj": rows,
        "latitudeOfFirstGridPointInDegrees": float(latitude[0]),
        "latitudeOfLastGridPointInDegrees": float(latitude[-1]),
        "longitudeOfFirstGridPointInDegrees": float(longitude[0]),
        "longitudeOfLastGridPointInDegrees": float(longitude[-1]),
        "iDirectionIncrementInDegrees": 360.0 / columns,
        "packingType": "grid_ccsds",
    }
    for key, value in keys.items():
        eccodes.codes_set(handle, key, value)
    # Fixes the number of points of the template, which a bitmap is checked against.
    eccodes.codes_set_values(handle, np.zeros(rows * columns))
    return handle


def _message(template: int, name: str, level: int | None, values: np.ndarray, valid_time: datetime) -> bytes:
    missing = ~np.isfinite(values)
    if missing.any() and name != "sea_surface_temperature":
        raise InvalidFieldError(
            f"{name}{'' if level is None else f' {level} hPa'} at {valid_time:%Y-%m-%dT%H}Z: expected finite "
            f"values, got {int(missing.sum())} others"
        )
    hours = VARIABLES[name].accumulation_hours
    start = valid_time - timedelta(hours=hours or 0)
    handle = eccodes.codes_clone(template)
    try:
        if level is None:
            eccodes.codes_set(handle, "typeOfLevel", "surface")
        else:
            eccodes.codes_set(handle, "typeOfLevel", "isobaricInhPa")
            eccodes.codes_set(handle, "level", int(level))
        if hours:
            eccodes.codes_set(handle, "productDefinitionTemplateNumber", 8)
        eccodes.codes_set(handle, "dataDate", int(start.strftime("%Y%m%d")))
        eccodes.codes_set(handle, "dataTime", 100 * start.hour)
        eccodes.codes_set(handle, "paramId", _PARAMETERS[name])
        if hours:
            eccodes.codes_set(handle, "stepRange", f"0-{hours}")
        if missing.any():
            eccodes.codes_set(handle, "bitmapPresent", 1)
            eccodes.codes_set(handle, "missingValue", _MISSING)
        eccodes.codes_set(handle, "bitsPerValue", _BITS.get(name, 12))
        eccodes.codes_set_values(handle, np.where(missing, _MISSING, values).reshape(-1))
        return eccodes.codes_get_message(handle)
    finally:
        eccodes.codes_release(handle)
