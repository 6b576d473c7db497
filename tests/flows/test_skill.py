"""The command that scores the bundled models, on the bundled days."""

from __future__ import annotations

import io
from datetime import timedelta

import numpy as np
import pytest
import xarray as xr
from rich.console import Console

from flows.skill import HEADLINE, VARIABLES, skill_table, stability_line
from infra.demo import bundled
from tasks.skill import ModelUnderTest, Stability, _finite_where_known


@pytest.fixture(scope="module")
def graphcast_under_test() -> ModelUnderTest:
    return ModelUnderTest.read(
        bundled("graphcast.npz"), bundled("graphcast_stats"), climatology=bundled("climatology.nc")
    )


@pytest.fixture(scope="module")
def two_days(graphcast_under_test: ModelUnderTest) -> xr.Dataset:
    return graphcast_under_test.scores(VARIABLES, lead=timedelta(days=2), starts=4)


@pytest.mark.parametrize("field", HEADLINE)
def test_the_bundled_graphcast_beats_persistence_and_climatology(two_days: xr.Dataset, field: str) -> None:
    here = two_days.sel(field=field, region="global", lead_time=np.timedelta64(1, "D"))
    assert float(here["rmse"]) < 0.6 * float(here["persistence_rmse"])
    assert float(here["rmse"]) < 0.6 * float(here["climatology_rmse"])


def test_errors_grow_with_lead_time(two_days: xr.Dataset) -> None:
    rmse = two_days["rmse"].sel(field="geopotential 500", region="global").values
    assert (np.diff(rmse) > 0).all()


def test_the_table_shows_every_headline_field_at_whole_days(two_days: xr.Dataset) -> None:
    table = skill_table(two_days, title="two days")
    assert table.row_count == len(HEADLINE) * 2
    shown = io.StringIO()
    Console(file=shown, width=160).print(table)
    rmse = two_days["rmse"].sel(field="geopotential 500", region="global", lead_time=np.timedelta64(2, "D"))
    assert f"{float(rmse):.3g}" in shown.getvalue()


def test_a_forecast_that_blows_up_is_called_not_finite() -> None:
    stability = Stability(
        finite=False,
        global_means={"geopotential 500": (55_000.0, np.nan)},
        small_scale_ratio={"geopotential 500": np.inf},
    )
    assert "NOT FINITE" in stability_line(stability, timedelta(days=15))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_value_that_is_none_is_not_finite_even_where_the_whole_field_is_so(bad: float) -> None:
    truth = np.ones((3, 2, 2))
    truth[:, 0, 0] = np.nan
    forecast = np.ones((2, 2, 2))
    forecast[:, 0, 0] = np.nan
    assert _finite_where_known(forecast, truth)
    assert not _finite_where_known(np.full((2, 2, 2), bad), truth)
    forecast[1, 1, 1] = bad
    assert not _finite_where_known(forecast, truth)


def test_two_days_of_the_bundled_graphcast_stay_plausible(graphcast_under_test: ModelUnderTest) -> None:
    stability = graphcast_under_test.stability(VARIABLES, lead=timedelta(days=2))
    first, last = stability.global_means["geopotential 500"]
    assert stability.finite
    assert abs(last - first) < 200
    assert 0.3 < stability.small_scale_ratio["geopotential 500"] < 3
