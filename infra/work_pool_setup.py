"""Work pools, their queues and concurrency limits on a Prefect server; may be run any number of times."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.exceptions import ObjectAlreadyExists

QUEUE_PRIORITIES = {"realtime": 1, "backfill": 10}
"""Queue name → priority; a lower number is served first, so the backfill never delays a real-time cycle."""


@dataclass(frozen=True, kw_only=True)
class Pool:
    """A work pool.

    Args:
        name: name that deployments refer to.
        type: Prefect worker type: process, docker or kubernetes.
        template: name of its base job template below ``infra/work_pools``.
        limit: flow runs at once; None for no limit.
        description: what runs there.
    """

    name: str
    description: str
    type: str = "process"
    template: str = "process.json"
    limit: int | None = None


POOLS = (
    Pool(name="controller", description="Flows that orchestrate: no accelerator, little memory."),
    Pool(name="gpu", description="Blocks of ensemble members on GPU workers."),
    Pool(name="tpu", description="Blocks of ensemble members on TPU workers."),
)

CONCURRENCY_LIMITS = {"foldcast-source": 4, "foldcast-publish": 2}
"""Global limits: provider downloads and publications at once over all workers."""


async def set_up_work_pools(client: PrefectClient, pools: tuple[Pool, ...] = POOLS) -> None:
    """Create or update pools, their queues with priorities, and the global concurrency limits."""
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
            await client.update_work_pool(
                pool.name,
                WorkPoolUpdate(
                    description=pool.description,
                    base_job_template=_template(pool),
                    concurrency_limit=pool.limit,
                ),
            )
        for queue, priority in QUEUE_PRIORITIES.items():
            await _set_up_queue(client, pool.name, queue, priority)
    for name, limit in CONCURRENCY_LIMITS.items():
        await client.upsert_global_concurrency_limit_by_name(name, limit)


def _template(pool: Pool) -> dict[str, Any]:
    return json.loads((Path(__file__).parent / "work_pools" / pool.template).read_text())


async def _set_up_queue(client: PrefectClient, pool: str, queue: str, priority: int) -> None:
    try:
        await client.create_work_queue(queue, work_pool_name=pool, priority=priority)
    except ObjectAlreadyExists:
        existing = await client.read_work_queue_by_name(queue, work_pool_name=pool)
        await client.update_work_queue(existing.id, priority=priority)
