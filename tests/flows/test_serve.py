"""The services of one machine, against a real Prefect server on loopback."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from prefect.automations import Automation
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags
from prefect.flows import load_flow_from_entrypoint
from prefect.settings import temporary_settings
from prefect.states import Cancelled, Crashed, State
from pydantic import SecretStr

import flows.serve
from flows.serve import client_settings, set_up
from infra.claims import CycleBusyError
from infra.local_services import LocalServer, ServiceError, running_server, sole_use
from model.cycle import Cycle
from tasks.launch import held_elsewhere, start_cycle
from tests.conftest import free_port

ROOT = Path(__file__).resolve().parents[2]
CYCLE = Cycle(model="tiny", init_time=datetime(2026, 1, 2, tzinfo=UTC))


@pytest.fixture(scope="module")
def deployed(prefect_server: LocalServer) -> LocalServer:
    set_up(prefect_server, ROOT / "prefect.yaml")
    return prefect_server


async def seen() -> dict[str, set[str]]:
    async with get_client() as client:
        return {
            "deployments": {d.name for d in await client.read_deployments()},
            "pools": {p.name for p in await client.read_work_pools()},
            "queues": {f"{q.name}:{q.priority}" for q in await client.read_work_queues()},
        }


@pytest.mark.server
def test_setting_up_twice_leaves_one_of_each(deployed: LocalServer) -> None:
    set_up(deployed, ROOT / "prefect.yaml")
    declared = {d["name"] for d in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]}
    with temporary_settings(client_settings(deployed)):
        found = asyncio.run(seen())
        assert Automation.read(name="foldcast: late").enabled
    assert declared <= found["deployments"]  # the server is shared with other tests' deployments
    assert {"controller", "gpu", "tpu"} <= found["pools"]
    assert {"realtime:1", "backfill:10"} <= found["queues"]


async def scheduled_names() -> set[str]:
    async with get_client() as client:
        runs = await client.read_flow_runs()
        deployments = {deployment.id: deployment.name for deployment in await client.read_deployments()}
    return {deployments[run.deployment_id] for run in runs if run.auto_scheduled and run.deployment_id}


@pytest.mark.server
def test_schedules_make_flow_runs(deployed: LocalServer) -> None:
    wanted = {"availability", "backstop", "verification", "retention"}
    found: set[str] = set()
    with temporary_settings(client_settings(deployed)):
        give_up = time.monotonic() + 120
        while not wanted <= found and time.monotonic() < give_up:
            found = asyncio.run(scheduled_names())
            time.sleep(0.5)
    assert wanted <= found


@pytest.mark.server
def test_a_cycle_asked_for_twice_is_started_once(deployed: LocalServer) -> None:
    with temporary_settings(client_settings(deployed)):
        first = start_cycle(CYCLE, queue="realtime", attempts=2)
        second = start_cycle(CYCLE, queue="realtime", attempts=2)
    assert (first.state, second.state) == ("started", "running")
    assert second.attempts == 1


@pytest.mark.server
def test_a_failed_attempt_is_followed_by_another_until_they_are_used_up(deployed: LocalServer) -> None:
    cycle = Cycle(model="unlucky", init_time=CYCLE.init_time)
    with temporary_settings(client_settings(deployed)):
        states = []
        for _ in range(3):
            status = start_cycle(cycle, queue="realtime", attempts=2)
            states.append((status.state, status.attempts))
            asyncio.run(crash_runs_of(cycle))
    assert states == [("started", 1), ("started", 2), ("failed", 2)]


@pytest.mark.server
def test_a_run_that_found_another_at_its_cycle_was_no_attempt(deployed: LocalServer) -> None:
    cycle = Cycle(model="contended", init_time=CYCLE.init_time)
    busy = held_elsewhere(CycleBusyError("held by hand"))
    with temporary_settings(client_settings(deployed)):
        states = []
        for end in (busy, Crashed(message="died"), busy, Cancelled(message="by a person"), busy):
            status = start_cycle(cycle, queue="realtime", attempts=2)
            states.append((status.state, status.attempts))
            asyncio.run(end_runs_of(cycle, end))
    assert states == [("started", 1), ("started", 1), ("started", 2), ("started", 2), ("failed", 2)]


async def crash_runs_of(cycle: Cycle) -> None:
    await end_runs_of(cycle, Crashed(message="the worker died"))


async def end_runs_of(cycle: Cycle, state: State) -> None:
    """Put those of a cycle's flow runs into a final state that have none yet."""
    tagged = FlowRunFilter(tags=FlowRunFilterTags(all_=[cycle.model, cycle.identifier]))
    async with get_client() as client:
        for run in await client.read_flow_runs(flow_run_filter=tagged):
            if run.state is None or not run.state.is_final():
                await client.set_flow_run_state(run.id, state, force=True)


