"""Products as GRIB2, every message read back and compared before it counts as written.

Product definition templates (WMO manual on codes, I.2, code table 4.0): an ensemble member is 4.1, or 4.11 over
an interval; mean and spread of all members 4.2 and 4.12; percentiles 4.6 and 4.10; probabilities 4.5 and 4.9.
Fields are packed by CCSDS (template 5.42) with 16 bits.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

import numpy as np

from infra.errors import PublicationError
from model.grid import Grid

Kind = Literal["member", "mean", "spread", "percentile", "probability"]
"""What a coded field is of the ensemble."""

BITS = 16
_SPREAD_OF_ALL_MEMBERS = 4  # code table 4.7
_MEAN_OF_ALL_MEMBERS = 0
_BELOW_LOWER_LIMIT, _ABOVE_UPPER_LIMIT = 0, 1  # code table 4.9
_MISSING = 9.999e20
_NO_CENTRE = 255  # common code table C-11: missing; Foldcast is run by anybody


@dataclass(frozen=True, kw_only=True)
class GribParameter:
    """How a quantity is coded.

    Args:
        parameter: ecCodes' ``paramId``.
        short_name: what it must be called when read back.
        code: WMO discipline, parameter category and parameter number (code tables 0.0, 4.1, 4.2).
        type_of_level: kind of level.
        level: of fields at a fixed height; None where the field's own level counts, or there is none.
        factor: coded value = product's value × factor.
    """

    parameter: int
    short_name: str
    code: tuple[int, int, int]
    type_of_level: str
    level: int | None = None
    factor: float = 1.0


GRIB_PARAMETERS = {
    "2m_temperature": GribParameter(
        parameter=167, short_name="2t", code=(0, 0, 0), type_of_level="heightAboveGround", level=2
    ),
    "10m_u_component_of_wind": GribParameter(
        parameter=165, short_name="10u", code=(0, 2, 2), type_of_level="heightAboveGround", level=10
    ),
    "10m_v_component_of_wind": GribParameter(
        parameter=166, short_name="10v", code=(0, 2, 3), type_of_level="heightAboveGround", level=10
    ),
    "10m_wind_speed": GribParameter(
        parameter=207, short_name="10si", code=(0, 2, 1), type_of_level="heightAboveGround", level=10
    ),
    "mean_sea_level_pressure": GribParameter(
        parameter=151, short_name="msl", code=(0, 3, 0), type_of_level="meanSea"
    ),
    "sea_surface_temperature": GribParameter(
        parameter=34, short_name="sst", code=(10, 3, 0), type_of_level="surface"
    ),
    "total_precipitation": GribParameter(
        parameter=228228, short_name="tp", code=(0, 1, 52), type_of_level="surface", factor=1000.0
    ),
    "temperature": GribParameter(
        parameter=130, short_name="t", code=(0, 0, 0), type_of_level="isobaricInhPa"
    ),
    "geopotential": GribParameter(
        parameter=129, short_name="z", code=(0, 3, 4), type_of_level="isobaricInhPa"
    ),
    "u_component_of_wind": GribParameter(
        parameter=131, short_name="u", code=(0, 2, 2), type_of_level="isobaricInhPa"
    ),
    "v_component_of_wind": GribParameter(
        parameter=132, short_name="v", code=(0, 2, 3), type_of_level="isobaricInhPa"
    ),
    "vertical_velocity": GribParameter(
        parameter=135, short_name="w", code=(0, 2, 8), type_of_level="isobaricInhPa"
    ),
    "specific_humidity": GribParameter(
        parameter=133, short_name="q", code=(0, 1, 0), type_of_level="isobaricInhPa"
    ),
    "wind_speed": GribParameter(parameter=10, short_name="ws", code=(0, 2, 1), type_of_level="isobaricInhPa"),
}
"""By quantity. Precipitation is coded in kg m⁻² (mm of water), the WMO's parameter."""


