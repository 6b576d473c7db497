"""Keeps the services of one machine running: one that ends is started again, unless it keeps ending."""

from __future__ import annotations

import logging
import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field

from infra.errors import FoldcastError

_LOG = logging.getLogger(__name__)

Service = Callable[[], AbstractContextManager[subprocess.Popen[bytes]]]
"""Starts a service; its process runs until the context ends."""


class ServiceError(FoldcastError):
    """A local service could not be started or kept; the message says why and where its log lies."""


@dataclass
class _Running:
    service: Service
    context: ExitStack
    process: subprocess.Popen[bytes]
    ended: list[float] = field(default_factory=list)


class Supervisor:
    """Services by name, started in order and stopped in reverse order; use it as a context manager.

    Args:
        restarts: how often one service may be started again ``within_seconds``.
        within_seconds: the period.
        clock: seconds, increasing.
    """

    def __init__(
        self,
        *,
        restarts: int = 5,
        within_seconds: float = 600.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._restarts = restarts
        self._within = within_seconds
        self._clock = clock
        self._services: dict[str, _Running] = {}

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(self, *_: object) -> None:
        with ExitStack() as contexts:
            for running in self._services.values():
                contexts.push(running.context)

    def start(self, name: str, service: Service) -> None:
        """Start a service and keep it from now on."""
        context = ExitStack()
        self._services[name] = _Running(service, context, context.enter_context(service()))

    def look(self) -> list[str]:
        """Start again what has ended; returns the names.

        Raises:
            ServiceError: a service ended too often, or cannot be started again.
        """
        ended = [name for name, running in self._services.items() if running.process.poll() is not None]
        for name in ended:
            running = self._services[name]
            code, now = running.process.returncode, self._clock()
            running.ended = [*(t for t in running.ended if now - t < self._within), now]
            if len(running.ended) > self._restarts:
                raise ServiceError(
                    f"{name}: ended {len(running.ended)} times within {self._within:g} s, now with code {code}"
                )
            _LOG.warning("%s: ended with code %s; it is started again", name, code)
            running.context.close()
            running.process = running.context.enter_context(running.service())
        return ended
