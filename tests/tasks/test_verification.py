"""A cycle is scored as its truth arrives, stored as sums, and a season is the sum of its cycles."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from infra import layout
from infra.errors import InvalidFieldError, MissingDataError, ValidationFailedError
from infra.forecast_store import open_forecast
from infra.object_store import ObjectStore
from infra.settings import ModelSettings, Settings, SourceSettings, StoreSettings
from model.cycle import Cycle
from model.diagnostics.ensemble_products import Event
from model.diagnostics.event_scores import event_scores
from model.diagnostics.scores import scores
from model.grid import Grid
from tasks.verification import (
    EVENTS,
    load_statistics,
    score_cycle,
    skill_rows,
    verified_cycles,
    verify_cycle,
)
from tests.fakes.forecasts import INIT_TIME, fields, write_forecast

GRID = Grid(resolution=30.0)
CYCLE = Cycle(model="demo", init_time=INIT_TIME)
LATER = Cycle(model="demo", init_time=INIT_TIME + timedelta(hours=12))


def truth_at(time: datetime) -> xr.Dataset | None:
    """The unperturbed member's fields, a little warmer; the third day has not arrived."""
    hours = int((time - INIT_TIME).total_seconds()) // 3600
    if hours > 24:
        return None
    known = fields(GRID, member=0, hours=hours).assign_coords(level=[500, 850])
    return known.assign({"2m_temperature": known["2m_temperature"] + 0.5})


def normal(_: datetime) -> xr.Dataset:
    return fields(GRID, member=0, hours=0).assign_coords(level=[500, 850])


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    found = ObjectStore(root=str(tmp_path))
    write_forecast(found, "forecast.zarr", members=4, steps=3)
    return found


def test_lead_times_are_scored_as_their_truth_arrives(store: ObjectStore) -> None:
    forecast = open_forecast(store, "forecast.zarr")
    initial = normal(INIT_TIME).drop_vars("total_precipitation_12hr")
    result = score_cycle(store, CYCLE, forecast, truth_at, persistence=initial, climatology=normal)
    assert result.verified == (timedelta(hours=12), timedelta(hours=24))
    assert result.missing == (timedelta(hours=36),)
    assert not result.complete
    stored = scores(load_statistics(store, CYCLE)).sel(region="global")
    bounds = np.sin(np.deg2rad([-90, -75, -45, -15, 15, 45, 75, 90]))
    weights = np.diff(bounds)
    for index, hours in enumerate((12, 24)):
        members = forecast["2m_temperature"].isel(lead_time=index).values.astype(np.float64)
        expected = truth_at(INIT_TIME + timedelta(hours=hours))
        assert expected is not None
        error = members.mean(axis=0) - expected["2m_temperature"].values
        rmse = np.average((error**2).mean(axis=1), weights=weights) ** 0.5
        got = stored["rmse"].sel(field="2m_temperature").isel(lead_time=index)
        assert float(got) == pytest.approx(rmse, rel=1e-6)
    assert np.isfinite(stored["acc"].sel(field="geopotential 500")).all()
    assert np.isnan(stored["persistence_rmse"].sel(field="total_precipitation_12hr")).all()


def test_the_skill_table_has_a_row_per_field_and_lead_time(store: ObjectStore) -> None:
    forecast = open_forecast(store, "forecast.zarr")
    for cycle in (CYCLE, LATER):
        score_cycle(store, cycle, forecast, truth_at, persistence=normal(INIT_TIME), climatology=normal)
    assert list(verified_cycles(store, "demo")) == [CYCLE, LATER]
    rows = skill_rows(store, "demo", cycles=[CYCLE])
    z500 = [row for row in rows if row.field == "z500"]
    assert [row.lead_days for row in z500] == [0.5, 1.0]
    assert z500[1].units == "m2 s-2"
    assert 0 < z500[1].rmse < z500[1].persistence_rmse
    assert 0 < z500[1].crps < z500[1].rmse
    assert np.isfinite([z500[1].acc, z500[1].spread_skill, z500[1].climatology_rmse]).all()
    assert {row.field for row in rows} >= {"2m_temperature", "t850", "u500"}
    both = skill_rows(store, "demo")
    mean_square = np.mean([skill_rows(store, "demo", cycles=[c])[0].rmse ** 2 for c in (CYCLE, LATER)])
    assert both[0].rmse == pytest.approx(mean_square**0.5)


def test_events_are_scored_with_their_reliability(store: ObjectStore) -> None:
    forecast = open_forecast(store, "forecast.zarr")
    events = [
        Event(quantity="10m_wind_speed", threshold=5.0),
        Event(quantity="temperature", threshold=270.0, level=850),
        Event(quantity="total_precipitation", threshold=0.001),
    ]
    score_cycle(store, CYCLE, forecast, truth_at, persistence=None, climatology=None, events=events)
    result = event_scores(load_statistics(store, CYCLE, EVENTS)).sel(region="global")
    assert result["event"].values.tolist() == [event.name for event in events[:2]]
    members = forecast[["10m_u_component_of_wind", "10m_v_component_of_wind"]].isel(lead_time=0)
    share = (np.hypot(*(members[name] for name in members)) > 5.0).mean("member").values
    known = truth_at(INIT_TIME + timedelta(hours=12))
    assert known is not None
    happened = np.hypot(known["10m_u_component_of_wind"], known["10m_v_component_of_wind"]).values > 5.0
    brier = np.average(((share - happened) ** 2).mean(axis=1), weights=GRID.area_weights())
    assert result["brier"].isel(event=0, lead_time=0).item() == pytest.approx(brier, rel=1e-6)


def test_without_truth_there_is_nothing_to_store(store: ObjectStore) -> None:
    forecast = open_forecast(store, "forecast.zarr")
    with pytest.raises(MissingDataError, match="3 lead times"):
        score_cycle(store, CYCLE, forecast, lambda _: None, persistence=None, climatology=None)
    assert not store.exists(layout.verification(CYCLE))
    with pytest.raises(InvalidFieldError, match="got none"):
        skill_rows(store, "demo")


def test_truth_of_another_kind_is_refused(tmp_path: Path) -> None:
    model = ModelSettings(checkpoint="-", statistics="-", trained_on="hres", source="era5", steps=1)
    settings = Settings(
        store=StoreSettings(root=str(tmp_path)),
        models={"demo": model},
        sources={"era5": SourceSettings(type="arco-era5", kind="era5")},
    )
    with pytest.raises(ValidationFailedError, match="expected 'hres', source 'era5' gives 'era5'"):
        verify_cycle(CYCLE, settings)
