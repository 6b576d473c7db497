"""The controller in one process: any division gives the same ensemble, and only a whole one is admitted."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
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
from model.rollout.state import RolloutState
from tests.fakes import pass_through
from tests.fakes.pass_through import PassThroughForecaster, initial_condition

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


def test_progress_tells_of_the_blocks_that_were_found_whole(store: ObjectStore, tmp_path: Path) -> None:
    found: list[tuple[int, ...]] = []
    settings = configure(tmp_path)
    forecast_ensemble(CYCLE, settings, members=4, progress=lambda latest: found.append(latest.found_whole))
    assert set(found) == {()}
    found.clear()
    result = forecast_ensemble(CYCLE, settings, progress=lambda latest: found.append(latest.found_whole))
    assert set(found) == {(0, 1, 2, 3)}
    found.clear()
    key = f"{result.forecast_store}/{chunk_key('temperature', 3, 2, column=True)}"
    store.write(key, store.read(key)[::-1])
    forecast_ensemble(CYCLE, settings, progress=lambda latest: found.append(latest.found_whole))
    assert found == [(0, 1, 2, 4, 5)], "the repair of member 3"


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
    whole = ensemble.prepare_block

    def prepare_block(cycle: Cycle, **arguments: Any) -> Any:
        if 3 in arguments["members"]:
            raise TransientSourceError("503 SlowDown")
        return whole(cycle, **arguments)

    monkeypatch.setattr(ensemble, "prepare_block", prepare_block)


@pytest.mark.usefixtures("_member_3_fails")
def test_a_partial_ensemble_is_admitted_where_the_policy_allows_it(
    store: ObjectStore, tmp_path: Path, events: list[str]
) -> None:
    result = forecast_ensemble(CYCLE, configure(tmp_path, require=4))
    assert result.members == (0, 1, 4, 5)
    assert result.missing == dict.fromkeys((2, 3), "TransientSourceError: 503 SlowDown")
    manifest = json.loads(store.read(layout.ensemble_manifest(CYCLE, result.run)))
    assert manifest["members"] == [0, 1, 4, 5]
    assert manifest["missing"]["3"] == "TransientSourceError: 503 SlowDown"
    assert events == []


@pytest.mark.usefixtures("_member_3_fails")
def test_too_few_members_raise_an_event(store: ObjectStore, tmp_path: Path, events: list[str]) -> None:
    with pytest.raises(IncompleteCycleError, match="at least 5 of 6 members, 4 are whole"):
        forecast_ensemble(CYCLE, configure(tmp_path, require=5))
    assert events == ["incomplete"]


class Waits(PassThroughForecaster):
    """Does not finish its first block's last step before the second block's first member was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = threading.Event()
        self.asked_in_time = False

    def initial_state(self, condition: xr.Dataset, **arguments: Any) -> RolloutState:
        if arguments["member"] == 2:
            self.asked.set()
        return super().initial_state(condition, **arguments)

    def advance(self, states: Sequence[RolloutState], statics: xr.Dataset) -> Any:
        if (states[0].member, states[0].step) == (1, 3):
            self.asked_in_time = self.asked.wait(60)
        return super().advance(states, statics)


def test_the_next_block_is_prepared_while_the_device_works(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forecaster = Waits()
    monkeypatch.setattr(pass_through, "load", lambda settings, device: forecaster)
    forecast_ensemble(CYCLE, configure(tmp_path))
    assert forecaster.asked_in_time
    assert forecaster.advanced == [(member, step) for member in range(6) for step in range(4)]


def test_weight_noise_gives_each_member_the_same_parameters_in_any_ensemble(tmp_path: Path) -> None:
    found = []
    noise = {"kind": "weights", "amplitude": 0.1}
    for folder, changes in enumerate([{"block_size": 1}, {"block_size": 3, "members": 9}, {"seed": 1}]):
        store = ObjectStore(root=str(tmp_path / str(folder)))
        store_initial_condition(store)
        result = forecast_ensemble(CYCLE, configure(tmp_path / str(folder), perturbation=noise, **changes))
        manifest = json.loads(store.read(layout.ensemble_manifest(CYCLE, result.run)))
        assert (manifest["perturbation"]["kind"], manifest["perturbation"]["amplitude"]) == ("weights", 0.1)
        found.append(bits(store, result))
    np.testing.assert_array_equal(found[0], found[1])
    plain_store = ObjectStore(root=str(tmp_path / "plain"))
    store_initial_condition(plain_store)
    plain = bits(plain_store, forecast_ensemble(CYCLE, configure(tmp_path / "plain")))
    np.testing.assert_array_equal(found[0][0], plain[0], "the control has the published parameters")
    for member in range(1, 6):
        assert not np.array_equal(found[0][member], plain[member])
        assert not np.array_equal(found[0][member], found[2][member])


@pytest.mark.usefixtures("_member_3_fails")
def test_without_a_policy_for_partial_ensembles_the_first_failure_ends_the_run_with_an_event(
    store: ObjectStore, tmp_path: Path, events: list[str]
) -> None:
    with pytest.raises(TransientSourceError, match="503 SlowDown"):
        forecast_ensemble(CYCLE, configure(tmp_path))
    assert events == ["incomplete"]


class RunsOutOfMemory(PassThroughForecaster):
    """What the runtime raises is none of our errors."""

    def advance(self, states: Sequence[RolloutState], statics: xr.Dataset) -> Any:
        if states[0].member == 3:
            raise RuntimeError("RESOURCE_EXHAUSTED: out of memory")
        return super().advance(states, statics)


def test_a_failure_of_the_device_counts_as_a_failed_block(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forecaster = RunsOutOfMemory()
    monkeypatch.setattr(pass_through, "load", lambda settings, device: forecaster)
    result = forecast_ensemble(CYCLE, configure(tmp_path, require=4))
    assert {0, 1, 4, 5} <= set(result.members) <= {0, 1, 2, 4, 5}, "member 2 may have been done already"
    assert "RESOURCE_EXHAUSTED" in result.missing[3]
