"""Atmospheres to judge: a balanced synthetic one, and real analyses where the data files are present."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import xarray as xr

from model.diagnostics.physical_consistency import EARTH_RADIUS, GAS_CONSTANT_DRY_AIR, LANDMARKS
from model.grid import Grid
from model.task import TaskConfig
from model.variables import LEVELS_13, STANDARD_GRAVITY, STATICS, VARIABLES

INIT_TIME = datetime(2026, 1, 2, 0, tzinfo=UTC)
UPPER_AIR = (
    "temperature", "geopotential", "u_component_of_wind", "v_component_of_wind", "vertical_velocity",
    "specific_humidity",
)  # fmt: skip
SURFACE = (
    "2m_temperature", "mean_sea_level_pressure", "10m_u_component_of_wind", "10m_v_component_of_wind",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Normalization:
    """A checkpoint's statistics."""

    mean: xr.Dataset
    stddev: xr.Dataset
    diffs_stddev: xr.Dataset


def task(*extra: str, hours: int = 6, levels: tuple[int, ...] = LEVELS_13) -> TaskConfig:
    """GraphCast_operational's inputs, with extra variables as named."""
    return TaskConfig(
        input_variables=(*SURFACE, *UPPER_AIR, *extra, "geopotential_at_surface", "land_sea_mask"),
        target_variables=(*SURFACE, *UPPER_AIR),
        forcing_variables=(),
        pressure_levels=levels,
        input_duration=f"{2 * hours}h",
    )


def statistics_of(state: xr.Dataset) -> Normalization:
    """Grid-point statistics of a state, as if it had been the training data."""
    dims = [d for d in ("time", "latitude", "longitude") if d in state.dims]
    mean = state.mean(dims, skipna=True)
    stddev = xr.Dataset({n: v.std([d for d in dims if d in v.dims]) for n, v in state.items()})
    moving = state[[n for n in state if "time" in state[n].dims]]
    change = np.sqrt((moving.diff("time") ** 2).mean(dims, skipna=True))
    return Normalization(mean=mean, stddev=stddev, diffs_stddev=change)


def synthetic_state(
    config: TaskConfig, grid: Grid, *, init_time: datetime = INIT_TIME, seed: int = 0
) -> xr.Dataset:
    """Westerlies with travelling waves in hydrostatic and geostrophic balance over rough continents."""
    phi, lam = np.deg2rad(grid.latitude.astype(float)), np.deg2rad(grid.longitude.astype(float))
    frames = [_synthetic_frame(config, phi, lam, init_time - k * config.step, seed=seed) for k in (1, 0)]
    times = np.array(
        [np.datetime64((init_time - k * config.step).replace(tzinfo=None), "ns") for k in (1, 0)]
    )
    state = xr.concat(frames, dim="time").assign_coords(time=times)
    for name in STATICS & set(state.data_vars):
        state[name] = state[name].isel(time=0, drop=True)
    state = state.assign_coords(
        latitude=grid.latitude, longitude=grid.longitude, level=np.array(config.pressure_levels, np.int32)
    )
    for name in state.data_vars:
        state[name].attrs["units"] = VARIABLES[str(name)].units
    return state[[*config.time_inputs, *config.statics]].astype(np.float32)


def _continents(phi: np.ndarray, lam: np.ndarray) -> np.ndarray:
    land = np.zeros((phi.size, lam.size))
    lat, lon = np.rad2deg(phi)[:, None], np.rad2deg(lam)[None, :]
    for _, north, east, is_land in LANDMARKS:
        if is_land:
            distance = np.hypot((lat - north) / 22.0, ((lon - east + 180) % 360 - 180) / 30.0)
            land = np.maximum(land, (distance < 1.0).astype(float))
    return land


