"""Initial conditions: put together, stored whole, taken out of use."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from infra import layout
from infra.errors import InvalidFieldError, StoreError
from infra.initial_conditions import (
    Recipe,
    assemble,
    frame_times,
    load_initial_condition,
    quarantine_initial_condition,
    skin_temperature_proxy,
    store_initial_condition,
    stored_recipe,
)
from infra.object_store import ObjectStore
from model.cycle import Cycle
from tests.fakes.synthetic_source import GRID, TASK
from tests.model.diagnostics.atmospheres import INIT_TIME, synthetic_state, task

STATE = synthetic_state(TASK, GRID)
STATICS = STATE[list(TASK.statics)]
MOVING = STATE[list(TASK.time_inputs)]
FRAMES = [MOVING.isel(time=[0]), MOVING.isel(time=[1])]
CYCLE = Cycle(model="synthetic", init_time=INIT_TIME)
RECIPE = Recipe(
    variables=TASK.time_inputs, statics=TASK.statics, levels=TASK.pressure_levels, step_hours=6.0,
    resolution=10.0, source="synthetic", kind="era5",
)  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(root=str(tmp_path / "store"))


def assembled(frames: list[xr.Dataset] | None = None, statics: xr.Dataset = STATICS) -> xr.Dataset:
    return assemble(frames or FRAMES, statics, task=TASK, grid=GRID, init_time=INIT_TIME)


@pytest.mark.parametrize(("hours", "first"), [(6, 18), (12, 12)])
def test_the_frames_are_one_model_step_apart(hours: int, first: int) -> None:
    earlier, later = frame_times(task(hours=hours), INIT_TIME)
    assert earlier == datetime(2026, 1, 1, first, tzinfo=UTC)
    assert later == INIT_TIME


def test_an_initial_condition_is_its_frames_and_statics() -> None:
    state = assembled()
    assert dict(state.sizes) == {"time": 2, "level": 4, "latitude": 19, "longitude": 36}
    assert set(state.data_vars) == {*TASK.time_inputs, *TASK.statics}
    for name in TASK.time_inputs:
        np.testing.assert_array_equal(state[name].values, STATE[name].values)
        assert state[name].dims[0] == "time"
        assert state[name].dtype == np.float32
    assert state["land_sea_mask"].dims == ("latitude", "longitude")
    assert state["geopotential"].attrs == {"units": "m2 s-2"}
    assert list(state["time"].values) == list(STATE["time"].values)


def test_levels_are_put_in_the_models_order_and_extras_are_left_out() -> None:
    shuffled = [frame.isel(level=[2, 0, 3, 1]).assign(extra=1.0) for frame in FRAMES]
    np.testing.assert_array_equal(assembled(shuffled)["temperature"].values, STATE["temperature"].values)
    assert "extra" not in assembled(shuffled)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (FRAMES[::-1], r"expected a frame of valid time 2026-01-01T18, got 2026-01-02T00: stale"),
        ([FRAMES[0], FRAMES[0]], r"expected a frame of valid time 2026-01-02T00, got 2026-01-01T18: stale"),
        ([FRAMES[0], FRAMES[1].drop_vars("temperature")], "missing temperature"),
        ([FRAMES[0], FRAMES[1].isel(level=[0, 1])], r"missing \[850, 1000\]"),
        ([FRAMES[0], FRAMES[1].isel(latitude=slice(None, None, -1))], "descending"),
        ([FRAMES[0]], "expected 2 frames, got 1"),
        ([FRAMES[0], FRAMES[1].drop_vars("time")], "time coordinate"),
    ],
)
def test_frames_that_do_not_fit_are_refused(frames: list[xr.Dataset], message: str) -> None:
    with pytest.raises(InvalidFieldError, match=message):
        assembled(frames)


def test_a_sea_without_gaps_loses_what_lies_on_land() -> None:
    filled = [
        frame.assign(sea_surface_temperature=frame["sea_surface_temperature"].fillna(273.15))
        for frame in FRAMES
    ]
    missing = np.isnan(assembled(filled)["sea_surface_temperature"].values)
    np.testing.assert_array_equal(missing[0], STATICS["land_sea_mask"].values > 0.5)
    np.testing.assert_array_equal(missing[0], missing[1])


def test_the_proxy_is_skin_temperature_over_water_and_269_9_under_ice() -> None:
    dims = ("latitude", "longitude")
    skin = xr.DataArray(np.array([[300.0, 285.0, 250.0, 271.0, 270.5]], np.float32), dims=dims)
    land = xr.DataArray(np.array([[0.0, 1.0, 0.0, 0.2, 0.0]], np.float32), dims=dims)
    # 271.35 K is where sea water freezes: colder skin is ice.
    expected = [300.0, np.nan, 269.9, 269.9, 269.9]
    np.testing.assert_allclose(skin_temperature_proxy(skin, land).values[0], expected, rtol=1e-6)
    ice = xr.DataArray(np.array([[0.9, 0.0, 1.0, 0.1, np.nan]], np.float32), dims=dims)
    expected = [269.9, np.nan, 269.9, 271.0, 270.5]
    np.testing.assert_allclose(skin_temperature_proxy(skin, land, ice).values[0], expected, rtol=1e-6)


def test_what_was_stored_is_read_with_its_provenance(store: ObjectStore) -> None:
    key = store_initial_condition(store, CYCLE, assembled(), RECIPE, {"kind": "era5", "source": "s"})
    assert key == layout.initial_condition(CYCLE)
    state = load_initial_condition(store, CYCLE)
    xr.testing.assert_equal(state, assembled())
    assert json.loads(state.attrs["provenance"]) == {"kind": "era5", "source": "s"}
    assert stored_recipe(store, CYCLE) == RECIPE.fingerprint


def test_the_recipe_changes_with_everything_that_decides_a_value() -> None:
    others = [
        {"levels": (500,)}, {"step_hours": 12.0}, {"resolution": 1.0}, {"source": "x"}, {"kind": "hres"},
        {"sea_surface_temperature": "era5t"}, {"regridding": "linear"}, {"variables": ("temperature",)},
        {"statics": ()},
    ]  # fmt: skip
    fingerprints = {dataclasses.replace(RECIPE, **other).fingerprint for other in others}
    assert len(fingerprints | {RECIPE.fingerprint}) == len(others) + 1


def test_what_was_never_completed_is_never_read(store: ObjectStore) -> None:
    store_initial_condition(store, CYCLE, assembled(), RECIPE, {})
    mark = f"{layout.initial_condition(CYCLE)}.json"
    content = store.read(mark)
    store.delete(mark)
    assert stored_recipe(store, CYCLE) is None
    with pytest.raises(StoreError, match=r"synthetic/20260102T00Z: no complete initial condition"):
        load_initial_condition(store, CYCLE)
    store.write(mark, content)
    chunk = next(k for k in store.list(f"{layout.initial_condition(CYCLE)}/temperature/") if "/c/" in k)
    store.delete(chunk)
    with pytest.raises(StoreError, match="sha256"):
        load_initial_condition(store, CYCLE)


def test_an_attempt_that_breaks_off_leaves_nothing_to_read(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_initial_condition(store, CYCLE, assembled(), RECIPE, {})

    def full(self: ObjectStore, key: str, data: bytes) -> str:
        raise StoreError("disk full")

    monkeypatch.setattr(ObjectStore, "write", full)
    with pytest.raises(StoreError, match="disk full"):
        store_initial_condition(store, CYCLE, assembled(), RECIPE, {})
    assert stored_recipe(store, CYCLE) is None


def test_quarantine_takes_it_out_of_use_and_keeps_it_with_the_reason(store: ObjectStore) -> None:
    key = store_initial_condition(store, CYCLE, assembled(), RECIPE, {})
    before = {name.removeprefix(f"{key}/"): store.read(name) for name in store.list(f"{key}/")}
    written = quarantine_initial_condition(store, CYCLE, reason="too cold", report="{}")
    assert "too cold" in store.read(written).decode()
    assert stored_recipe(store, CYCLE) is None
    assert list(store.list(f"{key}/")) == []
    prefix = layout.quarantine(CYCLE, "initial-condition/fields.zarr/")
    assert {name.removeprefix(prefix): store.read(name) for name in store.list(prefix)} == before
