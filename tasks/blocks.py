"""Hand a block of members to a work pool, and stay with it until it is done or lost.

A flow run's idempotency key is run, block and attempt, and Prefect returns the existing flow run of a key
whatever its state. So a controller that was started again finds the attempt that is under way, and goes past
the attempts that are over. So a cancelled block is refused by the controller that sees it cancelled, and computed
by one that is started again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterIdempotencyKey
from prefect.client.schemas.objects import FlowRun, State, WorkerStatus
from prefect.client.schemas.sorting import FlowRunSort
from prefect.deployments import run_deployment
from prefect.states import Crashed

from infra import layout
from infra.errors import FoldcastError, StoreError, TransientSourceError
from infra.manifests import load_member_manifest
from infra.object_store import ObjectStore
from model.cycle import Block, Cycle

_LOG = logging.getLogger(__name__)
_EXCEPTION = re.compile(r"exception: (\w+)")
_NOT_CURED_BY_REPETITION = ("InvalidFieldError",)
"""What lies in the run itself. Whatever else a worker says (does not fit, another model, another configuration)
is about that worker: another one may do."""


class BlockFailedError(FoldcastError):
    """An attempt at a block ended without its members; another may succeed."""


class BlockRefusedError(FoldcastError):
    """A block cannot be computed, however often it is tried: cancelled, or its input is not valid."""


@dataclass(frozen=True, kw_only=True)
class HandOut:
    """How blocks are handed out.

    Args:
        deployment: the members flow's deployment, e.g. ``members/gpu``.
        queue: work queue; None for the deployment's own.
        poll_seconds: time between two looks at a flow run.
        silence_seconds: a running attempt without a sign of life for this long is given up as lost.
        start_seconds: the same for an attempt that a worker claimed but that never began to run; it is given up
            sooner when the server says twice that this worker, one of processes, is offline.
    """

    deployment: str
    queue: str | None = None
    poll_seconds: float = 5.0
    silence_seconds: float = 180.0
    start_seconds: float = 900.0


def compute_block_elsewhere(
    store: ObjectStore,
    cycle: Cycle,
    *,
    run: str,
    block: Block,
    steps: int,
    how: HandOut,
    done: Callable[[], bool] | None = None,
    purpose: str = "compute",
) -> None:
    """Have some worker compute a block; returns when it is done.

    Args:
        store: where members' manifests and signs of life are.
        cycle: the cycle.
        run: short name of the run.
        block: its members.
        steps: model steps each shall have.
        how: deployment and patience.
        done: whether the block is; default: each of its members has a manifest of so many steps.
        purpose: tells attempts at repairing complete members from those at computing them.

    Raises:
        BlockFailedError: the attempt crashed, failed or fell silent.
        BlockRefusedError: the attempt was cancelled, or failed in a way that would repeat itself.
    """
    if done is None:

        def done() -> bool:
            return is_complete(store, cycle, run=run, members=block.members, steps=steps)

    attempt = 0
    with get_client(sync_client=True) as client:
        while not done():
            attempt += 1
            key = _key(cycle, run, block, steps, purpose, attempt)
            flow_run = _find(client, key)
            if flow_run is None:
                flow_run = _submit(cycle, run, block, steps, attempt, key, how)
            elif _settled(flow_run) is not None:
                continue
            state = _stay_with(client, flow_run, store, layout.block_progress(cycle, run, block.index), how)
            _judge(state, cycle, block, attempt)
            if not done():
                raise BlockFailedError(
                    f"{cycle}, block {block.index}, attempt {attempt}: the flow run completed without all of "
                    f"members {list(block.members)}"
                )


def is_complete(store: ObjectStore, cycle: Cycle, *, run: str, members: Sequence[int], steps: int) -> bool:
    """Whether each member has a manifest of at least so many steps."""
    manifests = (load_member_manifest(store, cycle, run, member) for member in members)
    return all(manifest is not None and manifest.steps >= steps for manifest in manifests)


def _key(cycle: Cycle, run: str, block: Block, steps: int, purpose: str, attempt: int) -> str:
    members = hashlib.sha256(repr(block.members).encode()).hexdigest()[:8]
    return f"{cycle}/{run}/{purpose}/b{block.index}-{members}/s{steps}/a{attempt}"


def _find(client: SyncPrefectClient, key: str) -> FlowRun | None:
    runs = client.read_flow_runs(
        flow_run_filter=FlowRunFilter(idempotency_key=FlowRunFilterIdempotencyKey(any_=[key])),
        sort=FlowRunSort.EXPECTED_START_TIME_DESC,
        limit=1,
    )
    return runs[0] if runs else None


def _submit(
    cycle: Cycle, run: str, block: Block, steps: int, attempt: int, key: str, how: HandOut
) -> FlowRun:
    started = run_deployment(
        how.deployment,
        parameters={
            "model": cycle.model,
            "init_time": cycle.identifier,
            "run": run,
            "block": block.index,
            "members": list(block.members),
            "steps": steps,
        },
        timeout=0,
        flow_run_name=f"{cycle.model}-{cycle.identifier}-block-{block.index}-{attempt}",
        idempotency_key=key,
        work_queue_name=how.queue,
        tags=[cycle.model, cycle.identifier],
    )
    return cast(FlowRun, started)  # a coroutine only inside a loop


def _settled(flow_run: FlowRun) -> State[Any] | None:
    return flow_run.state if flow_run.state is not None and flow_run.state.is_final() else None


def _stay_with(
    client: SyncPrefectClient, flow_run: FlowRun, store: ObjectStore, life: str, how: HandOut
) -> State[Any]:
    """Wait until a flow run is over, or until nothing has been heard of it for too long."""
    last_sign: tuple[str | None, bytes] | None = None
    heard = time.monotonic()
    seen_dead: str | None = None
    while True:
        flow_run = client.read_flow_run(flow_run.id)
        settled = _settled(flow_run)
        if settled is not None:
            return settled
        state = flow_run.state
        sign = (state.name if state else "", _sign_of_life(store, life, flow_run))
        if sign != last_sign or state is None or state.is_scheduled():
            last_sign, heard = sign, time.monotonic()
        limit = how.silence_seconds if state is not None and state.is_running() else how.start_seconds
        message = None
        if time.monotonic() - heard > limit:
            message = f"no sign of life for {limit:g} s in state {state.name if state else 'unknown'}"
        elif state is not None and state.is_pending():
            before, seen_dead = seen_dead, _dead_worker(client, flow_run)
            if seen_dead is not None and before is not None:  # not for the first heartbeats that come late
                message = f"claimed by worker {seen_dead}, which went offline before it began"
        if message is not None:
            _LOG.warning("flow run %s: %s", flow_run.name, message)
            client.set_flow_run_state(flow_run.id, Crashed(message=message), force=True)
            return Crashed(message=message)
        time.sleep(how.poll_seconds)


def _dead_worker(client: SyncPrefectClient, flow_run: FlowRun) -> str | None:
    """Name of the worker that claimed a flow run, if the server has missed its heartbeats since.

    Only of a worker whose flow runs are its children: a container or a Kubernetes job begins without it.
    """
    labels, pool = flow_run.labels, flow_run.work_pool_name
    name = labels.get("prefect.worker.name")
    if name is None or pool is None or labels.get("prefect.worker.type") != "process":
        return None
    workers = client.read_workers_for_work_pool(pool)
    offline = {worker.name for worker in workers if worker.status == WorkerStatus.OFFLINE}
    return str(name) if str(name) in offline else None


def _sign_of_life(store: ObjectStore, key: str, flow_run: FlowRun) -> bytes:
    """The newest sign of this attempt; one that was given up may still leave its own."""
    try:
        sign = store.read(key)
        author = json.loads(sign).get("flow_run")
    except (StoreError, TransientSourceError, ValueError, AttributeError):
        return b""
    return sign if author in (None, str(flow_run.id)) else b""


def _judge(state: State[Any], cycle: Cycle, block: Block, attempt: int) -> None:
    if state.is_completed():
        return
    what = (
        f"{cycle}, block {block.index} (members {list(block.members)}), attempt {attempt}: "
        f"{state.name}: {state.message}"
    )
    if state.is_cancelled():
        raise BlockRefusedError(what)
    said = _EXCEPTION.search(state.message or "")
    if state.is_failed() and said is not None and said[1] in _NOT_CURED_BY_REPETITION:
        raise BlockRefusedError(what)
    raise BlockFailedError(what)
