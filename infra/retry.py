"""Trying again what failed in a way that may pass."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from infra.errors import TransientSourceError

_Result = TypeVar("_Result")


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How often and how long apart.

    Delays grow by a factor and are drawn between half and the whole of that: clients that failed together
    should not come back together.

    Args:
        attempts: tries in all, at least 1.
        first_delay: seconds before the second try.
        factor: growth from one delay to the next.
        longest_delay: seconds; no delay exceeds it.
        sleep: waits for that many seconds (replaced in tests).
    """

    attempts: int = 5
    first_delay: float = 1.0
    factor: float = 2.0
    longest_delay: float = 30.0
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.first_delay < 0 or self.factor < 1 or self.longest_delay < 0:
            raise ValueError(f"expected attempts ≥ 1, delays ≥ 0 and factor ≥ 1, got {self}")

    def run(self, operation: Callable[[], _Result]) -> _Result:
        """The operation's result; only a TransientSourceError is tried again.

        Raises:
            TransientSourceError: the last one, when no attempt is left; says how many there were.
        """
        for attempt in range(1, self.attempts + 1):
            try:
                return operation()
            except TransientSourceError as error:
                if attempt == self.attempts:
                    raise TransientSourceError(f"{error} (after {attempt} attempts)") from error
                delay = min(self.longest_delay, self.first_delay * self.factor ** (attempt - 1))
                self.sleep(delay * random.uniform(0.5, 1.0))
        raise AssertionError("unreachable")
