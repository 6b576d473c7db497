"""From the circulation model's output to analyses: canonical names and units on its Gaussian grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from infra.nature_run.pressure_levels import SigmaFields, mean_sea_level_pressure, to_pressure_levels

PRESSURE_LEVELS = (50, 100, 200, 300, 500, 700, 850, 925)
"""hPa of the archive's upper-air fields."""

INTERVAL_HOURS = 6
"""Hours between two analyses, and the accumulation period of the archive's precipitation."""

LAND_THRESHOLD = 0.5
"""Share of land from which on a point carries no sea surface temperature."""

FREEZING_POINT_OF_SEA_WATER = 271.35
"""K; under sea ice the boundary data carry the temperature of the ice, the analysis that of the water."""


@dataclass(frozen=True, kw_only=True)
class Boundary:
    """What the run's lower boundary prescribes, with dims (latitude, longitude), north to south.

    Args:
        latitude: degrees north of the Gaussian rows, descending.
        longitude: degrees east from 0, ascending.
        sigma: full levels, top first.
        geopotential_at_surface: m² s⁻² of the orography the dynamics sees (spectrally truncated).
        land_sea_mask: share of land, 0…1.
        sea_surface_temperature: K, shape (day, latitude, longitude): one per day of a 365-day year.
    """

    latitude: np.ndarray
    longitude: np.ndarray
    sigma: np.ndarray
    geopotential_at_surface: np.ndarray
    land_sea_mask: np.ndarray
    sea_surface_temperature: np.ndarray

    def __post_init__(self) -> None:
        shape = (self.latitude.size, self.longitude.size)
        if np.any(np.diff(self.latitude) >= 0):
            raise ValueError("latitude: expected descending values, north first")
        for name in ("geopotential_at_surface", "land_sea_mask"):
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name}: expected shape {shape}, got {getattr(self, name).shape}")
        if self.sea_surface_temperature.shape != (365, *shape):
            raise ValueError(
                f"sea_surface_temperature: expected shape {(365, *shape)}, "
                f"got {self.sea_surface_temperature.shape}"
            )

    def statics(self) -> xr.Dataset:
        """``geopotential_at_surface`` and ``land_sea_mask``, float32."""
        dims = ("latitude", "longitude")
        return xr.Dataset(
            {
                "geopotential_at_surface": (dims, self.geopotential_at_surface.astype(np.float32)),
                "land_sea_mask": (dims, self.land_sea_mask.astype(np.float32)),
            },
            coords={"latitude": self.latitude, "longitude": self.longitude},
        )


@dataclass(frozen=True, kw_only=True)
class ModelOutput:
    """Frames of the circulation model, with dims (time, [layer,] latitude, longitude), north to south.

    Args:
        time: valid times, datetime64[ns], shape (time,).
        surface_pressure: Pa.
        temperature: K, on the layers, as are geopotential (m² s⁻²), specific humidity (kg kg⁻¹) and wind
            (m s⁻¹).
        precipitation: kg m⁻² s⁻¹, mean of the six hours that end at ``time``.
        near_surface_temperature: K; the wind components near the surface are in m s⁻¹.
    """

    time: np.ndarray
    surface_pressure: np.ndarray
    temperature: np.ndarray
    geopotential: np.ndarray
    specific_humidity: np.ndarray
    u_component_of_wind: np.ndarray
    v_component_of_wind: np.ndarray
    precipitation: np.ndarray
    near_surface_temperature: np.ndarray
    near_surface_u: np.ndarray
    near_surface_v: np.ndarray


def to_analyses(
    output: ModelOutput, boundary: Boundary, levels: tuple[int, ...] = PRESSURE_LEVELS
) -> xr.Dataset:
    """Analyses on the Gaussian grid: every variable of the archive that has a time dimension.

    Specific humidity, which spectral transport leaves slightly negative in places, is set to at least 0.

    Args:
        output: frames of the model.
        boundary: the run's lower boundary.
        levels: hPa, ascending.

    Returns:
        float32 Dataset with dims (time, level, latitude, longitude), latitude descending; precipitation in m
        over the six hours that end at ``time``; sea surface temperature NaN over land.
    """
    fields = SigmaFields(
        sigma=boundary.sigma,
        surface_pressure=output.surface_pressure,
        surface_geopotential=np.broadcast_to(boundary.geopotential_at_surface, output.surface_pressure.shape),
        **{
            name: np.moveaxis(np.asarray(field), 1, 0)
            for name, field in (
                ("temperature", output.temperature),
                ("geopotential", output.geopotential),
                ("specific_humidity", np.maximum(output.specific_humidity, 0.0)),
                ("u_component_of_wind", output.u_component_of_wind),
                ("v_component_of_wind", output.v_component_of_wind),
            )
        },
    )
    surface = ("time", "latitude", "longitude")
    variables: dict[str, tuple[tuple[str, ...], np.ndarray]] = {
        name: (("time", "level", "latitude", "longitude"), np.moveaxis(field, 0, 1))
        for name, field in to_pressure_levels(fields, levels).items()
    }
    variables |= {
        "mean_sea_level_pressure": (surface, mean_sea_level_pressure(fields)),
        "2m_temperature": (surface, output.near_surface_temperature),
        "10m_u_component_of_wind": (surface, output.near_surface_u),
        "10m_v_component_of_wind": (surface, output.near_surface_v),
        "total_precipitation_6hr": (
            surface,
            np.maximum(output.precipitation, 0.0) * (INTERVAL_HOURS * 3600 / 1000.0),
        ),
        "sea_surface_temperature": (surface, _sea_surface_temperature(output.time, boundary)),
    }
    return xr.Dataset(
        {name: (dims, field.astype(np.float32)) for name, (dims, field) in variables.items()},
        coords={
            "time": output.time.astype("datetime64[ns]"),
            "level": np.asarray(levels, dtype=np.int32),
            "latitude": boundary.latitude,
            "longitude": boundary.longitude,
        },
    )


def _sea_surface_temperature(time: np.ndarray, boundary: Boundary) -> np.ndarray:
    """The climatology's day of each time (29 February as 28 February), NaN over land."""
    days = xr.DataArray(time.astype("datetime64[ns]"), dims="time").dt
    leap = days.is_leap_year.values & (days.dayofyear.values > 59)
    index = days.dayofyear.values - 1 - leap
    field = np.maximum(boundary.sea_surface_temperature[index], FREEZING_POINT_OF_SEA_WATER)
    return np.where(boundary.land_sea_mask >= LAND_THRESHOLD, np.float32(np.nan), field)
