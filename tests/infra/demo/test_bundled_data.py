"""The bundled data fit together: analyses, statistics and climatology are of the same atmosphere."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest
import xarray as xr

from infra.demo import FIRST_ANALYSIS, INIT_TIME, LAST_ANALYSIS, RESOLUTION, bundled
from infra.errors import MissingDataError
from infra.grib import decode
from infra.interpolation import regrid
from model.diagnostics.climatology import climatological_mean, climatological_spread
from model.grid import Grid

GRID = Grid(resolution=RESOLUTION)
MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def analyses() -> xr.Dataset:
    paths = sorted(bundled("analyses").rglob("00z.grib2"))[::6]
    return regrid(decode(paths), GRID)


def test_the_period_holds_ten_days_from_the_demonstrations_start() -> None:
    names = sorted(
        str(path.relative_to(bundled("analyses"))) for path in bundled("analyses").rglob("*z.grib2")
    )
    count = (LAST_ANALYSIS - FIRST_ANALYSIS) // timedelta(hours=6) + 1
    assert len(names) == count == 49
    assert names[0] == f"{FIRST_ANALYSIS:%Y%m%d/%H}z.grib2"
    assert names[-1] == f"{LAST_ANALYSIS:%Y%m%d/%H}z.grib2"
    assert timedelta(hours=12) <= INIT_TIME - FIRST_ANALYSIS
    assert timedelta(days=10) <= LAST_ANALYSIS - INIT_TIME


def test_the_data_stay_small() -> None:
    data = [
        *bundled("analyses").rglob("*"),
        *bundled("graphcast_stats").rglob("*"),
        bundled("climatology.nc"),
    ]
    assert sum(path.stat().st_size for path in data if path.is_file()) < 15 * MEGABYTE


def test_anomalies_are_as_large_as_the_climatology_says(analyses: xr.Dataset) -> None:
    with xr.open_dataset(bundled("climatology.nc"), engine="h5netcdf") as climatology:
        mean = climatological_mean(climatology, analyses.time.values)
        spread = climatological_spread(climatology, analyses.time.values)
    assert GRID.mismatch(mean) is None
    for name in (
        "geopotential",
        "temperature",
        "u_component_of_wind",
        "mean_sea_level_pressure",
        "2m_temperature",
    ):
        standardised = (analyses[name] - mean[name]) / spread[name]
        weighted = (
            (standardised**2)
            .mean(("time", "longitude"))
            .weighted(xr.DataArray(GRID.area_weights(), dims="latitude"))
        )
        ratio = np.sqrt(weighted.mean("latitude"))
        # Three instants of one winter: around 1 (a shifted season, unit or latitude axis gives 3 and more).
        assert float(ratio.min()) > 0.6, name
        assert float(ratio.max()) < 1.8, name


@pytest.mark.parametrize(("family", "hours"), [("graphcast", 6), ("gencast", 12)])
def test_statistics_are_those_of_the_analyses(analyses: xr.Dataset, family: str, hours: int) -> None:
    folder = bundled(f"{family}_stats")
    with (
        xr.open_dataset(folder / "mean_by_level.nc", engine="h5netcdf") as mean,
        xr.open_dataset(folder / "stddev_by_level.nc", engine="h5netcdf") as stddev,
        xr.open_dataset(folder / "diffs_stddev_by_level.nc", engine="h5netcdf") as diffs,
    ):
        for name in (
            "temperature",
            "geopotential",
            "u_component_of_wind",
            "v_component_of_wind",
            "2m_temperature",
        ):
            standardised = (analyses[name] - mean[name]) / stddev[name]
            assert float(abs(standardised.mean(("time", "latitude", "longitude"))).max()) < 0.35, name
            assert 0.7 < float(standardised.std()) < 1.4, name
            assert float((diffs[name] / stddev[name]).max()) < 1, name
        assert f"total_precipitation_{hours}hr" in diffs
        assert mean.level.values.tolist() == analyses.level.values.tolist()
        assert {"toa_incident_solar_radiation", "year_progress_sin", "land_sea_mask"} <= set(mean.data_vars)


def test_what_is_not_bundled_is_named() -> None:
    with pytest.raises(
        MissingDataError, match=r"nothing: not in this installation; there are .*climatology\.nc"
    ):
        bundled("nothing")