@dataclass(frozen=True, kw_only=True)
class GribField:
    """One field to be coded.

    Args:
        quantity: a key of ``GRIB_PARAMETERS``; accumulations over a step have their own ``start_hours``.
        kind: what it is of the ensemble.
        members: size of the ensemble.
        init_time: UTC.
        hours: lead time.
        start_hours: begin of the accumulation; None for instantaneous.
        level: hPa, on levels.
        member: global number, of a member's field.
        percentile: 0…100, of a percentile.
        threshold: of a probability, in coded units.
        below: whether the probability is that of falling below the threshold.
    """

    quantity: str
    kind: Kind
    members: int
    init_time: datetime
    hours: int
    start_hours: int | None = None
    level: int | None = None
    member: int | None = None
    percentile: int | None = None
    threshold: float | None = None
    below: bool = False

    @property
    def template(self) -> int:
        """Number of its product definition template."""
        instant, interval = {
            "member": (1, 11),
            "mean": (2, 12),
            "spread": (2, 12),
            "percentile": (6, 10),
            "probability": (5, 9),
        }[self.kind]
        return instant if self.start_hours is None else interval

    @property
    def parameter(self) -> GribParameter:
        """How its quantity is coded."""
        return GRIB_PARAMETERS[self.quantity]

    @property
    def factor(self) -> float:
        """Coded value = product's value × factor; probabilities are shares as they are."""
        return 1.0 if self.kind == "probability" else self.parameter.factor

    def __str__(self) -> str:
        level = "" if self.level is None else f" {self.level} hPa"
        which = {"member": f" {self.member}", "percentile": f" {self.percentile}"}.get(self.kind, "")
        return f"{self.quantity}{level}, {self.kind}{which}, +{self.hours} h"


