"""Members are computed once each, resume where they stopped, and never differ by a bit."""

from __future__ import annotations

import errno
import json
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from infra import layout
from infra.background_writer import Backoff
from infra.errors import CheckpointMismatchError, StoreError, TransientSourceError, UnknownOptionError
from infra.forecast_store import chunk_key, create_forecast_store, open_forecast, verify_member
from infra.manifests import RunDescription, load_member_manifest
from infra.object_store import ObjectStore
from model.cycle import Cycle
from model.rollout.rng import base_key, member_key
from model.rollout.state import RolloutState
from tasks.rollout import BlockRollout, MemberParameters, RolloutOptions, RolloutProgress
from tests.fakes.pass_through import TASK, PassThroughForecaster, initial_condition

CYCLE = Cycle(model="pass-through", init_time=datetime(2026, 1, 1, tzinfo=UTC))
CONDITION = initial_condition(CYCLE.init_time)
STATICS = CONDITION[list(TASK.statics)]
NO_WAIT = Backoff(attempts=3, first_seconds=0.0)


def describe(forecaster: PassThroughForecaster, **changes: Any) -> RunDescription:
    return RunDescription(
        **{
            "cycle": CYCLE,
            "model_sha256": forecaster.sha256,
            "statistics_sha256": "",
            "initial_condition": layout.initial_condition(CYCLE),
            "initial_condition_sha256": "0" * 64,
            "seed": 0,
            "rng": "operational",
            "precision": "float32",
            "attention": "auto",
            "code_version": "0",
            "compiler_version": "0",
            **changes,
        }
    )


def start(forecaster: PassThroughForecaster, member: int) -> RolloutState:
    key = member_key(base_key(0, CYCLE.init_time), member)
    return forecaster.initial_state(CONDITION, init_time=CYCLE.init_time, member=member, key=key)


def compute(
    store: ObjectStore,
    members: Sequence[int],
    *,
    steps: int = 6,
    forecasters: Sequence[PassThroughForecaster] | None = None,
    progress: Callable[[RolloutProgress], None] | None = None,
    parameters: MemberParameters | None = None,
    **options: Any,
) -> PassThroughForecaster:
    """Lay out the store and compute; returns the (first) forecaster, which remembers its steps."""
    forecasters = forecasters or [PassThroughForecaster()]
    description = describe(forecasters[0])
    create_forecast_store(
        store,
        layout.forecast_store(CYCLE, description.run),
        task=TASK,
        grid=forecasters[0].grid,
        init_time=CYCLE.init_time,
        members=max(members) + 1,
        steps=steps,
    )
    BlockRollout(
        forecasters=forecasters,
        store=store,
        description=description,
        members=members,
        steps=steps,
        initial_state=start,
        statics=STATICS,
        options=RolloutOptions(**{"checkpoint_every": 2, "backoff": NO_WAIT, **options}),
        progress=progress,
        parameters=parameters,
    ).run()
    return forecasters[0]


RUN = describe(PassThroughForecaster()).run
FORECAST = layout.forecast_store(CYCLE, RUN)


def values(store: ObjectStore, members: Sequence[int], steps: int = 6) -> xr.Dataset:
    return open_forecast(store, FORECAST, members=members).isel(lead_time=slice(0, steps)).load()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    """Six members, six steps, straight from the model without anything around it."""
    forecaster = PassThroughForecaster()
    members = []
    for member in range(6):
        state, fields = start(forecaster, member), []
        for _ in range(6):
            [(state, step)] = forecaster.advance([state], STATICS)
            fields.append(step)
        members.append(xr.concat(fields, "lead_time"))
    return xr.concat(members, "member")


def assert_identical(got: xr.Dataset, expected: xr.Dataset) -> None:
    for name in TASK.target_variables:
        np.testing.assert_array_equal(
            got[name].values.view(np.uint32), expected[name].transpose(*got[name].dims).values.view(np.uint32)
        )


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(root=str(tmp_path / "store"))


@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_any_division_into_blocks_gives_the_same_values(
    store: ObjectStore, undisturbed: xr.Dataset, size: int
) -> None:
    for first in range(0, 6, size):
        compute(store, range(first, first + size))
    assert_identical(values(store, range(6)), undisturbed)


def test_members_of_a_larger_ensemble_are_the_same(store: ObjectStore, undisturbed: xr.Dataset) -> None:
    compute(store, range(12))
    assert_identical(values(store, range(6)), undisturbed)