def _synthetic_frame(
    config: TaskConfig, phi: np.ndarray, lam: np.ndarray, time: datetime, *, seed: int
) -> xr.Dataset:
    rng = np.random.default_rng(seed)
    levels = np.array(config.pressure_levels, float)
    sine, cosine = np.sin(phi)[:, None], np.cos(phi)[:, None]
    drift = 2 * np.pi * ((time - INIT_TIME) / timedelta(days=1)) / 40.0
    wave = np.zeros((phi.size, lam.size))
    for k in range(2, 7):
        amplitude, phase = rng.uniform(0.5, 1.0), rng.uniform(0, 2 * np.pi)
        wave += amplitude * cosine**2 * sine * np.cos(k * (lam[None, :] - 3 * drift) + phase)
    land = _continents(phi, lam)
    height = land * (500 + 3500 * rng.random(land.shape))
    solar = 2 * np.pi * ((time.hour / 24) + lam[None, :] / (2 * np.pi))
    temperature = np.stack(
        [
            np.maximum(300.0 * (p / 1000) ** 0.19 - 40 * (p / 1000) ** 0.5 * sine**2, 205.0)
            + 3 * wave * (p / 1000) ** 0.3
            for p in levels
        ]
    )
    humidity = 0.016 * (levels[:, None, None] / 1000) ** 3 * cosine**2 * (1 + 0.1 * wave) + 2e-6
    virtual = temperature * (1 + 0.61 * humidity)
    geopotential = np.empty_like(temperature)
    geopotential[-1] = 1000.0 + 600 * cosine**2 + 700 * wave
    for i in range(len(levels) - 2, -1, -1):
        layer = (virtual[i] + virtual[i + 1]) / 2 * np.log(levels[i + 1] / levels[i])
        geopotential[i] = geopotential[i + 1] + GAS_CONSTANT_DRY_AIR * layer
    coriolis = 2 * 7.292e-5 * sine
    smooth = coriolis / (coriolis**2 + (2.5e-5) ** 2)
    u = -smooth * np.gradient(geopotential, phi * EARTH_RADIUS, axis=1)
    spacing = 2 * (lam[1] - lam[0]) * EARTH_RADIUS * np.maximum(cosine, 0.05)
    v = smooth * (np.roll(geopotential, -1, 2) - np.roll(geopotential, 1, 2)) / spacing
    near = temperature[-1] - 0.0065 * height + 5 * land * np.cos(solar - 2 * np.pi * 15 / 24)
    upper = {
        "temperature": temperature, "geopotential": geopotential, "u_component_of_wind": u,
        "v_component_of_wind": v, "specific_humidity": humidity,
        "vertical_velocity": 0.1 * np.roll(wave, 2, 1) * np.ones((len(levels), 1, 1)),
    }  # fmt: skip
    flat = {
        "2m_temperature": near, "mean_sea_level_pressure": 100_000 + geopotential[-1] * 1.2,
        "10m_u_component_of_wind": 0.7 * u[-1], "10m_v_component_of_wind": 0.7 * v[-1],
        "sea_surface_temperature": np.where(land > 0.5, np.nan, np.maximum(near, 271.0) + 0.01 * wave),
        "total_precipitation_6hr": np.maximum(wave, 0) * 1e-3,
        "total_precipitation_12hr": np.maximum(wave, 0) * 2e-3,
        "geopotential_at_surface": STANDARD_GRAVITY * height, "land_sea_mask": land,
    }  # fmt: skip
    return xr.Dataset(
        {n: (("level", "latitude", "longitude"), a) for n, a in upper.items()}
        | {n: (("latitude", "longitude"), a) for n, a in flat.items()}
    )


def gencast_statistics(shared_data: Path) -> Normalization:
    """DeepMind's statistics of ERA5, 13 levels, for 12 h steps."""
    folder = shared_data / "gencast_stats"
    names = ("mean", "stddev", "diffs_stddev")
    return Normalization(**{name: xr.load_dataset(folder / f"{name}_by_level.nc") for name in names})


def _two_frames(frame: xr.Dataset, config: TaskConfig, init_time: datetime) -> xr.Dataset:
    """A pair of which the second is the given frame and the first has its waves a little further west."""
    moving = frame[list(config.time_inputs)]
    zonal = moving.mean("longitude")
    points = max(1, round(frame.sizes["longitude"] / 144))
    before = zonal + (moving - zonal).roll(longitude=-points, roll_coords=False)
    before = before.transpose(..., "latitude", "longitude")
    times = [np.datetime64((init_time - k * config.step).replace(tzinfo=None), "ns") for k in (1, 0)]
    state = xr.concat([before, moving], dim="time").assign_coords(time=times)
    state = state.assign({name: frame[name] for name in config.statics}).astype(np.float32)
    for name in state.data_vars:
        state[name].attrs = {"units": VARIABLES[str(name)].units}
    return state