def write_grib(path: Path, fields: Iterable[tuple[GribField, np.ndarray]], grid: Grid) -> int:
    """Write fields into one file and read every message back; returns how many there are.

    Args:
        path: the file; it appears only when everything in it was compared.
        fields: descriptions and values, dims (latitude, longitude) on the grid, in product units.
        grid: theirs.

    Raises:
        PublicationError: a message reads back as another parameter, level, member, step or value.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    count = 0
    with open(unfinished, "wb") as file:
        for field, values in fields:
            message = encode(field, values, grid)
            compare(message, field, values, grid)
            file.write(message)
            count += 1
    unfinished.replace(path)
    return count


def encode(field: GribField, values: np.ndarray, grid: Grid) -> bytes:
    """A field as a GRIB2 message, rows from north to south.

    Raises:
        ValueError: the values do not lie on the grid.
    """
    import eccodes

    if values.shape != grid.shape:
        raise ValueError(f"{field}: expected a field of shape {grid.shape}, got {values.shape}")
    parameter = field.parameter
    handle = eccodes.codes_grib_new_from_samples("regular_ll_sfc_grib2")
    try:
        settings: dict[str, object] = {
            "tablesVersion": 32,
            "centre": _NO_CENTRE,
            "productionStatusOfProcessedData": 0,
            "typeOfProcessedData": 4,
            "dataDate": int(f"{field.init_time:%Y%m%d}"),
            "dataTime": field.init_time.hour * 100,
            **_grid_keys(grid),
            "productDefinitionTemplateNumber": field.template,
            "typeOfLevel": parameter.type_of_level,
        }
        level = field.level if parameter.type_of_level == "isobaricInhPa" else parameter.level
        if level is not None:
            settings["level"] = level
        settings["paramId"] = parameter.parameter
        settings |= _ensemble_keys(field)
        if field.start_hours is None:
            settings["step"] = field.hours
        else:
            settings["stepRange"] = f"{field.start_hours}-{field.hours}"
        for key, value in settings.items():
            eccodes.codes_set(handle, key, value)
        coded = values[::-1].astype(np.float64) * field.factor
        missing = ~np.isfinite(coded)
        if missing.any():
            eccodes.codes_set(handle, "bitmapPresent", 1)
            eccodes.codes_set(handle, "missingValue", _MISSING)
            coded = np.where(missing, _MISSING, coded)
        eccodes.codes_set(handle, "packingType", "grid_ccsds")
        eccodes.codes_set(handle, "bitsPerValue", BITS)
        eccodes.codes_set_values(handle, coded.ravel())
        return eccodes.codes_get_message(handle)
    finally:
        eccodes.codes_release(handle)


def compare(message: bytes, field: GribField, values: np.ndarray, grid: Grid) -> None:
    """Check that a message says and holds what was meant: name, level, member, step, values.

    Raises:
        PublicationError: it does not; the message says which key or how far the values are off.
    """
    import eccodes

    parameter = field.parameter
    level = field.level if parameter.type_of_level == "isobaricInhPa" else parameter.level
    step = str(field.hours) if field.start_hours is None else f"{field.start_hours}-{field.hours}"
    named = {"shortName": parameter.short_name, "paramId": parameter.parameter}
    expected: dict[str, object] = {
        **({} if field.kind == "probability" else named),  # some thresholds have names of their own: 2tl273
        "discipline": parameter.code[0],
        "parameterCategory": parameter.code[1],
        "parameterNumber": parameter.code[2],
        "typeOfLevel": parameter.type_of_level,
        "stepRange": step,
        "productDefinitionTemplateNumber": field.template,
        "dataDate": int(f"{field.init_time:%Y%m%d}"),
        "dataTime": field.init_time.hour * 100,
        "packingType": "grid_ccsds",
        **({} if level is None else {"level": level}),
        **_ensemble_keys(field),
    }
    handle = eccodes.codes_new_from_message(message)
    try:
        for key, value in expected.items():
            got = eccodes.codes_get(handle, key, type(value))
            if got != value:
                raise PublicationError(f"GRIB2 {field}: {key}: expected {value!r}, read back {got!r}")
        for key, wanted in (("distinctLatitudes", grid.latitude), ("distinctLongitudes", grid.longitude)):
            places = np.sort(eccodes.codes_get_array(handle, key))  # GRIB holds micro-degrees
            if places.shape != wanted.shape or np.abs(places - wanted).max() > 2e-5:
                raise PublicationError(f"GRIB2 {field}: {key}: expected those of the product's grid")
        eccodes.codes_set(handle, "missingValue", _MISSING)
        packing_error = eccodes.codes_get_double(handle, "packingError")
        decoded = eccodes.codes_get_values(handle).reshape(grid.shape)[::-1]
    finally:
        eccodes.codes_release(handle)
    coded = values.astype(np.float64) * field.factor
    known = np.isfinite(coded)
    if not np.array_equal(known, decoded != _MISSING):
        raise PublicationError(f"GRIB2 {field}: cells are missing elsewhere than in the product")
    spread = np.ptp(coded[known]) if known.any() else 0.0
    tolerance = max(packing_error, spread / (2**BITS - 1)) + 1e-6 * np.abs(coded[known]).max(initial=0.0)
    off = np.abs(decoded - coded)[known].max(initial=0.0)
    if off > tolerance:
        raise PublicationError(f"GRIB2 {field}: expected values within {tolerance:g}, they are {off:g} off")


def _grid_keys(grid: Grid) -> dict[str, object]:
    rows, columns = grid.shape
    return {
        "Ni": columns,
        "Nj": rows,
        "latitudeOfFirstGridPointInDegrees": 90.0,
        "latitudeOfLastGridPointInDegrees": -90.0,
        "longitudeOfFirstGridPointInDegrees": 0.0,
        "longitudeOfLastGridPointInDegrees": 360.0 - 360.0 / columns,
        "iDirectionIncrementInDegrees": 360.0 / columns,
        "jDirectionIncrementInDegrees": 180.0 / (rows - 1),
    }


def _ensemble_keys(field: GribField) -> dict[str, object]:
    size: dict[str, object] = {"numberOfForecastsInEnsemble": field.members}
    if field.kind == "member":
        return {"typeOfEnsembleForecast": 4, "perturbationNumber": field.member, **size}
    if field.kind == "mean":
        return {"derivedForecast": _MEAN_OF_ALL_MEMBERS, **size}
    if field.kind == "spread":
        return {"derivedForecast": _SPREAD_OF_ALL_MEMBERS, **size}
    if field.kind == "percentile":
        return {"percentileValue": field.percentile}
    scaled, scale = _scaled(float(field.threshold or 0.0))
    limit = "Lower" if field.below else "Upper"
    return {
        "probabilityType": _BELOW_LOWER_LIMIT if field.below else _ABOVE_UPPER_LIMIT,
        f"scaleFactorOf{limit}Limit": scale,
        f"scaledValueOf{limit}Limit": scaled,
    }


def _scaled(value: float) -> tuple[int, int]:
    """A decimal number as (integer, number of decimals)."""
    decimals = 0
    while decimals < 6 and abs(value * 10**decimals - round(value * 10**decimals)) > 1e-9 * max(
        1.0, abs(value)
    ):
        decimals += 1
    return round(value * 10**decimals), decimals
