"""Specific humidity from relative humidity, where a provider gives only the latter.

With e the vapour pressure, e_s its saturation value, r relative humidity in % and ε = R_dry/R_vap:

    e = r/100 · e_s(T),      q = ε e / (p − (1 − ε) e)

e_s is Tetens' formula as in the IFS (IFS Documentation, Part IV: Physical Processes, saturation over a mixed
phase): e_s = α e_water + (1 − α) e_ice, each 611.21 Pa · exp(a (T − 273.16) / (T − b)). α goes from 1 at the
triple point to 0 at a lower temperature: squared down to 250.16 K in the IFS, linear down to 253.16 K at NCEP
(the GFS's post-processor). A relative humidity means something only with the rule of the centre that made it.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

EPSILON = 287.0597 / 461.5250
"""R_dry / R_vap, as in the IFS."""

_TRIPLE_POINT = 273.16
_WATER = (17.502, 32.19)
_ICE = (22.587, -0.7)

HUMIDITY_RULE = (
    "q = eps e / (p - (1 - eps) e), e = r/100 e_s(T), Tetens over water and ice with the centre's mixed phase"
)


def saturation_vapour_pressure(
    temperature: np.ndarray, *, centre: Literal["ecmwf", "ncep"] = "ecmwf"
) -> np.ndarray:
    """Saturation vapour pressure in Pa over the centre's mixture of water and ice.

    Args:
        temperature: K.
        centre: whose mixed phase.
    """
    temperature = np.asarray(temperature, dtype=np.float64)
    lower, power = (250.16, 2) if centre == "ecmwf" else (253.16, 1)
    liquid = np.clip((temperature - lower) / (_TRIPLE_POINT - lower), 0.0, 1.0) ** power

    def tetens(a: float, b: float) -> np.ndarray:
        return 611.21 * np.exp(a * (temperature - _TRIPLE_POINT) / (temperature - b))

    return liquid * tetens(*_WATER) + (1.0 - liquid) * tetens(*_ICE)


def specific_humidity(
    relative_humidity: np.ndarray,
    temperature: np.ndarray,
    pressure: float,
    *,
    centre: Literal["ecmwf", "ncep"] = "ecmwf",
) -> np.ndarray:
    """Specific humidity in kg kg⁻¹, float32.

    Args:
        relative_humidity: per cent; negative values from packing count as zero.
        temperature: K, same shape.
        pressure: Pa.
        centre: whose relative humidity it is.
    """
    vapour_pressure = (
        np.maximum(relative_humidity, 0.0) / 100.0 * saturation_vapour_pressure(temperature, centre=centre)
    )
    vapour_pressure = np.minimum(vapour_pressure, pressure)
    return (EPSILON * vapour_pressure / (pressure - (1.0 - EPSILON) * vapour_pressure)).astype(np.float32)