def era5_state(
    shared_data: Path, *, levels: tuple[int, ...] = LEVELS_13
) -> tuple[xr.Dataset, TaskConfig, Grid]:
    """ERA5 of 1959-01-02T00 at 5.625° without the surface; the first frame is made from it."""
    raw = xr.load_dataset(shared_data / "neuralgcm" / "era5_tl31_19590102T00.nc")
    config = TaskConfig(
        input_variables=tuple(n for n in UPPER_AIR if n != "vertical_velocity"),
        target_variables=("temperature",),
        forcing_variables=(),
        pressure_levels=levels,
        input_duration="24h",
    )
    raw = raw[list(config.input_variables)].drop_vars("time").sel(level=list(levels))
    grid = Grid(resolution=5.625)
    poles = raw.isel(latitude=[0, -1]).assign_coords(latitude=[-90.0, 90.0])
    raw = xr.concat([poles.isel(latitude=[0]), raw, poles.isel(latitude=[1])], dim="latitude")
    frame = raw.transpose("level", "latitude", "longitude").interp(latitude=grid.latitude.astype(float))
    frame = frame.assign_coords(latitude=grid.latitude, longitude=grid.longitude)
    return _two_frames(frame, config, datetime(1959, 1, 2, tzinfo=UTC)), config, grid


def gfs_state(shared_data: Path) -> tuple[xr.Dataset, TaskConfig, Grid, datetime]:
    """A GFS forecast for 2011-01-15T12 at 2.5° with statics; the first frame is made from it."""
    import eccodes

    fields: dict[tuple[str, str, int], np.ndarray] = {}
    eccodes.codes_grib_multi_support_on()
    try:
        with open(shared_data / "gfs" / "gfs.t12z.pgrbf120.2p5deg.grib2", "rb") as file:
            while (message := eccodes.codes_grib_new_from_file(file)) is not None:
                key = tuple(eccodes.codes_get(message, k) for k in ("shortName", "typeOfLevel", "level"))
                fields[key] = eccodes.codes_get_values(message).reshape(73, 144)[::-1]
                eccodes.codes_release(message)
    finally:
        eccodes.codes_grib_multi_support_off()

    def column(name: str) -> np.ndarray:
        return np.stack([fields.get((name, "isobaricInhPa", p), np.zeros((73, 144))) for p in LEVELS_13])

    temperature = column("t")
    saturation = 611.2 * np.exp(17.67 * (temperature - 273.15) / (temperature - 29.65))  # Bolton (1980)
    pressure = np.array(LEVELS_13, float)[:, None, None] * 100
    vertical_velocity = column("w")
    vertical_velocity[0] = 0.4 * vertical_velocity[1]  # the file has none at 50 hPa
    humidity = np.clip(0.622 * column("r") / 100 * saturation / pressure, 2e-6, 0.03)
    upper = {
        "temperature": temperature, "geopotential": column("gh") * STANDARD_GRAVITY,
        "u_component_of_wind": column("u"), "v_component_of_wind": column("v"),
        "vertical_velocity": vertical_velocity, "specific_humidity": humidity,
    }  # fmt: skip
    flat = {
        "2m_temperature": fields["2t", "heightAboveGround", 2],
        "mean_sea_level_pressure": fields["prmsl", "meanSea", 0],
        "10m_u_component_of_wind": fields["10u", "heightAboveGround", 10],
        "10m_v_component_of_wind": fields["10v", "heightAboveGround", 10],
        "geopotential_at_surface": fields["orog", "surface", 0] * STANDARD_GRAVITY,
        "land_sea_mask": fields["lsm", "surface", 0],
    }
    grid = Grid(resolution=2.5)
    frame = xr.Dataset(
        {n: (("level", "latitude", "longitude"), a) for n, a in upper.items()}
        | {n: (("latitude", "longitude"), a) for n, a in flat.items()},
        coords={"latitude": grid.latitude, "longitude": grid.longitude, "level": list(LEVELS_13)},
    )
    config = task(hours=12)
    init_time = datetime(2011, 1, 15, 12, tzinfo=UTC)
    return _two_frames(frame, config, init_time), config, grid, init_time
