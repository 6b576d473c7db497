"""Statistics and climatology of a small archive: layout of the files, derived variables, packing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from infra.checkpoint_files import read_statistics
from model.diagnostics.climatology import HarmonicBasis, climatological_mean, climatological_spread
from model.grid import Grid
from tasks.archive_statistics import (
    archive_statistics,
    fit_climatology,
    with_twelve_hour_precipitation,
    write_climatology,
    write_statistics,
)

GRID = Grid(resolution=45.0)


def analyses(times: int = 12) -> xr.Dataset:
    rng = np.random.default_rng(3)
    shape = (times, *GRID.shape)
    surface = ("time", "latitude", "longitude")
    return xr.Dataset(
        {
            "temperature": (
                ("time", "level", "latitude", "longitude"),
                rng.normal(250, 9, (times, 2, *GRID.shape)).astype(np.float32),
            ),
            "total_precipitation_6hr": (surface, rng.exponential(1e-3, shape).astype(np.float32)),
            "land_sea_mask": (("latitude", "longitude"), np.zeros(GRID.shape, np.float32)),
        },
        coords={
            "time": np.datetime64("2001-06-01", "ns") + np.arange(times) * np.timedelta64(6, "h"),
            "level": [500, 850],
            "latitude": GRID.latitude,
            "longitude": GRID.longitude,
        },
    )


def blocks(data: xr.Dataset, size: int = 5) -> list[xr.Dataset]:
    return [data.isel(time=slice(i, i + size)) for i in range(0, data.sizes["time"], size)]


def test_twelve_hour_amounts_cross_the_seams() -> None:
    data = analyses()
    twelve = xr.concat(
        [block["total_precipitation_12hr"] for block in with_twelve_hour_precipitation(blocks(data))],
        dim="time",
    )
    six = data["total_precipitation_6hr"].values
    np.testing.assert_array_equal(np.isnan(twelve[0]), True)
    np.testing.assert_array_equal(twelve[1:], six[1:] + six[:-1])


def test_files_have_the_published_layout(tmp_path: Path) -> None:
    statistics = archive_statistics(blocks(analyses()), GRID)
    written = write_statistics(statistics, tmp_path)
    assert [str(path.relative_to(tmp_path)) for path in written] == [
        "graphcast_stats/mean_by_level.nc",
        "graphcast_stats/stddev_by_level.nc",
        "graphcast_stats/diffs_stddev_by_level.nc",
        "gencast_stats/mean_by_level.nc",
        "gencast_stats/stddev_by_level.nc",
        "gencast_stats/diffs_stddev_by_level.nc",
        "gencast_stats/min_by_level.nc",
    ]
    with xr.open_dataset(written[0], engine="h5netcdf") as mean:
        assert mean.temperature.dims == ("level",)
        assert mean.total_precipitation_6hr.dims == ()
        assert "total_precipitation_12hr" not in mean
        assert mean.level.dtype == np.int32
        # Twelve times from midnight: each solar time of day as often as its opposite.
        assert float(mean.day_progress_sin) == pytest.approx(0.0, abs=1e-6)
    with xr.open_dataset(written[5], engine="h5netcdf") as differences:
        t = analyses().temperature.values
        np.testing.assert_allclose(differences.temperature, (t[2:] - t[:-2]).std(axis=(0, 2, 3)), rtol=1e-5)
        # Half a day turns the local time by π: cos → −cos, whose change has spread 2 · √½.
        assert float(differences.day_progress_cos) == pytest.approx(np.sqrt(2.0), rel=1e-5)
        assert {"total_precipitation_12hr"} < set(differences.data_vars)
        assert "land_sea_mask" not in differences
    for family, hours in (("graphcast", 6), ("gencast", 12)):
        statistics_read = read_statistics(str(tmp_path / f"{family}_stats"))
        assert statistics_read.diffs_stddev.attrs["timestep_hours"] == hours


def test_climatology_file_keeps_what_it_is_worth(tmp_path: Path) -> None:
    data = analyses(40).drop_vars("land_sea_mask")
    flat = HarmonicBasis(annual=0, daily=0)
    climatology = fit_climatology(lambda: blocks(data), mean=flat, variance=flat)
    path = tmp_path / "climatology.nc"
    write_climatology(climatology, path)
    with xr.open_dataset(path, engine="h5netcdf") as packed:
        when = np.array(["2005-06-03T06"], dtype="datetime64[ns]")
        mean = climatological_mean(packed, when).temperature.values[0]
        spread = climatological_spread(packed, when).temperature.values[0]
    np.testing.assert_allclose(mean, data.temperature.mean("time"), rtol=2.0**-15)
    np.testing.assert_allclose(spread, data.temperature.std("time"), rtol=2.0**-8)
