"""Rollout checkpoints: exact, without pickle, and refused or passed over when they are not what they should be."""

from __future__ import annotations

import io
import json
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from infra import layout
from infra.errors import CheckpointMismatchError
from infra.object_store import ObjectStore
from infra.rollout_checkpoints import (
    DamagedCheckpointError,
    RolloutCheckpoint,
    decode,
    encode,
    load_newest,
    prune,
    save,
)
from model.cycle import Cycle
from model.rollout.state import RolloutState
from tests.fakes.pass_through import TASK, initial_condition

CYCLE = Cycle(model="pass-through", init_time=datetime(2026, 1, 1, tzinfo=UTC))
RUN, FINGERPRINT, MEMBER = "0123456789ab", "0123456789ab" + "0" * 52, 3


def checkpoint(step: int = 4, *, member: int = MEMBER, seed: int = 0) -> RolloutCheckpoint:
    frames = initial_condition(CYCLE.init_time, seed=seed)[list(TASK.time_inputs)]
    frames["2m_temperature"][0, 0, 0] = np.nan
    state = RolloutState(
        member=member,
        init_time=CYCLE.init_time,
        step=step,
        key=np.array([0xFFFFFFFF, 7], dtype=np.uint32),
        frames=frames,
    )
    return RolloutCheckpoint(state=state, chunks={"temperature/c/3/0/0/0/0": "ab"}, started_at_steps=(0, 2))


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(root=str(tmp_path))


def put(store: ObjectStore, *steps: int) -> list[str]:
    return [save(store, CYCLE, checkpoint(step), run=RUN, fingerprint=FINGERPRINT) for step in steps]


def newest(store: ObjectStore, **changes: Any) -> RolloutCheckpoint | None:
    where = {"run": RUN, "member": MEMBER, "fingerprint": FINGERPRINT, **changes}
    return load_newest(store, CYCLE, **where)


def test_a_checkpoint_comes_back_bit_for_bit(store: ObjectStore) -> None:
    put(store, 4)
    got, expected = newest(store), checkpoint()
    assert got is not None
    assert got.state.frames.identical(expected.state.frames)
    assert got.state.frames["2m_temperature"].dtype == np.float32
    np.testing.assert_array_equal(got.state.key, expected.state.key)
    assert (got.state.member, got.state.step, got.state.init_time) == (MEMBER, 4, CYCLE.init_time)
    assert got.chunks == expected.chunks
    assert got.started_at_steps == (0, 2)


def test_without_checkpoints_there_is_none(store: ObjectStore) -> None:
    assert newest(store) is None


def test_the_newest_is_taken_or_the_newest_not_beyond_a_step(store: ObjectStore) -> None:
    put(store, 2, 10, 6)
    for at_most, expected in ((None, 10), (9, 6), (6, 6), (5, 2)):
        found = newest(store, at_most=at_most)
        assert found is not None
        assert found.state.step == expected
    assert newest(store, at_most=1) is None


@given(at=st.integers(min_value=0), change=st.integers(min_value=1, max_value=255))
@hypothesis_settings(max_examples=60, deadline=None)
def test_no_single_changed_byte_goes_unnoticed(at: int, change: int) -> None:
    data = bytearray(encode(checkpoint(), fingerprint=FINGERPRINT))
    at %= len(data)
    data[at] ^= change
    try:
        got, fingerprint = decode(bytes(data))
    except DamagedCheckpointError:
        return
    # A byte of the archive's own padding or dates may change without touching what it holds.
    assert fingerprint == FINGERPRINT
    assert got.state.frames.identical(checkpoint().state.frames)
    assert got.chunks == checkpoint().chunks


@pytest.mark.parametrize(
    "damage", ["empty", "truncated", "text", "foreign archive", "future format", "pickle"]
)
def test_what_cannot_be_used_is_passed_over_with_a_message(
    store: ObjectStore, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    _, key = put(store, 2, 4)
    data = store.read(key)
    buffer = io.BytesIO()
    if damage == "foreign archive":
        np.savez(buffer, something=np.zeros(3))
    elif damage == "pickle":
        np.savez(buffer, header=np.array([object()], dtype=object), checksum=np.zeros(1))
    elif damage == "future format":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            text = np.load(io.BytesIO(archive.read("header.npy"))).tobytes()
        header = {**json.loads(text), "format": 2}
        np.savez(
            buffer,
            header=np.frombuffer(json.dumps(header).encode(), dtype=np.uint8),
            checksum=np.zeros(32, dtype=np.uint8),
        )
    replaced = {"empty": b"", "truncated": data[: len(data) // 2], "text": b"not an archive"}
    store.write(key, replaced.get(damage, buffer.getvalue()))
    found = newest(store)
    assert found is not None
    assert found.state.step == 2
    assert "passed over" in caplog.text
    assert key in caplog.text


def test_another_runs_checkpoint_is_refused(store: ObjectStore) -> None:
    put(store, 4)
    with pytest.raises(CheckpointMismatchError, match=r"expected fingerprint fff.*found 0123"):
        newest(store, fingerprint="f" * 64)


def test_another_members_checkpoint_is_refused(store: ObjectStore) -> None:
    data = encode(checkpoint(4, member=5), fingerprint=FINGERPRINT)
    store.write(layout.rollout_checkpoint(CYCLE, RUN, MEMBER, 4), data)
    with pytest.raises(CheckpointMismatchError, match=r"member 3, step 4, found .* member 5"):
        newest(store)


def test_the_last_two_and_the_anchors_are_kept(store: ObjectStore) -> None:
    put(store, *range(2, 21, 2))
    prune(store, CYCLE, run=RUN, member=MEMBER, anchor_every=8)
    assert [int(key[-9:-4]) for key in store.list(layout.rollout_checkpoints(CYCLE, RUN, MEMBER))] == [
        8, 16, 18, 20
    ]  # fmt: skip
    prune(store, CYCLE, run=RUN, member=MEMBER)
    assert [int(key[-9:-4]) for key in store.list(layout.rollout_checkpoints(CYCLE, RUN, MEMBER))] == [18, 20]
