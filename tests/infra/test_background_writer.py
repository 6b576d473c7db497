"""The background writer keeps order, bounds what waits, retries what may pass and stops at the first failure."""

from __future__ import annotations

import threading

import pytest

from infra.background_writer import BackgroundWriter, Backoff
from infra.errors import StoreError, TransientSourceError

NO_WAIT = Backoff(attempts=3, first_seconds=0.0)


def test_jobs_run_in_order_and_are_done_at_the_end() -> None:
    done: list[int] = []
    with BackgroundWriter(depth=2) as writer:
        for number in range(20):
            writer.submit(lambda number=number: done.append(number))
    assert done == list(range(20))


def test_no_more_than_the_depth_waits() -> None:
    gate, full = threading.Event(), threading.Event()
    submitted: list[int] = []

    def fill(writer: BackgroundWriter) -> None:
        for number in range(5):
            writer.submit(gate.wait)  # type: ignore[arg-type]
            submitted.append(number)
        full.set()

    with BackgroundWriter(depth=2) as writer:
        thread = threading.Thread(target=fill, args=(writer,))
        thread.start()
        assert not full.wait(0.2)
        assert len(submitted) <= 3, "two wait, one runs"
        gate.set()
        thread.join()
    assert len(submitted) == 5


def test_a_passing_failure_is_retried() -> None:
    failures = [TransientSourceError("503"), TransientSourceError("503")]
    done: list[str] = []

    def job() -> None:
        if failures:
            raise failures.pop()
        done.append("written")

    with BackgroundWriter(backoff=NO_WAIT) as writer:
        writer.submit(job)
    assert done == ["written"]


@pytest.mark.parametrize("error", [StoreError("forbidden"), TransientSourceError("503"), KeyError("bug")])
def test_after_a_failure_nothing_more_is_written(error: Exception) -> None:
    done: list[str] = []

    def job() -> None:
        raise error

    def write() -> None:
        with BackgroundWriter(backoff=NO_WAIT) as writer:
            writer.submit(job)
            writer.submit(lambda: done.append("checkpoint"))
            writer.submit(lambda: done.append("manifest"))

    with pytest.raises(type(error)):
        write()
    assert done == []


def test_the_giving_up_says_how_often_it_was_tried() -> None:
    def job() -> None:
        raise TransientSourceError("503 SlowDown")

    with (
        pytest.raises(TransientSourceError, match="given up after 3 attempts: 503 SlowDown"),
        BackgroundWriter(backoff=NO_WAIT) as writer,
    ):
        writer.submit(job)


def test_an_exception_elsewhere_abandons_the_queue() -> None:
    gate = threading.Event()
    done: list[str] = []

    def write() -> None:
        with BackgroundWriter(depth=5) as writer:
            writer.submit(gate.wait)  # type: ignore[arg-type]
            writer.submit(lambda: done.append("too late"))
            threading.Timer(0.1, gate.set).start()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write()
    assert done == []


def test_waits_double_up_to_the_longest() -> None:
    backoff = Backoff(first_seconds=1.0, longest_seconds=5.0)
    assert [backoff.wait_seconds(attempt) for attempt in (1, 2, 3, 4)] == [1.0, 2.0, 4.0, 5.0]
    with pytest.raises(ValueError, match="at least one attempt"):
        Backoff(attempts=0)
