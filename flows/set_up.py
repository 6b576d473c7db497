"""``foldcast set-up``: everything that a Prefect server which runs elsewhere has to know of Foldcast."""

from __future__ import annotations

import asyncio
from pathlib import Path

from prefect.client.orchestration import get_client

from flows.serve import deploy
from infra.automations import create_automations
from infra.settings import child_environment, load_settings
from infra.terminal import command_console
from infra.work_pool_setup import PoolKind, pools_of, set_up_work_pools
from tasks.launch import require_server


def set_up_command(*, pools: PoolKind, prefect_file: Path) -> None:
    """Make or update pools, queues, limits, automations and deployments on the server of ``PREFECT_API_URL``.

    May be repeated. A pool that exists with another type keeps it, and its template.

    Args:
        pools: what the pools' workers start flow runs with.
        prefect_file: the file that declares the deployments.

    Raises:
        FoldcastError: no server is named, or the file is missing or not accepted.
    """
    require_server()
    console = command_console()
    for name, kind in asyncio.run(_set_up_pools(pools)).items():
        console.print(f"Work pool {name}: {kind}")
    told = create_automations(load_settings().webhook)
    whom = "post alerts to the webhook" if told else "only show alerts in the UI: there is no webhook"
    console.print(f"Automations {whom}", soft_wrap=True)
    deploy(prefect_file, child_environment())
    console.print(f"Deployments of {prefect_file}", soft_wrap=True)


async def _set_up_pools(kind: PoolKind) -> dict[str, str]:
    wanted = pools_of(kind)
    async with get_client() as client:
        await set_up_work_pools(client, wanted)
        return {pool.name: (await client.read_work_pool(pool.name)).type for pool in wanted}
