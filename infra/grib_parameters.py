"""Which GRIB parameter on which kind of level is which of our variables, and in what units it comes."""

from __future__ import annotations

from dataclasses import dataclass

from model.variables import STANDARD_GRAVITY

RELATIVE_HUMIDITY = "relative_humidity"
"""Read only to make specific humidity of it."""

ACCUMULATED_PRECIPITATION = "total_precipitation"
"""Precipitation over whatever interval a message states."""


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """How a GRIB parameter becomes a variable.

    Args:
        name: long name of the variable.
        on_levels: whether it lies on pressure levels.
        factor: our units = factor × the message's units.
        rank: of two parameters for one variable the lower rank is taken.
    """

    name: str
    on_levels: bool = False
    factor: float = 1.0
    rank: int = 0


_PRESSURE_LEVELS = ("isobaricInhPa", "isobaricInPa")
_SURFACE = ("surface",)
_TWO_METRES = ("surface", "heightAboveGround")  # edition 1 files of ECMWF say "surface"
_SEA_LEVEL = ("surface", "meanSea")

_LEVEL_PARAMETERS = {
    130: Parameter(name="temperature", on_levels=True),
    131: Parameter(name="u_component_of_wind", on_levels=True),
    132: Parameter(name="v_component_of_wind", on_levels=True),
    135: Parameter(name="vertical_velocity", on_levels=True),
    133: Parameter(name="specific_humidity", on_levels=True),
    157: Parameter(name=RELATIVE_HUMIDITY, on_levels=True),
    129: Parameter(name="geopotential", on_levels=True),
    156: Parameter(name="geopotential", on_levels=True, factor=STANDARD_GRAVITY, rank=1),
}

_SURFACE_PARAMETERS = {
    167: (_TWO_METRES, Parameter(name="2m_temperature")),
    165: (_TWO_METRES, Parameter(name="10m_u_component_of_wind")),
    166: (_TWO_METRES, Parameter(name="10m_v_component_of_wind")),
    151: (_SEA_LEVEL, Parameter(name="mean_sea_level_pressure")),
    260074: (_SEA_LEVEL, Parameter(name="mean_sea_level_pressure", rank=1)),  # NCEP's PRMSL
    34: (_SURFACE, Parameter(name="sea_surface_temperature")),
    151159: (_SURFACE, Parameter(name="sea_surface_temperature")),  # the ocean's, as edition 2 may code it
    235: (_SURFACE, Parameter(name="skin_temperature")),
    130: (_SURFACE, Parameter(name="skin_temperature", rank=1)),  # NCEP's TMP at the surface
    31: (_SURFACE, Parameter(name="sea_ice_cover")),
    262001: (("iceTopOnWater", "surface"), Parameter(name="sea_ice_cover")),
    129: (_SURFACE, Parameter(name="geopotential_at_surface")),
    228002: (_SURFACE, Parameter(name="geopotential_at_surface", factor=STANDARD_GRAVITY, rank=1)),
    172: (_SURFACE, Parameter(name="land_sea_mask")),
    228: (_SURFACE, Parameter(name=ACCUMULATED_PRECIPITATION)),
    228228: (_SURFACE, Parameter(name=ACCUMULATED_PRECIPITATION, factor=1e-3, rank=1)),  # kg m⁻² → m of water
}


def identify(parameter: int, type_of_level: str) -> Parameter | None:
    """What ecCodes' ``paramId`` on a ``typeOfLevel`` means to us; None if nothing."""
    if type_of_level in _PRESSURE_LEVELS:
        return _LEVEL_PARAMETERS.get(parameter)
    kinds, found = _SURFACE_PARAMETERS.get(parameter, ((), None))
    return found if type_of_level in kinds else None
