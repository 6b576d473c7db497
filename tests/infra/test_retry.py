from __future__ import annotations

import pytest

from infra.errors import InvalidFieldError, TransientSourceError
from infra.retry import RetryPolicy


def failing(times: int, error: type[Exception] = TransientSourceError):
    calls: list[int] = []

    def operation() -> int:
        calls.append(len(calls))
        if len(calls) <= times:
            raise error("no answer")
        return len(calls)

    return operation, calls


def test_a_passing_fault_is_tried_again_with_growing_delays() -> None:
    delays: list[float] = []
    operation, _ = failing(3)
    assert RetryPolicy(attempts=4, first_delay=1.0, sleep=delays.append).run(operation) == 4
    assert [0.5 <= d / full <= 1.0 for d, full in zip(delays, (1.0, 2.0, 4.0))] == [True] * 3


def test_delays_are_bounded() -> None:
    delays: list[float] = []
    operation, _ = failing(9)
    RetryPolicy(attempts=10, longest_delay=3.0, sleep=delays.append).run(operation)
    assert max(delays) <= 3.0


def test_the_last_failure_says_how_many_attempts_there_were() -> None:
    operation, calls = failing(99)
    with pytest.raises(TransientSourceError, match=r"no answer \(after 3 attempts\)"):
        RetryPolicy(attempts=3, sleep=lambda _: None).run(operation)
    assert len(calls) == 3


def test_a_lasting_fault_is_not_tried_again() -> None:
    operation, calls = failing(99, InvalidFieldError)
    with pytest.raises(InvalidFieldError):
        RetryPolicy(sleep=lambda _: None).run(operation)
    assert len(calls) == 1


def test_impossible_policies_are_refused() -> None:
    with pytest.raises(ValueError, match="attempts ≥ 1"):
        RetryPolicy(attempts=0)
