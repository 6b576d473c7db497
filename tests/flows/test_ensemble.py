"""The controller in one process: any division gives the same ensemble, and only a whole one is admitted."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from flows import ensemble
from flows.ensemble import EnsembleResult, forecast_ensemble
from infra import layout
from infra.analyses import write_analysis
from infra.errors import IncompleteCycleError, StoreError, TransientSourceError
from infra.forecast_store import chunk_key, open_forecast
from infra.object_store import ObjectStore
from infra.settings import ModelSettings, Settings, StoreSettings
from model.cycle import Cycle
from tests.fakes.pass_through import initial_condition

CYCLE = Cycle(model="pass-through", init_time=datetime(2026, 1, 1, tzinfo=UTC))


def configure(root: Path, **changes: Any) -> Settings:
    model = {
        "checkpoint": "pass-through",
        "statistics": "none",
        "loader": "tests.fakes.pass_through:load",
        "trained_on": "nature-run",
        "source": "none",
        "members": 6,
        "steps": 4,
        "block_size": 2,
        "checkpoint_every": 2,
    }
    return Settings(
        store=StoreSettings(root=str(root)), models={"pass-through": ModelSettings(**{**model, **changes})}
    )


def store_initial_condition(store: ObjectStore, seed: int = 0) -> None:
    condition = initial_condition(CYCLE.init_time, seed=seed)
    write_analysis(store, layout.initial_condition(CYCLE), condition)


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    store = ObjectStore(root=str(tmp_path))
    store_initial_condition(store)
    return store


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    raised: list[str] = []
    monkeypatch.setattr(ensemble, "raise_event", lambda event, cycle, **_: raised.append(event))
    return raised


def bits(store: ObjectStore, result: EnsembleResult, members: int = 6) -> np.ndarray:
    forecast: xr.Dataset = open_forecast(store, result.forecast_store, members=range(members))
    return forecast["temperature"].values.view(np.uint32)


def test_any_block_size_and_a_larger_ensemble_give_the_same_members(tmp_path: Path) -> None:
    found = []
    for folder, changes in enumerate([{"block_size": n} for n in (1, 2, 3, 6)] + [{"members": 12}]):
        store = ObjectStore(root=str(tmp_path / str(folder)))
        store_initial_condition(store)
        result = forecast_ensemble(CYCLE, configure(tmp_path / str(folder), **changes))
        assert result.members == tuple(range(changes.get("members", 6)))
        found.append((result.run, bits(store, result)))
    first_run, first = found[0]
    assert not np.isnan(first.view(np.float32)).any()
    for run, values in found[1:]:
        assert run == first_run
        np.testing.assert_array_equal(values, first)


def test_what_is_complete_is_not_computed_again(store: ObjectStore, tmp_path: Path) -> None:
    computed: list[int] = []
    settings = configure(tmp_path)
    forecast_ensemble(CYCLE, settings, progress=lambda p: computed.append(p.member))
    assert len(computed) == 6 * 4
    forecast_ensemble(CYCLE, settings, members=7, progress=lambda p: computed.append(p.member))
    assert computed[24:] == [6] * 4


def test_a_chunk_damaged_after_it_was_written_is_made_whole(store: ObjectStore, tmp_path: Path) -> None:
    settings = configure(tmp_path)
    result = forecast_ensemble(CYCLE, settings)
    before = bits(store, result)
    key = f"{result.forecast_store}/{chunk_key('temperature', 3, 2, column=True)}"
    store.write(key, store.read(key)[::-1])
    computed: list[tuple[int, int]] = []
    forecast_ensemble(CYCLE, settings, progress=lambda p: computed.append((p.member, p.step)))
    assert computed == [(3, 3)], "from the checkpoint at step 2, that step alone"
    np.testing.assert_array_equal(bits(store, result), before)


@pytest.mark.parametrize(
    "changes", [{"seed": 1}, {"rng": "reference"}, {"precision": "float32"}, {"checkpoint": "x?seed=7"}]
)
def test_whatever_decides_a_value_makes_another_run(
    store: ObjectStore, tmp_path: Path, changes: dict[str, Any]
) -> None:
    one = forecast_ensemble(CYCLE, configure(tmp_path, members=1, steps=1))
    other = forecast_ensemble(CYCLE, configure(tmp_path, members=1, steps=1, **changes))
    assert one.run != other.run


def test_other_initial_conditions_make_another_run(store: ObjectStore, tmp_path: Path) -> None:
    one = forecast_ensemble(CYCLE, configure(tmp_path, members=1, steps=1))
    store_initial_condition(store, seed=1)
    assert forecast_ensemble(CYCLE, configure(tmp_path, members=1, steps=1)).run != one.run


def test_without_initial_conditions_nothing_starts(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="initial condition"):
        forecast_ensemble(CYCLE, configure(tmp_path))


@pytest.fixture
def _member_3_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ensemble.run_block

    def run_block(cycle: Cycle, **arguments: Any) -> Any:
        if 3 in arguments["members"]:
            raise TransientSourceError("503 SlowDown")
        return whole(cycle, **arguments)

    monkeypatch.setattr(ensemble, "run_block", run_block)


@pytest.mark.usefixtures("_member_3_fails")
def test_a_partial_ensemble_is_admitted_where_the_policy_allows_it(
    store: ObjectStore, tmp_path: Path, events: list[str]
) -> None:
    result = forecast_ensemble(CYCLE, configure(tmp_path, require=4))
    assert result.members == (0, 1, 4, 5)
    assert result.missing == {2: "503 SlowDown", 3: "503 SlowDown"}
    manifest = json.loads(store.read(layout.ensemble_manifest(CYCLE, result.run)))
    assert manifest["members"] == [0, 1, 4, 5]
    assert manifest["missing"]["3"] == "503 SlowDown"
    assert events == []


@pytest.mark.usefixtures("_member_3_fails")
def test_too_few_members_raise_an_event(store: ObjectStore, tmp_path: Path, events: list[str]) -> None:
    with pytest.raises(IncompleteCycleError, match="at least 5 of 6 members, 4 are whole"):
        forecast_ensemble(CYCLE, configure(tmp_path, require=5))
    assert events == ["incomplete"]
