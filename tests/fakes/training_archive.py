"""A tiny archive of smooth waves that drift eastwards, with its statistics: enough to train on in seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from model.grid import Grid

GRID = Grid(resolution=30.0)
LEVELS = (500, 850)
TASK = {
    "input_variables": (
        "2m_temperature",
        "geopotential",
        "year_progress_sin",
        "geopotential_at_surface",
        "land_sea_mask",
    ),
    "target_variables": ("2m_temperature", "geopotential", "total_precipitation_6hr"),
    "forcing_variables": ("year_progress_sin",),
    "pressure_levels": LEVELS,
    "input_duration": "12h",
}
MODEL = {
    "resolution": 30.0,
    "mesh_size": 1,
    "latent_size": 8,
    "gnn_msg_steps": 1,
    "hidden_layers": 1,
    "radius_query_fraction_edge_length": 0.6,
}


def write_archive(path: Path, *, times: int = 24, resolution: float = 30.0) -> Path:
    """A Zarr store of six-hourly analyses from 2001-03-12."""
    grid = Grid(resolution=resolution)
    longitude = np.deg2rad(grid.longitude)
    latitude = np.deg2rad(grid.latitude)[:, None]
    step = np.arange(times)[:, None, None]
    wave = np.cos(latitude) * np.sin(2 * longitude - 0.3 * step)
    level = np.array(LEVELS)[:, None, None]
    dims = ("time", "latitude", "longitude")
    rng = np.random.default_rng(0)
    dataset = xr.Dataset(
        {
            "2m_temperature": (dims, 280 + 10 * wave),
            "geopotential": (
                ("time", "level", "latitude", "longitude"),
                9.81 * (7000 - 6 * level) + 800 * wave[:, None] * level / 500,
            ),
            "total_precipitation_6hr": (dims, 1e-3 * np.maximum(wave, 0)),
            "geopotential_at_surface": (dims[1:], 1000 * rng.random(grid.shape)),
            "land_sea_mask": (dims[1:], rng.integers(0, 2, grid.shape).astype(float)),
        },
        coords={
            "time": np.datetime64("2001-03-12", "ns") + np.arange(times) * np.timedelta64(6, "h"),
            "level": np.array(LEVELS),
            "latitude": grid.latitude,
            "longitude": grid.longitude,
        },
    ).astype(np.float32)
    dataset.to_zarr(path, mode="w", consolidated=False)
    return path


def write_statistics(folder: Path, archive: Path) -> Path:
    """Statistics of that archive in DeepMind's layout."""
    folder.mkdir(parents=True, exist_ok=True)
    data = xr.open_zarr(archive, consolidated=False).load()
    over = [name for name in data.dims if name != "level"]
    forcing = {"year_progress_sin": 0.0}, {"year_progress_sin": 1.0}
    mean = data.mean(over).assign(forcing[0])
    stddev = data.std(over).assign(forcing[1])
    differences = data[["2m_temperature", "geopotential", "total_precipitation_6hr"]].diff("time").std(over)
    for name, dataset in (("mean", mean), ("stddev", stddev), ("diffs_stddev", differences)):
        dataset.to_netcdf(folder / f"{name}_by_level.nc", engine="h5netcdf")
    return folder