@pytest.mark.parametrize("together", [2, 4])
def test_several_members_per_program_and_several_devices(
    store: ObjectStore, undisturbed: xr.Dataset, together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Device:
        platform, id, device_kind = "cpu", 0, "forced"

        def memory_stats(self) -> None:
            return None

    monkeypatch.setattr("tasks.rollout.local_devices", lambda: (Device(), Device()))
    forecasters = [PassThroughForecaster(), PassThroughForecaster()]
    compute(store, range(6), forecasters=forecasters, members_per_program=together)
    assert_identical(values(store, range(6)), undisturbed)
    done = [step for forecaster in forecasters for step in forecaster.advanced]
    assert sorted(done) == [(member, step) for member in range(6) for step in range(6)]


def test_a_complete_member_is_verified_against_its_manifest(store: ObjectStore) -> None:
    compute(store, [0])
    manifest = load_member_manifest(store, CYCLE, RUN, 0)
    assert manifest is not None
    assert manifest.started_at_steps == (0,)
    assert len(manifest.chunks) == 6 * 2
    verify_member(store, FORECAST, TASK, member=0, steps=6, checksums=manifest.chunks)


def test_a_complete_member_is_not_computed_again(store: ObjectStore) -> None:
    compute(store, [0])
    assert compute(store, [0]).advanced == []


def test_a_longer_forecast_continues_the_shorter(store: ObjectStore, undisturbed: xr.Dataset) -> None:
    compute(store, [0, 1], steps=3)
    assert min(step for _, step in compute(store, [0, 1]).advanced) == 3
    assert_identical(values(store, [0, 1]), undisturbed.isel(member=[0, 1]))


def test_an_extension_that_was_interrupted_goes_on_from_its_own_checkpoint(
    store: ObjectStore, tmp_path: Path
) -> None:
    compute(store, [0], steps=4)
    with pytest.raises(RuntimeError, match="the device is gone"):
        compute(store, [0], steps=20, forecasters=[Dies((0, 13))])
    stored = [int(key[-9:-4]) for key in store.list(layout.rollout_checkpoints(CYCLE, RUN, 0))]
    assert max(stored) > 4
    resumed = compute(store, [0], steps=20)
    assert resumed.advanced[0] == (0, max(stored))
    whole = ObjectStore(root=str(tmp_path / "whole"))
    compute(whole, [0], steps=20)
    assert_identical(values(store, [0], 20), values(whole, [0], 20))
    manifest = load_member_manifest(store, CYCLE, RUN, 0)
    assert manifest is not None
    assert manifest.started_at_steps == (0, 4, max(stored))
    verify_member(store, FORECAST, TASK, member=0, steps=20, checksums=manifest.chunks)


class Dies(PassThroughForecaster):
    """Raises in place of one step."""

    def __init__(self, at: tuple[int, int]) -> None:
        super().__init__()
        self._at = at

    def advance(self, states: Sequence[RolloutState], statics: xr.Dataset) -> Any:
        if any((state.member, state.step) == self._at for state in states):
            raise RuntimeError("the device is gone")
        return super().advance(states, statics)


@pytest.mark.parametrize("step", range(6))
def test_a_member_resumes_from_its_newest_checkpoint(
    store: ObjectStore, undisturbed: xr.Dataset, step: int
) -> None:
    with pytest.raises(RuntimeError, match="the device is gone"):
        compute(store, [0, 1], forecasters=[Dies((1, step))])
    assert load_member_manifest(store, CYCLE, RUN, 1) is None
    resumed = compute(store, [0, 1])
    own = [s for member, s in resumed.advanced if member == 1]
    checkpoints = [0] if step < 2 else [step - step % 2, step - step % 2 - 2]
    assert own[0] in checkpoints, "what was queued when the device died may or may not have been written"
    assert_identical(values(store, [0, 1]), undisturbed.isel(member=[0, 1]))


def test_a_damaged_chunk_is_computed_again_from_the_checkpoint_before_it(
    store: ObjectStore, undisturbed: xr.Dataset
) -> None:
    compute(store, [0], anchor_every=2)
    before = load_member_manifest(store, CYCLE, RUN, 0)
    damaged = f"{FORECAST}/{chunk_key('temperature', 0, 3, column=True)}"
    store.write(damaged, store.read(damaged)[:-3])
    again = compute(store, [0], anchor_every=2)
    assert again.advanced == [(0, 2), (0, 3)]
    assert_identical(values(store, [0]), undisturbed.isel(member=[0]))
    after = load_member_manifest(store, CYCLE, RUN, 0)
    assert before is not None
    assert after is not None
    assert after.chunks == before.chunks


def test_a_model_other_than_the_runs_is_refused(store: ObjectStore) -> None:
    with pytest.raises(CheckpointMismatchError, match="planned with model"):
        BlockRollout(
            forecasters=[PassThroughForecaster(seed=1)],
            store=store,
            description=describe(PassThroughForecaster()),
            members=[0],
            steps=1,
            initial_state=start,
            statics=STATICS,
        )


class Unwell(ObjectStore):
    """A store whose writes of chunks fail a number of times, each in the same way."""

    failures: list[Exception] = []  # noqa: RUF012

    def write(self, key: str, data: bytes) -> str:
        if "/c/0/4/" in key and self.failures:
            raise self.failures.pop()
        return super().write(key, data)


def test_a_store_that_answers_503_for_a_while_only_delays(tmp_path: Path, undisturbed: xr.Dataset) -> None:
    store = Unwell(root=str(tmp_path))
    Unwell.failures = [TransientSourceError("503 SlowDown")] * 2
    forecaster = compute(store, [0])
    assert len(forecaster.advanced) == 6
    assert_identical(values(store, [0]), undisturbed.isel(member=[0]))


@pytest.mark.parametrize("error", [TransientSourceError("no space left on device"), StoreError("forbidden")])
def test_a_store_that_stays_broken_leaves_no_mark_of_completion(
    tmp_path: Path, undisturbed: xr.Dataset, error: Exception
) -> None:
    store = Unwell(root=str(tmp_path))
    Unwell.failures = [error] * 100
    with pytest.raises(type(error)):
        compute(store, [0])
    Unwell.failures = []
    assert load_member_manifest(store, CYCLE, RUN, 0) is None
    stored = [int(key[-9:-4]) for key in store.list(layout.rollout_checkpoints(CYCLE, RUN, 0))]
    assert max(stored) <= 4, "no checkpoint stands after a chunk that was not written"
    assert compute(store, [0]).advanced[0] == (0, max(stored))
    assert_identical(values(store, [0]), undisturbed.isel(member=[0]))


class Remembers(PassThroughForecaster):
    """Counts how many of the steps that it gave away are still held by somebody."""

    def __init__(self) -> None:
        super().__init__()
        self._given: list[weakref.ref[Any]] = []
        self.most_held = 0

    def advance(self, states: Sequence[RolloutState], statics: xr.Dataset) -> Any:
        results = super().advance(states, statics)
        self._given += [weakref.ref(fields) for _, fields in results]
        self.most_held = max(self.most_held, sum(given() is not None for given in self._given))
        return results


class Full(ObjectStore):
    """A disk on which nothing more can be written from some step on."""

    def _write_temporary(self, key: str, data: bytes) -> Path:
        if "/c/0/3/" in key and self.options["full"]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super()._write_temporary(key, data)


def test_a_full_disk_fails_without_a_mark_of_completion_and_is_cured_by_space(
    tmp_path: Path, undisturbed: xr.Dataset
) -> None:
    options = {"full": True}
    store = Full(root=str(tmp_path), options=options)
    object.__setattr__(store, "_resolved", ObjectStore(root=str(tmp_path))._resolved)
    with pytest.raises(TransientSourceError, match="No space left on device"):
        compute(store, [0])
    assert load_member_manifest(store, CYCLE, RUN, 0) is None
    options["full"] = False
    assert compute(store, [0]).advanced[0] == (0, 2)
    assert_identical(values(store, [0]), undisturbed.isel(member=[0]))


def test_no_more_steps_are_held_than_may_wait(store: ObjectStore) -> None:
    forecaster = Remembers()
    compute(store, [0], steps=40, forecasters=[forecaster], queue_depth=2)
    # Two wait, one is being written, one was just computed, and the loop still names the one before it.
    assert 1 <= forecaster.most_held <= 5


def test_progress_tells_steps_members_and_memory(store: ObjectStore) -> None:
    seen: list[RolloutProgress] = []
    compute(store, [0, 1], progress=seen.append)
    assert [(p.member, p.step) for p in seen] == [(m, s) for m in (0, 1) for s in range(1, 7)]
    assert seen[-1].computed_steps == 12
    assert seen[-1].memory.peak_host_bytes >= seen[-1].memory.host_bytes > 0
    assert seen[-1].device.startswith("cpu:0")


def test_the_manifest_is_json_of_a_known_format(store: ObjectStore) -> None:
    compute(store, [0])
    key = layout.member_manifest(CYCLE, RUN, 0)
    document = json.loads(store.read(key))
    assert document["format"] == 1
    store.write(key, json.dumps({**document, "format": 2}).encode())
    with pytest.raises(StoreError, match="format 1"):
        load_member_manifest(store, CYCLE, RUN, 0)


def own_parameters(member: int) -> dict[str, dict[str, np.ndarray]]:
    return {"mix": {"w": np.full(8, member, np.float32)}}


@pytest.mark.parametrize("blocks", [[range(4)], [[3, 0], [2, 1]]])
def test_members_with_parameters_of_their_own_keep_them_whatever_the_block(
    store: ObjectStore, blocks: list[Sequence[int]]
) -> None:
    for members in blocks:
        compute(store, members, steps=3, parameters=own_parameters)
    for member in range(4):
        alone = PassThroughForecaster()
        alone.use_parameters(own_parameters(member))
        state, fields = start(alone, member), []
        for _ in range(3):
            [(state, step)] = alone.advance([state], STATICS)
            fields.append(step)
        expected = xr.concat(fields, "lead_time").expand_dims("member")
        assert_identical(values(store, [member], 3), expected)


def test_parameters_of_ones_own_are_kept_over_a_resumption(store: ObjectStore, tmp_path: Path) -> None:
    whole = ObjectStore(root=str(tmp_path / "whole"))
    compute(whole, [1, 2], parameters=own_parameters)
    with pytest.raises(RuntimeError, match="the device is gone"):
        compute(store, [1, 2], forecasters=[Dies((2, 5))], parameters=own_parameters)
    compute(store, [1, 2], parameters=own_parameters)
    assert_identical(values(store, [1, 2]), values(whole, [1, 2]))


def test_members_of_one_program_cannot_have_parameters_of_their_own(store: ObjectStore) -> None:
    with pytest.raises(UnknownOptionError, match="expected members_per_program=1, got 2"):
        compute(store, [0], parameters=own_parameters, members_per_program=2)


class Waits(PassThroughForecaster):
    """Does not finish member 0's last step before another member's initial state was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = threading.Event()
        self.asked_in_time: bool | None = None
        self.asked_by: dict[int, str] = {}

    def initial_state(self, condition: xr.Dataset, **arguments: Any) -> RolloutState:
        self.asked_by[arguments["member"]] = threading.current_thread().name
        if arguments["member"] > 0:
            self.asked.set()
        return super().initial_state(condition, **arguments)

    def advance(self, states: Sequence[RolloutState], statics: xr.Dataset) -> Any:
        if states[0].member == 0 and states[0].step == 5:
            self.asked_in_time = self.asked.wait(60)
        return super().advance(states, statics)


def test_the_next_member_is_prepared_while_the_device_works(store: ObjectStore) -> None:
    forecaster = Waits()
    compute(store, [0, 1, 2], forecasters=[forecaster])
    assert forecaster.asked_in_time, "member 1 was not prepared before member 0 was done"
    assert forecaster.asked_by[1].startswith("prepare")
    assert forecaster.asked_by[2].startswith("prepare")


def test_nothing_is_computed_while_a_block_is_prepared(store: ObjectStore) -> None:
    forecaster = PassThroughForecaster()
    description = describe(forecaster)
    create_forecast_store(
        store, FORECAST, task=TASK, grid=forecaster.grid, init_time=CYCLE.init_time, members=2, steps=2
    )
    asked: list[int] = []

    def initial_state(forecaster: Any, member: int) -> RolloutState:
        asked.append(member)
        return start(forecaster, member)

    block = BlockRollout(
        forecasters=[forecaster],
        store=store,
        description=description,
        members=[0, 1],
        steps=2,
        initial_state=initial_state,
        statics=STATICS,
    )
    block.prepare()
    assert (asked, forecaster.advanced) == ([0], []), "no more than the first member's state is held"
    assert [manifest.member for manifest in block.run()] == [0, 1]
    assert asked == [0, 1]


def test_a_change_of_options_within_a_member_is_recorded(
    store: ObjectStore, caplog: pytest.LogCaptureFixture
) -> None:
    first = Dies((0, 5))
    with pytest.raises(RuntimeError, match="the device is gone"):
        compute(store, [0], forecasters=[first])
    second = PassThroughForecaster()
    second.options = {**first.options, "precision": "bfloat16"}
    compute(store, [0], forecasters=[second])
    manifest = load_member_manifest(store, CYCLE, RUN, 0)
    assert manifest is not None
    assert manifest.contributors == (first.options, second.options)
    assert manifest.options == second.options
    assert "member 0 goes on at step" in caplog.text


def test_the_same_options_are_no_change(store: ObjectStore, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(RuntimeError, match="the device is gone"):
        compute(store, [0], forecasters=[Dies((0, 5))])
    compute(store, [0])
    manifest = load_member_manifest(store, CYCLE, RUN, 0)
    assert manifest is not None
    assert len(manifest.contributors) == 2
    assert "goes on at step" not in caplog.text
