"""What values a variable can take on Earth: wide limits that only a wrong unit or a damaged field leaves."""

from __future__ import annotations

import math

from model.diagnostics.physical_consistency import GAS_CONSTANT_DRY_AIR

FILL_VALUES = (-32767.0, -9999.0, 9999.0, 1e20, 9.999e20, 9.96921e36, 3.402823e38)
"""Placeholders for missing values in GRIB, NetCDF and array stores."""

_LIMITS: dict[str, tuple[float, float]] = {
    "2m_temperature": (170.0, 335.0),
    "mean_sea_level_pressure": (85_000.0, 110_000.0),
    "10m_u_component_of_wind": (-150.0, 150.0),
    "10m_v_component_of_wind": (-150.0, 150.0),
    "sea_surface_temperature": (268.0, 312.0),
    "total_precipitation_6hr": (-1e-5, 0.8),
    "total_precipitation_12hr": (-1e-5, 1.2),
    "temperature": (140.0, 340.0),
    "u_component_of_wind": (-200.0, 220.0),
    "v_component_of_wind": (-200.0, 200.0),
    "vertical_velocity": (-80.0, 80.0),
    "specific_humidity": (-1e-3, 0.045),
    "geopotential_at_surface": (-8_000.0, 90_000.0),
    "land_sea_mask": (0.0, 1.0),
}

_LOWEST_SEA_LEVEL_PRESSURE = 870.0
_HIGHEST_SEA_LEVEL_PRESSURE = 1085.0
_COLDEST_COLUMN = 200.0
_WARMEST_COLUMN = 305.0


def physical_limits(variable: str, level: int) -> tuple[float, float] | None:
    """Least and greatest believable value of a variable, in its SI units; None if none are known.

    Geopotential at a level lies between an isothermal 200 K column over 870 hPa at sea level and a 305 K
    column over 1085 hPa, the lowest and highest sea-level pressures on record (Φ = R_d T ln(p₀/p)). The other
    limits leave room around the extremes of ERA5 (the minima of the published ``min_by_level`` statistics).

    Args:
        variable: long name.
        level: hPa; 0 for single-level variables.
    """
    if variable == "geopotential":
        lower = GAS_CONSTANT_DRY_AIR * _COLDEST_COLUMN * math.log(_LOWEST_SEA_LEVEL_PRESSURE / level)
        upper = GAS_CONSTANT_DRY_AIR * _WARMEST_COLUMN * math.log(_HIGHEST_SEA_LEVEL_PRESSURE / level)
        return min(lower, -8_000.0) if level >= _LOWEST_SEA_LEVEL_PRESSURE else lower, upper
    return _LIMITS.get(variable)
