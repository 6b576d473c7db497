"""Pools of a server that runs elsewhere, on a stand-in for it; the deployments are tested with ``foldcast serve``."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Any
from uuid import uuid4

import pytest
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.exceptions import ObjectAlreadyExists
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows import set_up
from infra.errors import FoldcastError
from infra.work_pool_setup import POOLS, QUEUE_PRIORITIES, pools_of, set_up_work_pools

TEMPLATES = Path(__file__).resolve().parents[2] / "infra" / "work_pools"


class Server:
    """Keeps work pools and queues as a Prefect server does, as far as ``set_up_work_pools`` asks."""

    def __init__(self) -> None:
        self.pools: dict[str, WorkPoolCreate] = {}
        self.queues: dict[tuple[str, str], int] = {}
        self.limits: dict[str, int] = {}

    async def __aenter__(self) -> Server:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass

    async def create_work_pool(self, pool: WorkPoolCreate) -> None:
        if pool.name in self.pools:
            raise ObjectAlreadyExists(ValueError(pool.name))
        self.pools[pool.name] = pool

    async def read_work_pool(self, name: str) -> WorkPoolCreate:
        return self.pools[name]

    async def update_work_pool(self, name: str, update: WorkPoolUpdate) -> None:
        changes = update.model_dump(exclude_unset=True)
        self.pools[name] = self.pools[name].model_copy(update=changes)

    async def create_work_queue(self, name: str, *, work_pool_name: str, priority: int, **_: Any) -> None:
        if (work_pool_name, name) in self.queues:
            raise ObjectAlreadyExists(ValueError(name))
        self.queues[work_pool_name, name] = priority

    async def read_work_queue_by_name(self, name: str, *, work_pool_name: str) -> SimpleNamespace:
        assert (work_pool_name, name) in self.queues
        return SimpleNamespace(id=uuid4())

    async def update_work_queue(self, *_: Any, **__: Any) -> None:
        pass

    async def upsert_global_concurrency_limit_by_name(self, name: str, limit: int) -> None:
        self.limits[name] = limit


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    server = Server()
    monkeypatch.setattr(set_up, "get_client", lambda: server)
    return server


def template(name: str) -> dict[str, Any]:
    return json.loads((TEMPLATES / name).read_text())


def test_set_up_makes_every_pool_for_kubernetes_from_our_templates(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done: list[Any] = []
    monkeypatch.setattr(set_up, "create_automations", lambda webhook: bool(done.append(webhook)))
    monkeypatch.setattr(set_up, "deploy", lambda file, environment: done.append(file))
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:1/api"}):
        for _ in range(2):
            set_up.set_up_command(pools="kubernetes", prefect_file=Path("prefect.yaml"))
    assert {name: pool.type for name, pool in server.pools.items()} == {
        "controller": "kubernetes",
        "gpu": "kubernetes",
        "tpu": "kubernetes",
    }
    for name, pool in server.pools.items():
        assert pool.base_job_template == template(f"kubernetes-{name}.json")
    assert server.queues == {
        (pool.name, queue): priority for pool in POOLS for queue, priority in QUEUE_PRIORITIES.items()
    }
    assert done == [None, Path("prefect.yaml")] * 2
    printed = capsys.readouterr().out
    assert "Work pool tpu: kubernetes" in printed
    assert "no webhook" in printed


def test_without_a_server_nothing_is_set_up(server: Server) -> None:
    with temporary_settings({PREFECT_API_URL: None}), pytest.raises(FoldcastError, match="PREFECT_API_URL"):
        set_up.set_up_command(pools="kubernetes", prefect_file=Path("prefect.yaml"))
    assert server.pools == {}


def test_a_pool_made_for_kubernetes_keeps_its_template(server: Server) -> None:
    asyncio.run(set_up_work_pools(server, pools_of("kubernetes")))  # type: ignore[arg-type]
    asyncio.run(set_up_work_pools(server, pools_of("process")))  # type: ignore[arg-type]
    assert server.pools["gpu"].type == "kubernetes"
    assert server.pools["gpu"].base_job_template == template("kubernetes-gpu.json")


def test_on_gpu_hosts_members_run_in_containers() -> None:
    kinds = {pool.name: (pool.type, pool.template) for pool in pools_of("docker")}
    assert kinds["gpu"] == ("docker", "docker-gpu.json")
    assert kinds["controller"] == ("process", "process.json")
