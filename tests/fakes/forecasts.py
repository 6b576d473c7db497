"""A plausible ensemble forecast without a model: travelling waves whose phases drift apart with lead time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import xarray as xr

from infra.forecast_store import ForecastWriter, create_forecast_store
from infra.object_store import ObjectStore
from model.grid import Grid
from model.task import TaskConfig
from model.variables import VARIABLES

INIT_TIME = datetime(2026, 1, 15, tzinfo=UTC)

TASK = TaskConfig(
    input_variables=("2m_temperature", "temperature", "geopotential_at_surface", "land_sea_mask"),
    target_variables=(
        "2m_temperature",
        "mean_sea_level_pressure",
        "10m_u_component_of_wind",
        "10m_v_component_of_wind",
        "sea_surface_temperature",
        "total_precipitation_12hr",
        "temperature",
        "geopotential",
        "u_component_of_wind",
        "v_component_of_wind",
        "specific_humidity",
    ),
    forcing_variables=(),
    pressure_levels=(500, 850),
    input_duration="24h",
)

_CLIMATE = {  # equator's value, fall to the poles, wave amplitude
    "2m_temperature": (300.0, 50.0, 4.0),
    "mean_sea_level_pressure": (101200.0, 900.0, 900.0),
    "10m_u_component_of_wind": (0.0, -3.0, 6.0),
    "10m_v_component_of_wind": (0.0, 0.0, 6.0),
    "sea_surface_temperature": (301.0, 28.0, 1.0),
    "temperature": (285.0, 35.0, 4.0),
    "geopotential": (57000.0, 7000.0, 900.0),
    "u_component_of_wind": (0.0, -15.0, 9.0),
    "v_component_of_wind": (0.0, 0.0, 9.0),
    "specific_humidity": (0.012, 0.0115, 0.0),
}


def land_mask(grid: Grid) -> np.ndarray:
    """A few round continents, 1 on land, dims (latitude, longitude)."""
    latitude = np.deg2rad(grid.latitude)[:, np.newaxis]
    longitude = np.deg2rad(grid.longitude)[np.newaxis]
    mask = np.zeros(grid.shape)
    for centre_latitude, centre_longitude, radius in (
        (50, 60, 40),
        (10, 20, 28),
        (45, 260, 28),
        (-15, 300, 24),
    ):
        phi, lam = np.deg2rad(centre_latitude), np.deg2rad(centre_longitude)
        cosine = np.sin(latitude) * np.sin(phi) + np.cos(latitude) * np.cos(phi) * np.cos(longitude - lam)
        mask = np.maximum(mask, 1 / (1 + np.exp(-(cosine - np.cos(np.deg2rad(radius))) * 40)))
    return mask.astype(np.float32)


def fields(grid: Grid, *, member: int, hours: int, task: TaskConfig = TASK) -> xr.Dataset:
    """One member's step; member 0 has no perturbation."""
    latitude = np.deg2rad(grid.latitude.astype(np.float64))[:, np.newaxis]
    longitude = np.deg2rad(grid.longitude.astype(np.float64))[np.newaxis]
    rng = np.random.default_rng([member, 7])
    drift = rng.normal(size=3) * (member > 0) * hours / 240
    calm = np.cos(latitude) ** 2 * np.sin(2 * latitude) ** 2 * 2.5
    built = {}
    for number, name in enumerate(task.target_variables):
        variable = VARIABLES[name]
        waves = sum(
            np.cos(k * longitude - hours / 24 * 0.5 + 0.7 * number + drift[i] * k) / (i + 1)
            for i, k in enumerate((3, 5, 8))
        )
        if variable.accumulation_hours:
            built[name] = np.maximum(0.0, 0.012 * (calm * waves - 0.4 + 0.3 * np.cos(latitude) ** 8))
            continue
        base, fall, amplitude = _CLIMATE[name]
        field = base - fall * np.sin(latitude) ** 2 + amplitude * calm * waves
        built[name] = np.where(land_mask(grid) > 0.5, np.nan, field) if "sea_surface" in name else field
    return xr.Dataset(
        {
            name: (
                ("level", "latitude", "longitude")
                if VARIABLES[name].on_levels
                else ("latitude", "longitude"),
                np.stack([v * (level / 850) ** 0.2 for level in task.pressure_levels]).astype(np.float32)
                if VARIABLES[name].on_levels
                else v.astype(np.float32),
            )
            for name, v in built.items()
        },
        coords={"latitude": grid.latitude, "longitude": grid.longitude},
    )


def write_forecast(
    store: ObjectStore,
    key: str,
    *,
    resolution: float = 30.0,
    members: int = 4,
    steps: int = 3,
    init_time: datetime = INIT_TIME,
    task: TaskConfig = TASK,
) -> None:
    """Lay out a forecast store and fill it."""
    grid = Grid(resolution=resolution)
    create_forecast_store(store, key, task=task, grid=grid, init_time=init_time, members=members, steps=steps)
    writer = ForecastWriter(store=store, key=key, variables=task.target_variables)
    for member in range(members):
        for step in range(steps):
            hours = (step + 1) * task.step // timedelta(hours=1)
            writer.write_step(member, step, fields(grid, member=member, hours=hours, task=task))
