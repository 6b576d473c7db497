"""The table of field statistics: its shape, its numbers, what it says of absent and repeated fields."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from model.diagnostics.field_statistics import COLUMNS, ExpectedState, field_digest, field_statistics
from model.diagnostics.physical_limits import physical_limits
from model.grid import Grid
from tests.model.diagnostics.atmospheres import INIT_TIME, statistics_of, synthetic_state, task

GRID = Grid(resolution=10.0)
TASK = task("sea_surface_temperature", levels=(200, 500, 850, 1000))
STATE = synthetic_state(TASK, GRID)


def table_of(state: xr.Dataset, **facts: object):
    return field_statistics(state, ExpectedState(task=TASK, grid=GRID, init_time=INIT_TIME, **facts))


def only(table, variable: str, level: int = 0, time: str = "2026-01-02T00Z"):
    rows = table[(table.variable == variable) & (table.level == level) & (table.time == time)]
    assert len(rows) == 1
    return rows.iloc[0]


def test_one_row_per_variable_level_and_time() -> None:
    table = table_of(STATE)
    # 4 surface variables and SST, 6 on 4 levels, two times; two statics.
    assert len(table) == 2 * (5 + 6 * 4) + 2
    assert list(table.columns) == list(COLUMNS)
    assert table.present.all()
    assert set(table.time) == {"2026-01-01T18Z", "2026-01-02T00Z", "static"}
    assert table.grid_mismatch.isna().all()
    assert table.time_mismatch.isna().all()


def test_numbers_of_a_field_are_numpys() -> None:
    row = only(table_of(STATE), "temperature", 500)
    values = STATE["temperature"].isel(time=1).sel(level=500).values.astype(float)
    assert row.minimum == pytest.approx(values.min())
    assert row.maximum == pytest.approx(values.max())
    mean = (values.mean(axis=1) * GRID.area_weights()).sum()
    assert row["mean"] == pytest.approx(mean, rel=1e-6)
    variance = (((values - mean) ** 2).mean(axis=1) * GRID.area_weights()).sum()
    assert row.standard_deviation == pytest.approx(np.sqrt(variance), rel=1e-5)
    assert row.points == 19 * 36
    assert row.units == row.expected_units == "K"
    assert row.digest == field_digest(values.astype(np.float32))


def test_scores_against_the_checkpoints_statistics() -> None:
    statistics = statistics_of(STATE)
    warmer = STATE.assign(temperature=STATE["temperature"] + 3 * statistics.stddev["temperature"])
    table = table_of(warmer.transpose(..., "latitude", "longitude"), statistics=statistics)
    # Both frames' mean against the two frames' joint mean: 3 standard deviations up, to within the change.
    assert only(table, "temperature", 500).mean_score == pytest.approx(3.0, abs=0.05)
    assert only(table, "temperature", 500).deviation_ratio == pytest.approx(1.0, abs=0.05)
    assert only(table, "geopotential", 500).mean_score == pytest.approx(0.0, abs=0.05)
    change = STATE["temperature"].sel(level=500).diff("time").values.astype(float)[0]
    expected = np.sqrt(((change**2).mean(axis=1) * GRID.area_weights()).sum())
    assert only(table, "temperature", 500).change == pytest.approx(expected, rel=1e-3)
    assert np.isnan(only(table, "temperature", 500, "2026-01-01T18Z").change)


def test_absent_variables_levels_and_times_have_a_row_without_numbers() -> None:
    table = table_of(STATE.drop_vars("mean_sea_level_pressure").sel(level=[200, 850, 1000]))
    assert not only(table, "mean_sea_level_pressure").present
    assert not only(table, "temperature", 500).present
    assert np.isnan(only(table, "temperature", 500).minimum)
    assert only(table, "temperature", 850).present
    table = table_of(STATE.isel(time=[1]))
    assert only(table, "temperature", 500).present
    assert "got 2026-01-02T00Z" in only(table, "temperature", 500).time_mismatch


def test_what_is_missing_infinite_or_filled_is_counted_apart() -> None:
    state = STATE.copy(deep=True)
    field = state["2m_temperature"].values
    field[1, 3, 4], field[1, 3, 5], field[1, 3, 6] = np.nan, np.inf, np.float32(9.96921e36)
    row = only(table_of(state), "2m_temperature")
    share = 1 / (19 * 36)
    assert row.missing_share == pytest.approx(share)
    assert row.infinite_share == pytest.approx(share)
    assert row.fill_share == pytest.approx(share)


def test_sea_surface_temperature_is_missing_exactly_over_land() -> None:
    assert only(table_of(STATE), "sea_surface_temperature").mask_mismatch_share == 0
    shifted = STATE.assign(sea_surface_temperature=STATE["sea_surface_temperature"].roll(longitude=9))
    assert only(table_of(shifted), "sea_surface_temperature").mask_mismatch_share > 0.05


def test_a_repeated_frame_is_named() -> None:
    state = STATE.copy(deep=True)
    state["temperature"][1] = state["temperature"][0]
    table = table_of(state)
    assert only(table, "temperature", 500).repeats == "2026-01-01T18Z"
    assert pd.isna(only(table, "geopotential", 500).repeats)
    earlier = {field_digest(STATE["geopotential"].isel(time=1).sel(level=850).values): "2026-01-01T12Z"}
    assert only(table_of(STATE, earlier_digests=earlier), "geopotential", 850).repeats == "2026-01-01T12Z"


def test_wrong_times_and_grids_are_described_and_the_fields_all_the_same() -> None:
    late = STATE.assign_coords(time=STATE["time"] + np.timedelta64(6, "h"))
    row = only(table_of(late), "temperature", 500)
    assert row.time_mismatch == (
        "expected 2026-01-01T18Z and 2026-01-02T00Z, got 2026-01-02T00Z and 2026-01-02T06Z"
    )
    flipped = STATE.isel(latitude=slice(None, None, -1))
    row = only(table_of(flipped), "temperature", 500)
    assert "descending" in row.grid_mismatch
    assert row["mean"] == pytest.approx(only(table_of(STATE), "temperature", 500)["mean"], rel=1e-6)


def test_the_expected_times_are_one_model_step_apart() -> None:
    first, second = ExpectedState(task=task(hours=12), grid=GRID, init_time=INIT_TIME).times
    assert second - first == np.timedelta64(timedelta(hours=12), "ns")


def test_geopotential_height_is_outside_of_geopotentials_limits() -> None:
    # The standard atmosphere's 500 hPa surface lies at 5574 m, 50 hPa at 20576 m.
    for level, height in ((500, 5574.0), (50, 20576.0)):
        lower, upper = physical_limits("geopotential", level)
        assert lower < 9.80665 * height < upper
        assert height < lower
    assert physical_limits("land_sea_mask", 0) == (0.0, 1.0)
    assert physical_limits("year_progress_sin", 0) is None