def test_every_deployment_names_an_importable_flow() -> None:
    for deployment in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]:
        flow = load_flow_from_entrypoint(deployment["entrypoint"], use_placeholder_flow=False)
        assert callable(flow), deployment["name"]


def test_a_port_in_use_is_one_readable_error(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server = LocalServer(home=tmp_path, port=taken.getsockname()[1])
        with pytest.raises(ServiceError, match="expected it free"), running_server(server):
            pass


def test_a_second_one_on_the_same_home_is_one_readable_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flows.serve, "_configuration", lambda host, port: {})
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    home = tmp_path / "home"
    expected = rf"home {home}: another `foldcast serve` is running there, process {os.getpid()};"
    with sole_use(home), pytest.raises(ServiceError, match=expected):
        flows.serve.serve(home=home, port=free_port())
    with sole_use(home):  # nothing stays behind
        pass


def test_a_home_whose_process_was_killed_is_free(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from infra.local_services import sole_use\n"
        "with sole_use(Path(sys.argv[1])): os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    with sole_use(tmp_path):
        pass


class Started(Exception):
    """Everything is started."""


def test_members_are_never_kept_waiting_by_a_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: dict[str, tuple[str, ...]] = {}

    @contextmanager
    def worker(
        server: LocalServer, *, pool: str, name: str, queues: tuple[str, ...] = (), limit: int
    ) -> Iterator[SimpleNamespace]:
        served[name] = queues
        yield SimpleNamespace(poll=lambda: None)

    @contextmanager
    def server(_: LocalServer) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(poll=lambda: None)

    def stop(_: float) -> None:
        raise Started

    for name, value in {
        "_configuration": lambda host, port: {}, "running_server": server, "running_worker": worker,
        "set_up": lambda *_, **__: None, "time": SimpleNamespace(sleep=stop),
    }.items():  # fmt: skip
        monkeypatch.setattr(flows.serve, name, value)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with pytest.raises(Started):
        flows.serve.serve(home=tmp_path, gpu_workers=2, training_workers=1, pages_port=0)
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    training = next(d for d in deployments if d["name"] == "training")["work_pool"]["work_queue_name"]
    assert served["gpu-0"] == served["gpu-1"] == ("realtime", "backfill-control", "backfill")
    assert served["training-0"] == (training,)


def test_a_service_that_is_stopped_has_not_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @contextmanager
    def server(_: LocalServer) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(poll=lambda: None)
        print("the server has ended")

    def stop(_: float) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    for name, value in {
        "_configuration": lambda host, port: {}, "running_server": server, "set_up": lambda *_, **__: None,
        "running_worker": lambda *_, **__: server(_), "time": SimpleNamespace(sleep=stop),
    }.items():  # fmt: skip
        monkeypatch.setattr(flows.serve, name, value)
    before = signal.getsignal(signal.SIGTERM)
    try:
        flows.serve.serve(home=tmp_path, gpu_workers=0, pages_port=0)
    finally:
        signal.signal(signal.SIGTERM, before)
    *_, ended, said = capsys.readouterr().out.splitlines()
    assert ended == "the server has ended"
    assert said == "Foldcast has stopped serving; what was under way goes on when it serves again."


def test_what_serve_starts_logs_though_the_command_itself_is_quiet(tmp_path: Path) -> None:
    environment = LocalServer(home=tmp_path).environment()
    assert environment["PREFECT_LOGGING_LEVEL"] == "INFO"
    assert {"flows", "tasks", "infra"} <= set(environment["PREFECT_LOGGING_EXTRA_LOGGERS"].split(","))


def test_beyond_loopback_credentials_are_demanded(tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match="expected credentials"):
        LocalServer(home=tmp_path, host="0.0.0.0")
    server = LocalServer(home=tmp_path, host="0.0.0.0", credentials=SecretStr("admin:hush"))
    assert "hush" not in repr(server)
