"""Starting a cycle through Prefect, exactly once however often it is asked for.

A flow run's idempotency key is the cycle and the attempt, and Prefect returns the existing run of a key
whatever its state. So asking again for a cycle that runs changes nothing; only when an attempt is over and
the cycle still not published is the next one made, up to a limit.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterIdempotencyKey
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL
from prefect.states import Cancelled, State

from infra import layout
from infra.claims import CycleBusyError, holder_of
from infra.errors import FoldcastError
from infra.object_store import ObjectStore
from model.cycle import Cycle

LaunchState = Literal[
    "published",
    "skipped",
    "running",
    "started",
    "failed",
    "waiting",
    "late",
    "unknown",
    "would run",
    "would fail",
]
DEPLOYMENT = "forecast/forecast"

_HELD_ELSEWHERE = "Another run is at it: "


@dataclass(frozen=True, kw_only=True)
class LaunchOutcome:
    """What became of a cycle that was asked for.

    Args:
        cycle: which one.
        state: where it stands; ``unknown`` if that could not be found out. ``would run`` and ``would fail`` are what
            a dry run foresees.
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


def shelter_temporary_server() -> None:
    """Let the server that Prefect starts for a command without one end with the command, not before it."""
    if not PREFECT_API_URL.value():
        from infra.temporary_server import ShelteredServer  # loads the whole server

        ShelteredServer()


def state_in_store(store: ObjectStore, cycle: Cycle) -> LaunchOutcome | None:
    """What the store alone says of a cycle: published, or held by a run; None if neither."""
    if store.exists(layout.cycle_manifest(cycle)):
        return LaunchOutcome(cycle=cycle, state="published")
    return run_in_store(store, cycle)


def run_in_store(store: ObjectStore, cycle: Cycle) -> LaunchOutcome | None:
    """The run that holds a cycle, published or not, by the store; None if none does."""
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
        last: FlowRun | None = None
        spent = 0
        number = 0
        while True:
            number += 1
            run = await _find_run(client, _key(cycle, series, number))
            if run is None and attempts is not None and spent >= attempts:
                return LaunchOutcome(cycle=cycle, state="failed", reason=_reason(last), attempts=spent)
            if run is None:
                due = None if last is None else _ended(last) + pause * 2 ** (spent - 1)
                if due is not None and datetime.now(UTC) < due:
                    reason = f"{_reason(last)}; next attempt at {due:%H:%M}Z"
                    return LaunchOutcome(cycle=cycle, state="waiting", reason=reason, attempts=spent)
                await client.create_flow_run_from_deployment(
                    deployment.id,
                    parameters={
                        "model": cycle.model, "init_time": cycle.init_time.isoformat(), **parameters
                    },
                    name=f"{cycle.model}-{cycle.identifier}-{number}",
                    idempotency_key=_key(cycle, series, number),
                    work_queue_name=queue,
                    tags=[cycle.model, cycle.identifier],
                )  # fmt: skip
                return LaunchOutcome(cycle=cycle, state="started", attempts=spent + 1)
            if series and run.state is not None and run.state.is_completed():
                return LaunchOutcome(cycle=cycle, state="published", attempts=spent + 1)
            if not _over(run):
                return LaunchOutcome(cycle=cycle, state="running", attempts=spent + 1)
            if not _was_held_elsewhere(run):
                last, spent = run, spent + 1


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


def held_elsewhere(error: CycleBusyError) -> State:
    """The state in which a flow run ends that found another at its cycle: nothing failed, and it was no attempt.

    Its name stays Prefect's own, for which the server watches to tell ended runs from dead ones.
    """
    return Cancelled(message=f"{_HELD_ELSEWHERE}{error}")


def _was_held_elsewhere(run: FlowRun) -> bool:
    state = run.state
    return state is not None and state.is_cancelled() and (state.message or "").startswith(_HELD_ELSEWHERE)


def _over(run: FlowRun) -> bool:
    return run.state is not None and run.state.is_final()
