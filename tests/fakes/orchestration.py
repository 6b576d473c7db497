"""A Prefect server in this process, as far as starting forecasts touches one: flow runs by key, and a worker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

from prefect.states import Completed, Failed, Running, Scheduled, State

from infra.work_pool_setup import QUEUE_PRIORITIES


@dataclass
class Run:
    """A flow run of the forecast deployment."""

    key: str
    queue: str
    parameters: dict[str, Any]
    state: State


class Orchestration:
    """Stands for the client that ``tasks.launch`` talks to, and for the one worker that serves the queues.

    Args:
        forecast: the flow that the deployment runs, called with its parameters.
        now: the time by which states are stamped.
    """

    api_url = "in this process"

    def __init__(self, forecast: Callable[..., Any], now: Callable[[], datetime]) -> None:
        self.runs: list[Run] = []
        self._forecast = forecast
        self._now = now

    def client(self) -> Orchestration:
        return self

    async def __aenter__(self) -> Orchestration:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def read_deployment_by_name(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(id=uuid4(), name=name)

    async def read_flow_runs(self, *, flow_run_filter: Any, limit: int) -> list[Run]:
        keys = flow_run_filter.idempotency_key.any_
        return [run for run in self.runs if run.key in keys][:limit]

    async def create_flow_run_from_deployment(
        self, _: object, *, parameters: dict[str, Any], idempotency_key: str, work_queue_name: str, **__: Any
    ) -> Run:
        for run in self.runs:
            if run.key == idempotency_key:
                return run
        self.runs.append(Run(idempotency_key, work_queue_name, parameters, Scheduled(timestamp=self._now())))
        return self.runs[-1]

    def work(self) -> Run | None:
        """Run what waits in the first queue that is not empty, to its end."""
        waiting = [run for run in self.runs if run.state.is_scheduled()]
        if not waiting:
            return None
        run = min(waiting, key=lambda run: QUEUE_PRIORITIES[run.queue])
        run.state = Running(timestamp=self._now())
        try:
            result = self._forecast(**run.parameters)
        except Exception as error:
            run.state = Failed(message=str(error), timestamp=self._now())
            return run
        run.state = result if isinstance(result, State) else Completed()
        run.state.timestamp = self._now()
        return run
