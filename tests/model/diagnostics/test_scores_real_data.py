"""Scores of real analyses against plain numpy: ERA5's winter at 2.5° and its ten members at 3°."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from model.diagnostics.scores import ensemble_statistics, scores, total
from model.grid import Grid

HOURS = np.array([24, 72], dtype="timedelta64[h]").astype("timedelta64[ns]")


def sphere_weights(latitude: np.ndarray) -> np.ndarray:
    """cos φ integrated over each row's cells, computed here on its own."""
    half = np.deg2rad(np.abs(latitude[1] - latitude[0]) / 2)
    centre = np.deg2rad(latitude)
    upper = np.minimum(centre + half, np.pi / 2)
    lower = np.maximum(centre - half, -np.pi / 2)
    return np.sin(upper) - np.sin(lower)


def test_persistence_over_the_era5_winter(shared_data: Path) -> None:
    path = next((shared_data / "era5_djf_2.5deg").glob("era5_msl_*.zarr"))
    analysis = (
        xr.open_zarr(path, chunks=None)
        .rename(msl="mean_sea_level_pressure")
        .isel(latitude=slice(None, None, -1))
    )
    analysis = analysis[["mean_sea_level_pressure"]].drop_vars(["expver", "number"])
    grid = Grid(resolution=2.5)
    start = range(0, 40, 4)
    lead_steps = (HOURS / np.timedelta64(6, "h")).astype(int)

    def one_cycle(index: int) -> xr.Dataset:
        truth = analysis.isel(valid_time=index + lead_steps).rename(valid_time="lead_time")
        truth = truth.assign_coords(lead_time=HOURS)
        initial = analysis.isel(valid_time=index, drop=True)
        return ensemble_statistics(initial.expand_dims(lead_time=HOURS), truth, grid=grid)

    season = scores(total(one_cycle(index) for index in start))

    pressure = analysis["mean_sea_level_pressure"].values.astype(np.float64)
    weight = sphere_weights(analysis["latitude"].values)
    bands = {"global": (-90, 90), "tropics": (-20, 20), "northern-extratropics": (20, 90)}
    for lead, steps in enumerate(lead_steps):
        for region, (south, north) in bands.items():
            rows = (analysis["latitude"].values >= south) & (analysis["latitude"].values <= north)
            error = np.stack([pressure[i] - pressure[i + steps] for i in start])[:, rows]
            mean_square = np.average((error**2).mean(axis=(0, 2)), weights=weight[rows])
            bias = np.average(error.mean(axis=(0, 2)), weights=weight[rows])
            here = season.sel(region=region, field="mean_sea_level_pressure").isel(lead_time=lead)
            assert float(here["rmse"]) == pytest.approx(mean_square**0.5, rel=1e-6)
            assert float(here["bias"]) == pytest.approx(bias, rel=1e-6, abs=1e-6)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_ten_era5_members_against_their_own_later_analysis(shared_data: Path) -> None:
    grib = xr.open_dataset(
        shared_data / "cfgrib" / "era5-levels-members.grib", engine="cfgrib", backend_kwargs={"indexpath": ""}
    ).load()
    grib = grib.rename(number="member", isobaricInhPa="level", z="geopotential", t="temperature")
    grib = grib.drop_vars(["valid_time", "step"]).isel(latitude=slice(None, None, -1)).sortby("level")
    lead = np.array([0, 12, 24, 36], dtype="timedelta64[h]").astype("timedelta64[ns]")
    members = grib.isel(member=slice(1, None)).rename(time="lead_time").assign_coords(lead_time=lead)
    truth = grib.isel(member=0, drop=True).rename(time="lead_time").assign_coords(lead_time=lead)
    result = scores(ensemble_statistics(members, truth, grid=Grid(resolution=3.0)))

    weight = np.repeat(sphere_weights(grib["latitude"].values)[:, np.newaxis], 120, axis=1)
    for name in ("geopotential", "temperature"):
        for level in (500, 850):
            for index in range(4):
                x = grib[name].sel(level=level).isel(time=index).values.astype(np.float64)
                truth_here, x = x[0], x[1:]
                mean = np.sum(x, axis=0) / 9
                pairs = sum(np.abs(a - b) for a in x for b in x) / (9 * 8)
                variance = ((x - mean) ** 2).sum(axis=0) / 8
                below = (x < truth_here).sum(axis=0)
                tied = (x == truth_here).sum(axis=0)
                ranks = [
                    np.average(((below <= r) & (r <= below + tied)) / (tied + 1), weights=weight)
                    for r in range(10)
                ]
                here = result.sel(field=f"{name} {level}", region="global").isel(lead_time=index)
                expected = {
                    "rmse": np.average((mean - truth_here) ** 2, weights=weight) ** 0.5,
                    "bias": np.average(mean - truth_here, weights=weight),
                    "crps": np.average(np.abs(x - truth_here).mean(axis=0) - pairs / 2, weights=weight),
                    "spread": (np.average(variance, weights=weight) * 10 / 9) ** 0.5,
                }
                for score, value in expected.items():
                    assert float(here[score]) == pytest.approx(value, rel=1e-6), (name, level, index, score)
                np.testing.assert_allclose(here["rank_histogram"].values, ranks, rtol=1e-6)
