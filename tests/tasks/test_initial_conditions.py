"""From a source to a stored initial condition."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from infra import layout
from infra.errors import InvalidFieldError, MissingDataError
from infra.initial_conditions import load_initial_condition
from infra.settings import ModelSettings, RunSettings, Settings, SourceSettings, StoreSettings
from model.cycle import Cycle
from model.grid import Grid
from tasks import initial_conditions
from tasks.initial_conditions import analyses_reach, missing_inputs, prepare_initial_condition
from tests.fakes.synthetic_source import GRID, LOADER, TASK, SyntheticSource
from tests.model.diagnostics.atmospheres import INIT_TIME, synthetic_state

CYCLE = Cycle(model="synthetic", init_time=INIT_TIME)


def settings_in(folder: Path, **model: object) -> Settings:
    given = {
        "checkpoint": "none", "statistics": str(folder / "statistics"), "loader": LOADER,
        "trained_on": "era5", "source": "synthetic", "steps": 1, **model,
    }  # fmt: skip
    return Settings(
        store=StoreSettings(root=str(folder / "store")),
        run=RunSettings(cache=str(folder / "cache")),
        sources={name: SourceSettings(type="files", kind="era5") for name in ("synthetic", "ocean")},
        models={"synthetic": ModelSettings(**given)},
    )


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch) -> dict[str, SyntheticSource]:
    known = {name: SyntheticSource(name=name) for name in ("synthetic", "ocean")}
    monkeypatch.setattr(initial_conditions, "make_source", lambda name, settings: known[name])
    return known


def test_two_frames_and_statics_come_from_the_source(
    tmp_path: Path, sources: dict[str, SyntheticSource]
) -> None:
    settings = settings_in(tmp_path)
    assert prepare_initial_condition(CYCLE, settings) == layout.initial_condition(CYCLE)
    state = load_initial_condition(settings.store.open(), CYCLE)
    expected = synthetic_state(TASK, GRID)
    np.testing.assert_array_equal(state["temperature"].values[1], expected["temperature"].values[1])
    assert state["time"].values[0] == np.datetime64("2026-01-01T18")
    assert {r.valid_time for r in sources["synthetic"].fetched} == {INIT_TIME, INIT_TIME - timedelta(hours=6)}
    provenance = json.loads(state.attrs["provenance"])
    assert provenance["kind"] == "era5"
    frame = provenance["frames"]["2026-01-02T00:00:00+00:00"]
    assert frame["urls"][0].startswith("memory://synthetic/")
    assert len(frame["messages"][0]["sha256"]) == 64


def test_nothing_is_fetched_twice(tmp_path: Path, sources: dict[str, SyntheticSource]) -> None:
    settings = settings_in(tmp_path)
    prepare_initial_condition(CYCLE, settings)
    fetched = len(sources["synthetic"].fetched)
    prepare_initial_condition(CYCLE, settings)
    assert len(sources["synthetic"].fetched) == fetched
    # The next cycle shares a frame and the statics: one fetch more.
    following = Cycle(model="synthetic", init_time=INIT_TIME + timedelta(hours=6))
    prepare_initial_condition(following, settings)
    assert len(sources["synthetic"].fetched) == fetched + 1


def test_another_configuration_makes_another_initial_condition(
    tmp_path: Path, sources: dict[str, SyntheticSource]
) -> None:
    prepare_initial_condition(CYCLE, settings_in(tmp_path))
    settings = settings_in(tmp_path, sea_surface_temperature="skin-temperature")
    prepare_initial_condition(CYCLE, settings)
    state = load_initial_condition(settings.store.open(), CYCLE)
    sea = state["sea_surface_temperature"].values
    land = state["land_sea_mask"].values > 0.5
    np.testing.assert_array_equal(np.isnan(sea), np.stack([land, land]))
    skin = state["2m_temperature"].values  # the synthetic source's skin temperature
    cold = ~land & (skin < 271.35)
    assert cold.any()
    np.testing.assert_allclose(sea[cold], 269.9, rtol=1e-6)
    np.testing.assert_array_equal(sea[~land & ~cold], skin[~land & ~cold])
    assert json.loads(state.attrs["provenance"])["sea_surface_temperature"] == "skin-temperature"


def test_the_sea_may_come_from_the_newest_day_of_era5t(
    tmp_path: Path, sources: dict[str, SyntheticSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {
        "synthetic": SyntheticSource(kind="hres", lacks=frozenset({"sea_surface_temperature"})),
        "ocean": SyntheticSource(name="ocean", published_until=INIT_TIME - timedelta(days=5)),
    }
    monkeypatch.setattr(initial_conditions, "make_source", lambda name, settings: known[name])
    settings = settings_in(tmp_path, sea_surface_temperature="era5t").model_copy(
        update={
            "sources": {
                "synthetic": SourceSettings(type="files", kind="hres"),
                "ocean": SourceSettings(type="cds", kind="era5"),
            }
        }
    )
    prepare_initial_condition(CYCLE, settings)
    state = load_initial_condition(settings.store.open(), CYCLE)
    then = synthetic_state(TASK, GRID, init_time=INIT_TIME - timedelta(days=5))
    np.testing.assert_array_equal(
        state["sea_surface_temperature"].values[1], then["sea_surface_temperature"].values[1]
    )
    frame = json.loads(state.attrs["provenance"])["frames"]["2026-01-02T00:00:00+00:00"]
    assert "2025-12-28" in json.dumps(frame["sea_surface_temperature_origin"])


def test_no_land_value_bleeds_into_the_sea(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def filled(frame):
        if "sea_surface_temperature" not in frame:
            return frame
        return frame.assign(sea_surface_temperature=frame["sea_surface_temperature"].fillna(200.0))

    finer = SyntheticSource(grid=Grid(resolution=7.5), mutate=filled)
    monkeypatch.setattr(initial_conditions, "make_source", lambda name, settings: finer)
    settings = settings_in(tmp_path, regridding="linear")
    prepare_initial_condition(CYCLE, settings)
    state = load_initial_condition(settings.store.open(), CYCLE)
    sea = state["sea_surface_temperature"].values
    assert np.nanmin(sea) > 270.0  # the synthetic sea is never colder than 271 K
    assert 0.05 < np.isnan(sea).mean() < 0.5


def test_a_source_that_has_not_published_is_asked_without_fetching(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = SyntheticSource(published_until=INIT_TIME - timedelta(hours=6))
    monkeypatch.setattr(initial_conditions, "make_source", lambda name, settings: late)
    settings = settings_in(tmp_path)
    assert missing_inputs(CYCLE, settings) == ("analysis of 20260102T00Z",)
    with pytest.raises(MissingDataError, match="20260102T00Z"):
        prepare_initial_condition(CYCLE, settings)
    earlier = Cycle(model="synthetic", init_time=INIT_TIME - timedelta(hours=6))
    assert missing_inputs(earlier, settings) == ()


def test_what_is_in_the_store_is_not_missing(tmp_path: Path, sources: dict[str, SyntheticSource]) -> None:
    settings = settings_in(tmp_path)
    prepare_initial_condition(CYCLE, settings)
    object.__setattr__(sources["synthetic"], "published_until", datetime(2000, 1, 1, tzinfo=UTC))
    assert missing_inputs(CYCLE, settings) == ()


def test_a_stale_frame_is_refused_and_nothing_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def yesterday(frame):
        return frame.assign_coords(time=frame["time"] - np.timedelta64(24, "h"))

    stale = SyntheticSource(mutate=yesterday)
    monkeypatch.setattr(initial_conditions, "make_source", lambda name, settings: stale)
    settings = settings_in(tmp_path)
    with pytest.raises((InvalidFieldError, MissingDataError)):
        prepare_initial_condition(CYCLE, settings)
    assert list(settings.store.open().list("initial-conditions/")) == []


def test_the_oldest_analysis_a_cycle_may_read_is_kept_for_it(tmp_path: Path) -> None:
    assert analyses_reach(settings_in(tmp_path)) >= timedelta(days=10)
    lagged = settings_in(tmp_path, perturbation={"kind": "lagged", "lags_hours": [6, 480]})
    assert analyses_reach(lagged) >= timedelta(days=30)
