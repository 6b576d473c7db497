"""Starting a cycle through Prefect, exactly once however often it is asked for.

A flow run's idempotency key is the cycle and the attempt, and Prefect returns the existing run of a key
whatever its state. So asking again for a cycle that runs changes nothing; only when an attempt is over and
the cycle still not published is the next one made, up to a limit.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, Literal

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterIdempotencyKey
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL

from infra import layout
from infra.claims import holder_of
from infra.errors import FoldcastError
from infra.object_store import ObjectStore
from model.cycle import Cycle

LaunchState = Literal["published", "skipped", "running", "started", "failed", "waiting", "late"]
DEPLOYMENT = "forecast/forecast"


@dataclass(frozen=True, kw_only=True)
class LaunchOutcome:
    """What became of a cycle that was asked for.

    Args:
        cycle: which one.
        state: where it stands.
        reason: why, for people: missing inputs, the failed state's message.
        attempts: flow runs made for it so far.
    """

    cycle: Cycle
    state: LaunchState
    reason: str = ""
    attempts: int = 0

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it without being asked."""
        return self.state in ("published", "skipped", "failed", "late")


def require_server() -> None:
    """Raises FoldcastError unless a Prefect server is configured: without one nothing that is submitted ever runs."""
    if not PREFECT_API_URL.value():
        raise FoldcastError(
            "Prefect server: expected its address in PREFECT_API_URL, found none; `foldcast serve` starts one"
        )


def state_in_store(store: ObjectStore, cycle: Cycle) -> LaunchOutcome | None:
    """What the store alone says of a cycle: published, or held by a run; None if neither."""
    if store.exists(layout.cycle_manifest(cycle)):
        return LaunchOutcome(cycle=cycle, state="published")
    holder = holder_of(store, cycle)
    return LaunchOutcome(cycle=cycle, state="running", reason=f"held by {holder}") if holder else None


def start_cycle(
    cycle: Cycle,
    *,
    queue: str,
    attempts: int | None,
    pause: timedelta = timedelta(0),
    series: str = "",
    parameters: dict[str, Any] | None = None,
) -> LaunchOutcome:
    """Have the forecast deployment run a cycle that is not published, unless it already does.

    Args:
        cycle: what to run.
        queue: work queue, ``realtime`` or ``backfill``.
        attempts: how many flow runs may be made for the cycle in all; None for as many as are asked for.
        pause: from the end of the first attempt to the second; doubled for each further one, so that an outage
            does not use them up.
        series: tells a forced repetition's attempts from earlier ones; a completed attempt ends it.
        parameters: further parameters of the deployment.
    """
    return asyncio.run(_start_cycle(cycle, queue, attempts, pause, series, parameters or {}))


async def _start_cycle(
    cycle: Cycle, queue: str, attempts: int | None, pause: timedelta, series: str, parameters: dict[str, Any]
) -> LaunchOutcome:
    async with get_client() as client:
        try:
            deployment = await client.read_deployment_by_name(DEPLOYMENT)
        except ObjectNotFound:
            raise FoldcastError(
                f"Prefect server {client.api_url}: expected the deployment {DEPLOYMENT!r}, found none; "
                "`foldcast set-up` makes it"
            ) from None
        run: FlowRun | None = None
        for attempt in count(1) if attempts is None else range(1, attempts + 1):
            before = await _find_run(client, _key(cycle, series, attempt))
            if before is None and run is not None:
                due = _ended(run) + pause * 2 ** (attempt - 2)
                if datetime.now(UTC) < due:
                    reason = f"{_reason(run)}; next attempt at {due:%H:%M}Z"
                    return LaunchOutcome(cycle=cycle, state="waiting", reason=reason, attempts=attempt - 1)
            run = before or await client.create_flow_run_from_deployment(
                deployment.id,
                parameters={"model": cycle.model, "init_time": cycle.init_time.isoformat(), **parameters},
                name=f"{cycle.model}-{cycle.identifier}-{attempt}",
                idempotency_key=_key(cycle, series, attempt),
                work_queue_name=queue,
                tags=[cycle.model, cycle.identifier],
            )
            if before is None:
                return LaunchOutcome(cycle=cycle, state="started", attempts=attempt)
            if series and run.state is not None and run.state.is_completed():
                return LaunchOutcome(cycle=cycle, state="published", attempts=attempt)
            if not _over(run):
                return LaunchOutcome(cycle=cycle, state="running", attempts=attempt)
        return LaunchOutcome(cycle=cycle, state="failed", reason=_reason(run), attempts=attempts or 0)


def _ended(run: FlowRun) -> datetime:
    return run.state.timestamp if run.state is not None else datetime.now(UTC)


def _reason(run: FlowRun | None) -> str:
    if run is None or run.state is None:
        return "unknown state"
    return run.state.message or run.state.name or "unknown state"


async def _find_run(client: PrefectClient, key: str) -> FlowRun | None:
    runs = await client.read_flow_runs(
        flow_run_filter=FlowRunFilter(idempotency_key=FlowRunFilterIdempotencyKey(any_=[key])), limit=1
    )
    return runs[0] if runs else None


def _key(cycle: Cycle, series: str, attempt: int) -> str:
    return "/".join(part for part in (str(cycle), series, f"a{attempt}") if part)


def _over(run: FlowRun) -> bool:
    return run.state is not None and run.state.is_final()
