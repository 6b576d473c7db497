"""Writing while the device computes: one thread, a bounded queue, strict order.

Because one thread does everything in order, a rollout checkpoint that was submitted after a step's chunks is
only written once these chunks are. After the first failure nothing more is written, so nothing can be marked
complete that is not.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import TracebackType

from infra.errors import FoldcastError, TransientSourceError

_LOG = logging.getLogger(__name__)

Job = Callable[[], None]


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """How long to wait between attempts at something that may pass.

    Args:
        attempts: attempts in all.
        first_seconds: wait after the first failure; doubled after each further one.
        longest_seconds: no wait is longer.
        jitter: share by which a wait is randomly lengthened, so that many workers do not return at once.
    """

    attempts: int = 8
    first_seconds: float = 1.0
    longest_seconds: float = 60.0
    jitter: float = 0.2

    def __post_init__(self) -> None:
        if self.attempts < 1 or min(self.first_seconds, self.longest_seconds, self.jitter) < 0:
            raise ValueError(f"expected at least one attempt and no negative times, got {self}")

    def wait_seconds(self, attempt: int) -> float:
        """Seconds to wait after failed attempt number ``attempt`` (from 1), without jitter."""
        return min(self.longest_seconds, self.first_seconds * 2.0 ** (attempt - 1))


class BackgroundWriter:
    """Runs jobs one after the other in a thread of its own.

    Use it as a context manager: leaving it waits until everything is written, or abandons what is queued if
    an exception is on its way.

    Args:
        depth: jobs that may wait; ``submit`` blocks while there are more, which bounds memory.
        backoff: how transient failures of the store are retried.
        guard: makes a context that every attempt runs in, such as a watchdog's.
    """

    def __init__(
        self,
        *,
        depth: int = 4,
        backoff: Backoff | None = None,
        guard: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self._jobs: queue.Queue[Job | None] = queue.Queue(maxsize=depth)
        self._backoff = backoff or Backoff()
        self._guard = guard
        self._error: BaseException | None = None
        self._abandoned = threading.Event()
        self._thread = threading.Thread(target=self._work, name="background-writer", daemon=True)

    def __enter__(self) -> BackgroundWriter:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._abandoned.set()
        self._jobs.put(None)
        self._thread.join()
        if error is None:
            self._raise()

    def submit(self, job: Job) -> None:
        """Queue a job; blocks while the queue is full.

        Raises:
            FoldcastError: an earlier job failed for good; this one will not run.
        """
        self._raise()
        self._jobs.put(job)

    def flush(self) -> None:
        """Wait until all queued jobs have run.

        Raises:
            FoldcastError: one of them failed for good.
        """
        self._jobs.join()
        self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                if self._error is None and not self._abandoned.is_set():
                    self._attempt(job)
            except BaseException as error:
                self._error = error
            finally:
                self._jobs.task_done()
        self._jobs.task_done()

    def _attempt(self, job: Job) -> None:
        for attempt in range(1, self._backoff.attempts + 1):
            try:
                with self._guard():
                    return job()
            except TransientSourceError as error:
                if attempt == self._backoff.attempts:
                    raise TransientSourceError(f"given up after {attempt} attempts: {error}") from error
                wait = self._backoff.wait_seconds(attempt) * (1 + self._backoff.jitter * random.random())
                _LOG.warning("writing pauses for %.1f s (attempt %d): %s", wait, attempt, error)
                if self._abandoned.wait(wait):
                    raise FoldcastError("writing was abandoned while it paused") from error
