"""A cycle's stages as Prefect runs them: tried again after what may pass, given up at once after what does not."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import pytest
from prefect import Task, flow
from prefect.client.schemas.objects import State, StateType
from prefect.settings import temporary_settings

from flows.serve import client_settings
from infra.errors import InvalidFieldError, MissingDataError, TransientSourceError
from infra.initial_conditions import load_initial_condition
from infra.local_services import LocalServer
from infra.sources.source import FieldRequest, RawFile
from model.cycle import Cycle
from tasks import initial_conditions
from tasks.initial_conditions import prepare_initial_condition_task
from tests.fakes.synthetic_source import SyntheticSource
from tests.model.diagnostics.atmospheres import INIT_TIME
from tests.tasks.test_initial_conditions import settings_in

CYCLE = Cycle(model="synthetic", init_time=INIT_TIME)
AT_ONCE: Task = prepare_initial_condition_task.with_options(retry_delay_seconds=0, retry_jitter_factor=0)

pytestmark = pytest.mark.server


@dataclass(frozen=True, kw_only=True)
class FailingSource(SyntheticSource):
    """Fails the first so many requests for the newest frame, or hangs with it.

    Args:
        failures: what it raises, in order, before it delivers.
        asked: times at which it was asked for the newest frame.
        hang: if given, what a request for the newest frame waits for.
    """

    failures: list[Exception] = field(default_factory=list)
    asked: list[datetime] = field(default_factory=list)
    hang: threading.Event | None = None

    def fetch(self, request: FieldRequest, folder: Path) -> tuple[RawFile, ...]:
        if request.valid_time == INIT_TIME and "temperature" in request.variables:
            self.asked.append(request.valid_time)
            if self.hang is not None:
                self.hang.wait()
            if self.failures:
                raise self.failures.pop(0)
        return super().fetch(request, folder)


@pytest.fixture
def server(prefect_server: LocalServer) -> Iterator[None]:
    with temporary_settings(client_settings(prefect_server)):
        yield


def run_in_flow(
    source: FailingSource, folder: Path, monkeypatch: pytest.MonkeyPatch, stage: Task = AT_ONCE
) -> State:
    """The task's final state after a flow run that does nothing else."""
    monkeypatch.setattr(initial_conditions, "make_source", lambda name, settings: source)

    @flow(persist_result=False)
    def one_stage() -> None:
        ended.append(stage(CYCLE, settings_in(folder), return_state=True))

    ended: list[State] = []
    one_stage(return_state=True)
    return ended[0]


def test_a_fault_that_passes_is_tried_again_within_the_task(
    server: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures: list[Exception] = [TransientSourceError("503"), TransientSourceError("connection reset")]
    source = FailingSource(failures=failures)
    state = run_in_flow(source, tmp_path, monkeypatch)
    assert state.is_completed()
    assert len(source.asked) == 3
    earlier = [request for request in source.fetched if request.valid_time < INIT_TIME]
    assert len(earlier) == 1  # what had arrived was not fetched again
    assert load_initial_condition(settings_in(tmp_path).store.open(), CYCLE).sizes["time"] == 2


def test_a_fault_that_goes_on_ends_after_the_configured_attempts(
    server: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = FailingSource(failures=[TransientSourceError("503") for _ in range(99)])
    state = run_in_flow(source, tmp_path, monkeypatch)
    assert (state.type, len(source.asked)) == (StateType.FAILED, 1 + AT_ONCE.retries)
    with pytest.raises(TransientSourceError, match="503"):
        state.result()


@pytest.mark.parametrize("fault", [MissingDataError("not in the archive"), InvalidFieldError("damaged")])
def test_a_fault_that_does_not_pass_ends_the_task_at_once(
    fault: Exception, server: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = FailingSource(failures=[fault])
    state = run_in_flow(source, tmp_path, monkeypatch)
    assert (state.type, len(source.asked)) == (StateType.FAILED, 1)
    with pytest.raises(type(fault), match=str(fault)):
        state.result()


@pytest.mark.timeout(
    200, method="thread"
)  # the default method uses the alarm that the task's timeout uses too
def test_a_source_that_hangs_ends_with_the_tasks_timeout(
    server: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = threading.Event()
    source = FailingSource(hang=never)
    try:
        state = run_in_flow(source, tmp_path, monkeypatch, AT_ONCE.with_options(timeout_seconds=10))
        assert (state.name, len(source.asked)) == ("TimedOut", 1)
        assert not never.is_set()  # the source hangs still; the run has ended all the same
    finally:
        never.set()
