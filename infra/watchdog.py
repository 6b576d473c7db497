"""A watchdog for work that hangs where no exception can reach: it ends the process.

A hung accelerator blocks inside the runtime, often with the interpreter's lock held, so neither a signal
handler nor another Python thread can be relied upon. ``faulthandler`` waits in a thread of its own that needs
no lock, prints where every thread stands and leaves the process with exit code 1: the worker sees a crashed
run and the block is retried elsewhere. There is one such timer in a process.
"""

from __future__ import annotations

import faulthandler
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TextIO


class Watchdog:
    """Ends the process when any watched activity makes no progress within a limit.

    Args:
        limit_seconds: the longest time between two beats of an activity; None watches nothing.
        file: where the stacks are printed; must have a file descriptor. Default: standard error.
    """

    def __init__(self, limit_seconds: float | None, *, file: TextIO | None = None) -> None:
        if limit_seconds is not None and limit_seconds <= 0:
            raise ValueError(f"limit_seconds: expected a positive number, got {limit_seconds}")
        self._limit = limit_seconds
        self._file = file
        self._deadlines: dict[str, float] = {}
        self._lock = threading.Lock()

    def beat(self, activity: str = "rollout", *, allowance: float = 1.0) -> None:
        """An activity made progress; its next beat must come within ``allowance`` times the limit."""
        if self._limit is None:
            return
        with self._lock:
            self._deadlines[activity] = time.monotonic() + self._limit * allowance
            self._arm()

    def rest(self, activity: str = "rollout") -> None:
        """An activity ended: it is watched no more."""
        if self._limit is None:
            return
        with self._lock:
            self._deadlines.pop(activity, None)
            self._arm()

    @contextmanager
    def watching(self, activity: str = "rollout", *, allowance: float = 1.0) -> Iterator[None]:
        """Watch an activity while the body runs, which must be over within ``allowance`` times the limit."""
        self.beat(activity, allowance=allowance)
        try:
            yield
        finally:
            self.rest(activity)

    def _arm(self) -> None:
        if not self._deadlines:
            faulthandler.cancel_dump_traceback_later()
            return
        remaining = max(0.001, min(self._deadlines.values()) - time.monotonic())
        file = self._file if self._file is not None else sys.__stderr__
        standard_error = 2
        faulthandler.dump_traceback_later(
            remaining, exit=True, file=file if file is not None else standard_error
        )

    def __enter__(self) -> Watchdog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._limit is not None:
            with self._lock:
                self._deadlines.clear()
                self._arm()
