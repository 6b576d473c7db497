"""A block handed to a work pool: found again, retried past what is over, given up when it falls silent."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.client.schemas.objects import State, Worker, WorkerStatus
from prefect.states import Cancelled, Completed, Crashed, Failed, Pending, Running, Scheduled

from infra import layout
from infra.manifests import MemberManifest
from infra.object_store import ObjectStore
from model.cycle import Block, Cycle
from tasks import blocks
from tasks.blocks import BlockFailedError, BlockRefusedError, HandOut, compute_block_elsewhere

CYCLE = Cycle(model="gencast", init_time=datetime(2026, 1, 1, tzinfo=UTC))
BLOCK = Block(index=1, members=(2, 3))
HOW = HandOut(deployment="members/gpu", poll_seconds=1.0, silence_seconds=10.0, start_seconds=30.0)


@dataclass
class FlowRun:
    id: UUID
    name: str
    state: State[Any]
    labels: dict[str, str]
    work_pool_name: str = "gpu"


@dataclass
class Server:
    """Flow runs by idempotency key; each look at one moves it to its next state."""

    store: ObjectStore
    plan: list[list[State[Any]]]
    runs: dict[str, FlowRun] = field(default_factory=dict)
    parameters: list[dict[str, Any]] = field(default_factory=list)
    coming: dict[UUID, list[State[Any]]] = field(default_factory=dict)
    forced: list[State[Any]] = field(default_factory=list)
    labels: dict[str, str] = field(
        default_factory=lambda: {"prefect.worker.name": "gpu-0", "prefect.worker.type": "process"}
    )
    workers: dict[str, WorkerStatus] = field(default_factory=lambda: {"gpu-0": WorkerStatus.ONLINE})
    clock: float = 0.0

    def run_deployment(self, name: str, *, idempotency_key: str, parameters: Any, **_: Any) -> FlowRun:
        assert name == "members/gpu"
        assert idempotency_key not in self.runs
        run = FlowRun(id=uuid4(), name=idempotency_key, state=Scheduled(), labels=self.labels)
        self.runs[idempotency_key] = run
        self.coming[run.id] = self.plan.pop(0)
        self.parameters.append(parameters)
        return run

    def read_flow_runs(self, *, flow_run_filter: Any, **_: Any) -> list[FlowRun]:
        [key] = flow_run_filter.idempotency_key.any_
        return [self.runs[key]] if key in self.runs else []

    def read_flow_run(self, id: UUID) -> FlowRun:
        run = next(run for run in self.runs.values() if run.id == id)
        if self.coming[id]:
            run.state = self.coming[id].pop(0)
        if run.state.is_completed() and run.state.message != "without members":
            complete(self.store)
        return run

    def read_workers_for_work_pool(self, work_pool_name: str) -> list[Worker]:
        assert work_pool_name == "gpu"
        return [
            Worker(name=name, work_pool_id=uuid4(), status=status) for name, status in self.workers.items()
        ]

    def set_flow_run_state(self, id: UUID, state: State[Any], *, force: bool) -> None:
        assert force
        self.forced.append(state)
        self.coming[id] = [state]
        self.read_flow_run(id)


def complete(store: ObjectStore, steps: int = 4) -> None:
    for member in BLOCK.members:
        MemberManifest(member=member, run="r", steps=steps, chunks={}, device="cpu").save(store, CYCLE)


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(root=str(tmp_path))


@pytest.fixture
def server(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Server:
    server = Server(store=store, plan=[])

    @contextmanager
    def get_client(**_: Any) -> Iterator[Server]:
        yield server

    def sleep(seconds: float) -> None:
        server.clock += seconds

    monkeypatch.setattr(blocks, "get_client", get_client)
    monkeypatch.setattr(blocks, "run_deployment", server.run_deployment)
    monkeypatch.setattr(blocks.time, "sleep", sleep)
    monkeypatch.setattr(blocks.time, "monotonic", lambda: server.clock)
    return server


def compute(store: ObjectStore, **changes: Any) -> None:
    compute_block_elsewhere(store, CYCLE, run="r", block=BLOCK, steps=4, how=HOW, **changes)


def test_a_block_is_submitted_and_waited_for(store: ObjectStore, server: Server) -> None:
    server.plan = [[Pending(), Running(), Running(), Completed()]]
    compute(store)
    assert server.parameters == [
        {
            "model": "gencast",
            "init_time": "20260101T00Z",
            "run": "r",
            "block": 1,
            "members": [2, 3],
            "steps": 4,
        }
    ]


def test_a_complete_block_is_not_submitted(store: ObjectStore, server: Server) -> None:
    complete(store)
    compute(store)
    assert server.runs == {}


def test_a_longer_forecast_is_not_complete(store: ObjectStore, server: Server) -> None:
    complete(store, steps=3)
    server.plan = [[Completed()]]
    compute(store)
    assert len(server.runs) == 1


def test_a_controller_started_again_finds_the_attempt_under_way(store: ObjectStore, server: Server) -> None:
    server.plan = [[Running(), Crashed(message="the worker died")]]
    with pytest.raises(BlockFailedError, match=r"members \[2, 3\].*attempt 1: Crashed: the worker died"):
        compute(store)
    [first] = server.runs
    server.runs[first].state = Running()
    server.coming[server.runs[first].id] = [Running(), Completed()]
    compute(store)
    assert list(server.runs) == [first]


def test_attempts_that_are_over_are_passed(store: ObjectStore, server: Server) -> None:
    server.plan = [[Crashed()], [Failed(message="TransientSourceError: 503")], [Completed()]]
    for _ in range(2):
        with pytest.raises(BlockFailedError):
            compute(store)
    compute(store)
    assert [key.rpartition("/")[2] for key in server.runs] == ["a1", "a2", "a3"]


@pytest.mark.parametrize(
    "state",
    [
        Cancelled(),
        Failed(message="Flow run encountered an exception: InvalidFieldError: temperature: NaN"),
    ],
)
def test_what_repetition_does_not_cure_is_refused(
    store: ObjectStore, server: Server, state: State[Any]
) -> None:
    server.plan = [[state]]
    with pytest.raises(BlockRefusedError):
        compute(store)


@pytest.mark.parametrize(
    "message",
    [
        "Flow run encountered an exception: DoesNotFitError: needs 90 GiB, 80 GiB are free",
        "Flow run encountered an exception: CheckpointMismatchError: this worker has another model",
        "Flow run encountered an exception: TransientSourceError: after an InvalidFieldError of another",
    ],
)
def test_what_one_worker_cannot_do_another_may(store: ObjectStore, server: Server, message: str) -> None:
    server.plan = [[Failed(message=message)], [Completed()]]
    with pytest.raises(BlockFailedError):
        compute(store)
    compute(store)


def test_signs_of_an_attempt_that_was_given_up_do_not_count_for_the_next(
    store: ObjectStore, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sleep(seconds: float) -> None:
        server.clock += seconds
        sign = {"block": 1, "beat": server.clock, "flow_run": str(uuid4())}
        store.write(layout.block_progress(CYCLE, "r", 1), json.dumps(sign).encode())

    monkeypatch.setattr(blocks.time, "sleep", sleep)
    server.plan = [[Running()]]
    with pytest.raises(BlockFailedError, match="no sign of life for 10 s"):
        compute(store)


def test_a_completed_run_without_its_members_is_a_failure(store: ObjectStore, server: Server) -> None:
    server.plan = [[Completed(message="without members")]]
    with pytest.raises(BlockFailedError, match="completed without all of members"):
        compute(store)


@pytest.mark.parametrize(("state", "patience"), [(Running(), 10), (Pending(), 30)])
def test_a_silent_attempt_is_marked_crashed_and_given_up(
    store: ObjectStore, server: Server, state: State[Any], patience: float
) -> None:
    server.plan = [[state]]
    with pytest.raises(BlockFailedError, match=f"no sign of life for {patience} s"):
        compute(store)
    assert [forced.is_crashed() for forced in server.forced] == [True]
    assert patience <= server.clock <= patience + 3


def test_what_a_dead_worker_claimed_is_given_up_soon(store: ObjectStore, server: Server) -> None:
    server.workers = {"gpu-0": WorkerStatus.OFFLINE, "gpu-1": WorkerStatus.ONLINE}
    server.plan = [[Pending()]]
    with pytest.raises(BlockFailedError, match="claimed by worker gpu-0, which went offline"):
        compute(store)
    assert server.clock == HOW.poll_seconds
    assert [forced.is_crashed() for forced in server.forced] == [True]


def test_a_job_begins_without_the_worker_that_asked_for_it(store: ObjectStore, server: Server) -> None:
    server.workers = {"gpu-0": WorkerStatus.OFFLINE}
    server.labels = {"prefect.worker.name": "gpu-0", "prefect.worker.type": "kubernetes"}
    server.plan = [[*[Pending()] * 10, Running(), Completed()]]
    compute(store)
    assert server.forced == []


def test_a_worker_that_is_heard_again_keeps_what_it_claimed(
    store: ObjectStore, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = itertools.cycle([WorkerStatus.OFFLINE, WorkerStatus.ONLINE])
    worker = partial(Worker, name="gpu-0", work_pool_id=uuid4())
    monkeypatch.setattr(server, "read_workers_for_work_pool", lambda _: [worker(status=next(status))])
    server.plan = [[*[Pending()] * 10, Running(), Completed()]]
    compute(store)
    assert server.forced == []


def test_what_runs_may_outlive_its_worker(store: ObjectStore, server: Server) -> None:
    server.workers = {"gpu-0": WorkerStatus.OFFLINE}
    server.plan = [[Running(), Running(), Completed()]]
    compute(store)
    assert server.forced == []


def test_signs_of_life_are_heard_and_a_queue_is_waited_for(
    store: ObjectStore, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    beat = 0

    def sleep(seconds: float) -> None:
        nonlocal beat
        beat += 1
        server.clock += seconds
        [run] = server.runs.values()
        sign = {"block": 1, "beat": beat, "flow_run": str(run.id)}
        store.write(layout.block_progress(CYCLE, "r", 1), json.dumps(sign).encode())

    monkeypatch.setattr(blocks.time, "sleep", sleep)
    server.plan = [[*[Scheduled()] * 60, *[Running()] * 60, Completed()]]
    compute(store)
    assert server.clock > 100
    assert server.forced == []


def test_a_repair_is_done_when_it_says_so_and_has_attempts_of_its_own(
    store: ObjectStore, server: Server
) -> None:
    complete(store)
    server.plan = [[Completed()]]
    answers = iter([False, True, True])
    compute(store, done=lambda: next(answers), purpose="repair")
    [key] = server.runs
    assert "/repair/" in key
