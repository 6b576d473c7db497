"""Names, units and shapes of the variables the models take and give.

Names are ERA5's long names, as in the published checkpoints' task configs.
"""

from __future__ import annotations

from dataclasses import dataclass

STANDARD_GRAVITY = 9.80665
"""g₀ in m s⁻² (WMO): geopotential = g₀ × geopotential height."""

LEVELS_13 = (50, 100, 150, 200, 250, 300, 400, 500, 600, 700, 850, 925, 1000)
"""WeatherBench's 13 pressure levels in hPa."""

LEVELS_37 = (
    1, 2, 3, 5, 7, 10, 20, 30, 50, 70, 100, 125, 150, 175, 200, 225, 250, 300, 350, 400, 450, 500, 550, 600,
    650, 700, 750, 775, 800, 825, 850, 875, 900, 925, 950, 975, 1000,
)  # fmt: skip
"""ERA5's 37 pressure levels in hPa."""


@dataclass(frozen=True, kw_only=True)
class Variable:
    """One physical variable.

    Args:
        name: ERA5 long name.
        short_name: ecCodes short name of the ECMWF parameter.
        units: SI units as CF writes them.
        on_levels: whether it has a level dimension.
        static: whether it has no time dimension.
        accumulation_hours: hours of accumulation ending at valid time; None for instantaneous.
        standard_name: CF standard name, if there is one.
    """

    name: str
    short_name: str
    units: str
    on_levels: bool = False
    static: bool = False
    accumulation_hours: int | None = None
    standard_name: str | None = None


_ALL = (
    Variable(name="2m_temperature", short_name="2t", units="K", standard_name="air_temperature"),
    Variable(name="mean_sea_level_pressure", short_name="msl", units="Pa",
             standard_name="air_pressure_at_mean_sea_level"),
    Variable(name="10m_u_component_of_wind", short_name="10u", units="m s-1", standard_name="eastward_wind"),
    Variable(name="10m_v_component_of_wind", short_name="10v", units="m s-1", standard_name="northward_wind"),
    Variable(name="sea_surface_temperature", short_name="sst", units="K",
             standard_name="sea_surface_temperature"),
    Variable(name="total_precipitation_6hr", short_name="tp", units="m", accumulation_hours=6,
             standard_name="lwe_thickness_of_precipitation_amount"),
    Variable(name="total_precipitation_12hr", short_name="tp", units="m", accumulation_hours=12,
             standard_name="lwe_thickness_of_precipitation_amount"),
    Variable(name="temperature", short_name="t", units="K", on_levels=True, standard_name="air_temperature"),
    Variable(name="geopotential", short_name="z", units="m2 s-2", on_levels=True,
             standard_name="geopotential"),
    Variable(name="u_component_of_wind", short_name="u", units="m s-1", on_levels=True,
             standard_name="eastward_wind"),
    Variable(name="v_component_of_wind", short_name="v", units="m s-1", on_levels=True,
             standard_name="northward_wind"),
    Variable(name="vertical_velocity", short_name="w", units="Pa s-1", on_levels=True,
             standard_name="lagrangian_tendency_of_air_pressure"),
    Variable(name="specific_humidity", short_name="q", units="kg kg-1", on_levels=True,
             standard_name="specific_humidity"),
    Variable(name="geopotential_at_surface", short_name="z", units="m2 s-2", static=True,
             standard_name="surface_geopotential"),
    Variable(name="land_sea_mask", short_name="lsm", units="1", static=True,
             standard_name="land_area_fraction"),
    Variable(name="toa_incident_solar_radiation", short_name="tisr", units="J m-2", accumulation_hours=1,
             standard_name="integral_wrt_time_of_toa_incoming_shortwave_flux"),
    Variable(name="year_progress_sin", short_name="", units="1"),
    Variable(name="year_progress_cos", short_name="", units="1"),
    Variable(name="day_progress_sin", short_name="", units="1"),
    Variable(name="day_progress_cos", short_name="", units="1"),
)  # fmt: skip

VARIABLES: dict[str, Variable] = {variable.name: variable for variable in _ALL}
"""Every known variable by its long name."""

COMPUTED_FORCINGS = frozenset(
    {
        "toa_incident_solar_radiation",
        "year_progress_sin",
        "year_progress_cos",
        "day_progress_sin",
        "day_progress_cos",
    }
)
"""Forcings computed from time and position, never read from a source."""

STATICS = frozenset(name for name, variable in VARIABLES.items() if variable.static)
"""Variables without a time dimension."""


def variable(name: str) -> Variable:
    """The variable of that long name.

    Raises:
        KeyError: no such variable; the message lists the known names.
    """
    try:
        return VARIABLES[name]
    except KeyError:
        raise KeyError(f"unknown variable {name!r}; known: {', '.join(sorted(VARIABLES))}") from None
