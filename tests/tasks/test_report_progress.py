"""Signs of life reach the store while the work goes on, and their failure does not disturb it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import State
from prefect.states import Crashed, Running

from infra.errors import StoreError
from infra.object_store import ObjectStore
from infra.resources import MemoryUse
from tasks import report_progress
from tasks.report_progress import load_rows, reported
from tasks.rollout import RolloutProgress

KEY = "progress/0001.json"
PROGRESS = RolloutProgress(
    members=(4, 5, 6),
    members_done=1,
    member=5,
    step=3,
    steps=10,
    computed_steps=13,
    seconds_per_step=1.23456,
    device="gpu:0 NVIDIA H100",
    memory=MemoryUse(host_bytes=1, peak_host_bytes=2_500_000_000, peak_device_bytes=40_000_000_000),
)


class Watched(ObjectStore):
    """Says when something was written for the n-th time."""

    def write(self, key: str, data: bytes) -> str:
        result = super().write(key, data)
        self.options["written"].append(data)
        if len(self.options["written"]) >= 4:
            self.options["enough"].set()
        return result


class Broken(ObjectStore):
    def write(self, key: str, data: bytes) -> str:
        raise StoreError("forbidden")


def test_a_worker_without_progress_still_shows_that_it_lives(tmp_path: Path) -> None:
    written: list[bytes] = []
    enough = threading.Event()
    store = Watched(root=str(tmp_path), options={"written": written, "enough": enough})
    with reported(store, KEY, block=1, seconds=0.01):
        assert enough.wait(60)
    documents = [json.loads(data) for data in written]
    assert len({document["beat"] for document in documents}) == len(documents), "each differs from the last"
    assert {document["block"] for document in documents} == {1}


def test_the_latest_progress_is_left_at_the_end(tmp_path: Path) -> None:
    store = ObjectStore(root=str(tmp_path))
    with reported(store, KEY, block=1, seconds=60) as progress:
        progress(PROGRESS)
    document = json.loads(store.read(KEY))
    assert (document["member"], document["step"], document["members_done"]) == (5, 3, 1)
    assert document["memory"]["peak_host_bytes"] == 2_500_000_000


def test_a_store_that_refuses_does_not_stop_the_work(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with reported(Broken(root=str(tmp_path)), KEY, block=1, seconds=60) as progress:
        progress(PROGRESS)
    assert "no sign of life could be left: forbidden" in caplog.text


def test_a_row_of_the_load_table_says_what_matters(tmp_path: Path) -> None:
    store = ObjectStore(root=str(tmp_path))
    with reported(store, KEY, block=1, seconds=60) as progress:
        progress(PROGRESS)
    [row] = load_rows(store, [KEY, "progress/of-a-block-that-waits.json"])
    assert row == {
        "block": 1,
        "members": "4–6",
        "members done": 1,
        "member": 5,
        "step": "3/10",
        "s per step": 1.23,
        "device": "gpu:0 NVIDIA H100",
        "peak host GiB": 2.33,
        "peak device GiB": 37.25,
    }


@pytest.mark.parametrize(
    ("state", "ends"), [(Running(), False), (Crashed(message="given up"), True), (None, False)]
)
def test_an_attempt_that_was_given_up_ends_its_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: State[Any] | None, ends: bool
) -> None:
    ended: list[int] = []
    asked = threading.Event()

    @contextmanager
    def get_client(**_: Any) -> Iterator[Any]:
        asked.set()
        if state is None:
            raise OSError("no server")
        yield SimpleNamespace(read_flow_run=lambda _: SimpleNamespace(state=state))

    context = SimpleNamespace(get=lambda: SimpleNamespace(flow_run=SimpleNamespace(id=uuid4())))
    monkeypatch.setattr(report_progress, "FlowRunContext", context)
    monkeypatch.setattr(report_progress, "get_client", get_client)
    store = ObjectStore(root=str(tmp_path))
    with reported(store, KEY, block=1, seconds=0.01, end_process=ended.append):
        assert asked.wait(60)
    assert bool(ended) == ends
