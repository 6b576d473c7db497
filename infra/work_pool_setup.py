"""Work pools, their queues and concurrency limits on a Prefect server; may be run any number of times."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.exceptions import ObjectAlreadyExists

TRAINING_QUEUE = "training"
QUEUE_PRIORITIES = {"realtime": 1, "backfill-control": 5, "backfill": 10, TRAINING_QUEUE: 20}
"""Queue name → priority; a lower number is served first. ``backfill-control`` is for the flows that wait for the
cycles in ``backfill``. A training takes days: on one machine workers of members leave its queue alone."""

MEMBER_QUEUES = tuple(queue for queue in QUEUE_PRIORITIES if queue != TRAINING_QUEUE)


@dataclass(frozen=True, kw_only=True)
class Pool:
    """A work pool.

    Args:
        name: name that deployments refer to.
        type: Prefect worker type: process, docker or kubernetes.
        template: name of its base job template below ``infra/work_pools``.
        limit: flow runs at once; None for no limit.
        queue_limits: flow runs of a queue at once. Priorities decide who comes next; these keep places free for
            real-time cycles while backfills run.
        description: what runs there.
    """

    name: str
    description: str
    type: str = "process"
    template: str = "process.json"
    limit: int | None = None
    queue_limits: Mapping[str, int] = field(default_factory=dict)


POOLS = (
    Pool(name="controller", description="Flows that orchestrate: no accelerator, little memory."),
    Pool(name="gpu", description="Blocks of ensemble members on GPU workers."),
    Pool(name="tpu", description="Blocks of ensemble members on TPU workers."),
)

PoolKind = Literal["process", "docker", "kubernetes"]


def pools_of(kind: PoolKind) -> tuple[Pool, ...]:
    """The pools of a server whose workers are elsewhere.

    Args:
        kind: ``process``: flow runs in the workers' own environment; ``docker``: members on GPUs in containers of
            the workers' hosts; ``kubernetes``: every flow run as a Job.
    """
    if kind == "kubernetes":
        return tuple(replace(pool, type=kind, template=f"kubernetes-{pool.name}.json") for pool in POOLS)
    if kind == "docker":
        template = "docker-gpu.json"
        return tuple(
            replace(pool, type=kind, template=template) if pool.name == "gpu" else pool for pool in POOLS
        )
    return POOLS


CONTROLLER_SLOTS = 8
"""Flow runs at once of a controller pool's worker on one machine."""

_CONTROLLER_QUEUES = {"backfill-control": 2, "backfill": 3}
"""Leaves three places of ``CONTROLLER_SLOTS`` to real-time cycles."""


def local_pools(gpu_workers: int) -> tuple[Pool, ...]:
    """The pools of one machine, with places that backfills leave to real-time cycles.

    A single worker of members is shared: a real-time block waits at most for the block that is under way.
    """
    limits: dict[str, dict[str, int]] = {"controller": _CONTROLLER_QUEUES}
    if gpu_workers > 1:
        limits["gpu"] = {"backfill": gpu_workers - 1}
    return tuple(replace(pool, queue_limits=limits.get(pool.name, {})) for pool in POOLS)


SOURCE_LIMIT = "foldcast-source"
CONCURRENCY_LIMITS = {SOURCE_LIMIT: 4}
"""Global limits: cycles that ask providers for their inputs at once, over all workers."""


async def set_up_work_pools(client: PrefectClient, pools: tuple[Pool, ...] = POOLS) -> None:
    """Create or update pools, their queues with priorities, and the global concurrency limits.

    A pool that exists with another type, made for Kubernetes say, keeps its type and template.
    """
    for pool in pools:
        try:
            await client.create_work_pool(
                WorkPoolCreate(
                    name=pool.name,
                    type=pool.type,
                    description=pool.description,
                    base_job_template=_template(pool),
                    concurrency_limit=pool.limit,
                )
            )
        except ObjectAlreadyExists:
            if (await client.read_work_pool(pool.name)).type == pool.type:
                await client.update_work_pool(
                    pool.name,
                    WorkPoolUpdate(
                        description=pool.description,
                        base_job_template=_template(pool),
                        concurrency_limit=pool.limit,
                    ),
                )
        for queue, priority in QUEUE_PRIORITIES.items():
            await _set_up_queue(client, pool.name, queue, priority, pool.queue_limits.get(queue))
    for name, limit in CONCURRENCY_LIMITS.items():
        await client.upsert_global_concurrency_limit_by_name(name, limit)


def _template(pool: Pool) -> dict[str, Any]:
    return json.loads((Path(__file__).parent / "work_pools" / pool.template).read_text())


async def _set_up_queue(
    client: PrefectClient, pool: str, queue: str, priority: int, limit: int | None
) -> None:
    try:
        await client.create_work_queue(queue, work_pool_name=pool, priority=priority, concurrency_limit=limit)
    except ObjectAlreadyExists:
        existing = await client.read_work_queue_by_name(queue, work_pool_name=pool)
        await client.update_work_queue(existing.id, priority=priority, concurrency_limit=limit)
