"""GRIB messages and plausible weather for tests, made with ecCodes' own samples."""

from __future__ import annotations

from datetime import UTC, datetime

import eccodes
import numpy as np

LEVELS = (50, 100, 150, 200, 250, 300, 400, 500, 600, 700, 850, 925, 1000)
GAS_CONSTANT = 287.0597


def axes(resolution: float, *, first_longitude: float = 180.0) -> tuple[np.ndarray, np.ndarray]:
    """Latitude 90…−90 and longitude eastwards from the first, as ECMWF's open data run."""
    rows = round(180 / resolution)
    latitude = np.linspace(90.0, -90.0, rows + 1)
    longitude = (first_longitude + resolution * np.arange(2 * rows)) % 360.0
    return latitude, longitude


def weather(
    short_name: str, level: int | None, valid_time: datetime, latitude: np.ndarray, longitude: np.ndarray
) -> np.ndarray:
    """A smooth field (latitude, longitude) with the size and shape of the real one, moving eastwards in time.

    Geopotential is the hydrostatic integral of the temperature, so the two agree.
    """
    hours = (valid_time - datetime(2026, 1, 1, tzinfo=UTC)).total_seconds() / 3600
    phi, lam = np.deg2rad(latitude)[:, None], np.deg2rad(longitude)[None, :]
    wave = np.cos(phi) ** 2 * np.cos(5 * lam - 0.02 * hours)
    pressure = np.float64(level or 1000)
    if short_name == "t":
        return _temperature(pressure, phi, wave)
    if short_name in ("gh", "z"):
        if level is None:  # orography: two mountains
            height = (
                3000 * np.exp(-(((phi - 0.6) / 0.3) ** 2)) * (np.cos(lam - 1.5) ** 8 + np.cos(2 * lam) ** 8)
            )
            return height * 9.80665
        column = np.linspace(np.log(1000.0), np.log(pressure), 41)
        layers = np.stack([_temperature(np.exp(x), phi, wave) for x in column])
        geopotential = 1000.0 + 300 * wave - GAS_CONSTANT * np.trapezoid(layers, column, axis=0)
        return geopotential / 9.80665 if short_name == "gh" else geopotential
    if short_name in ("u", "10u"):
        jet = 30 * np.exp(-(((pressure - 250) / 250) ** 2)) if level else 5.0
        return jet * np.sin(2 * phi) ** 2 + 5 * wave
    if short_name in ("v", "10v"):
        return 8 * np.cos(phi) ** 2 * np.sin(5 * lam - 0.02 * hours)
    if short_name == "w":
        return 0.1 * np.cos(phi) ** 2 * np.sin(6 * lam - 0.02 * hours) * np.sin(np.pi * pressure / 1000)
    if short_name == "q":
        return 0.015 * (pressure / 1000) ** 3 * np.cos(phi) ** 4 * (1 + 0.3 * wave) + 2e-6
    if short_name == "r":
        return 50 + 40 * wave
    if short_name == "2t":
        return _temperature(np.float64(1000), phi, wave) + 1.0
    if short_name == "skt":
        return _temperature(np.float64(1000), phi, wave) + 2.0
    if short_name == "msl":
        return 101325 + 1500 * wave
    if short_name == "lsm":
        return (np.cos(2 * lam) * np.cos(phi) > 0.3).astype(float)
    if short_name == "tp":
        return np.maximum(0.0, 0.01 * np.cos(phi) * np.sin(4 * lam - 0.02 * hours))
    raise ValueError(f"no weather for {short_name!r}")


def _temperature(pressure: np.float64, phi: np.ndarray, wave: np.ndarray) -> np.ndarray:
    surface = 302 - 50 * np.sin(phi) ** 2
    return np.maximum(surface * (pressure / 1000) ** 0.19, 195 + 15 * np.sin(phi) ** 2) + 4 * wave


def message(
    short_name: str,
    values: np.ndarray,
    latitude: np.ndarray,
    longitude: np.ndarray,
    *,
    init_time: datetime,
    level: int | None = None,
    step: int = 0,
    edition: int = 2,
    packing: str = "grid_ccsds",
    bits: int = 16,
    expver: str = "0001",
    number: int | None = None,
    missing: float | None = None,
    keys: dict[str, object] | None = None,
) -> bytes:
    """One GRIB message of a regular grid in the given scan order (first value first).

    Args:
        short_name: ECMWF's; ``tp`` is an accumulation since the start of the run.
        values: (latitude, longitude), in the order of the axes.
        missing: values equal to it are coded as missing.
        keys: set last, for what is particular.
    """
    handle = eccodes.codes_grib_new_from_samples(
        f"regular_ll_{'sfc' if level is None else 'pl'}_grib{edition}"
    )
    try:
        settings: dict[str, object] = {
            "centre": "ecmf",
            "dataDate": int(f"{init_time:%Y%m%d}"),
            "dataTime": int(f"{init_time:%H}00"),
            "Ni": longitude.size,
            "Nj": latitude.size,
            "latitudeOfFirstGridPointInDegrees": float(latitude[0]),
            "latitudeOfLastGridPointInDegrees": float(latitude[-1]),
            "longitudeOfFirstGridPointInDegrees": float(longitude[0]),
            "longitudeOfLastGridPointInDegrees": float(longitude[-1]),
            "iDirectionIncrementInDegrees": abs(float((longitude[1] - longitude[0] + 180) % 360 - 180)),
            "jDirectionIncrementInDegrees": abs(float(latitude[1] - latitude[0])),
            "jScansPositively": int(latitude[1] > latitude[0]),
        }
        if short_name == "tp" and edition == 2:
            settings |= {"productDefinitionTemplateNumber": 8, "shortName": "tp", "stepRange": f"0-{step}"}
        else:
            settings |= {"shortName": short_name, "stepRange": step}
        if level is not None:
            settings["level"] = level
        if number is not None:
            settings |= {"productDefinitionTemplateNumber": 1, "number": number}
        if edition == 1:
            settings["expver"] = expver
        if missing is not None:
            settings |= {"bitmapPresent": 1, "missingValue": missing}
        for key, value in {**settings, **(keys or {})}.items():
            eccodes.codes_set(handle, key, value)
        eccodes.codes_set(handle, "packingType", packing if edition == 2 else "grid_simple")
        eccodes.codes_set(handle, "bitsPerValue", bits)
        eccodes.codes_set_values(handle, np.asarray(values, dtype=np.float64).ravel())
        return eccodes.codes_get_message(handle)
    finally:
        eccodes.codes_release(handle)
