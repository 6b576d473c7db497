"""Everything that runs every day, on one machine: server, work pools, deployments, automations, workers."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import FrameType

from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, PREFECT_HOME, temporary_settings
from pydantic import SecretStr
from rich.console import Console

from infra.automations import create_automations
from infra.claims import utc_now
from infra.local_services import LocalServer, running_server, running_worker, sole_use
from infra.metrics import serve_metrics
from infra.object_store import ObjectStore
from infra.settings import child_environment, configuration_file, load_settings
from infra.store_server import serve_store
from infra.supervision import ServiceError, Supervisor
from infra.terminal import command_console
from infra.work_pool_setup import (
    CONTROLLER_SLOTS,
    MEMBER_QUEUES,
    TRAINING_QUEUE,
    local_pools,
    set_up_work_pools,
)

_POLL_SECONDS = 1.0


def serve(
    *,
    host: str = "127.0.0.1",
    port: int = 4200,
    home: Path = Path("foldcast-server"),
    database_url: str | None = None,
    credentials: str | None = None,
    gpu_workers: int = 1,
    training_workers: int = 0,
    pages_port: int = 4201,
    metrics_port: int | None = None,
    prefect_file: Path = Path("prefect.yaml"),
) -> None:
    """Start everything and keep it running until it is stopped; a service that ends is started again.

    Args:
        host: address of the UI and API; anything but loopback needs credentials.
        port: TCP port of the UI and API.
        home: folder for the server's database and logs.
        database_url: PostgreSQL URL; default: SQLite below ``home``.
        credentials: ``user:password`` for basic authentication.
        gpu_workers: workers of the member pool on this machine, one per accelerator.
        training_workers: workers that train; without one a training waits in its queue.
        pages_port: TCP port of the products' pages, which the UI links to; 0 for none.
        metrics_port: TCP port for Prometheus; default: no metrics.
        prefect_file: the file that declares the deployments.

    Raises:
        ServiceError: no model is configured, a port or ``home`` is in use, a service does not start, or one keeps
            ending.
    """
    console = command_console()
    server = LocalServer(
        home=home.resolve(),
        host=host,
        port=port,
        database_url=SecretStr(database_url) if database_url else None,
        credentials=SecretStr(credentials) if credentials else None,
        variables=_configuration(host, pages_port),
    )
    open_store = partial(_open_store, server)
    with _stoppable(console), ExitStack() as others, Supervisor() as services:
        others.enter_context(sole_use(server.home))
        if pages_port:
            with _free(pages_port):
                others.callback(serve_store(open_store, host=host, port=pages_port, credentials=credentials))
        if metrics_port is not None:
            with _free(metrics_port):
                others.callback(serve_metrics(open_store, port=metrics_port, clock=utc_now, host=host))
        services.start("server", partial(running_server, server))
        set_up(server, prefect_file, gpu_workers=gpu_workers)
        worker = partial(running_worker, server)
        services.start(
            "controller", partial(worker, pool="controller", name="controller", limit=CONTROLLER_SLOTS)
        )
        for index in range(gpu_workers):
            name = f"gpu-{index}"
            services.start(name, partial(worker, pool="gpu", name=name, queues=MEMBER_QUEUES, limit=1))
        for index in range(training_workers):
            name = f"training-{index}"
            services.start(name, partial(worker, pool="gpu", name=name, queues=(TRAINING_QUEUE,), limit=1))
        console.print(f"Foldcast is serving. UI: {server.api_url.removesuffix('/api')}", soft_wrap=True)
        if pages_port:
            pages = f"http://{_reachable(host)}:{pages_port}/"
            console.print(f"Products: {pages} once a cycle is published", soft_wrap=True)
        console.print(f"Logs: {server.home / 'logs'}. Stop with Ctrl-C.", soft_wrap=True)
        while True:
            for name in services.look():
                console.print(f"{utc_now():%Y-%m-%d %H:%M:%S}Z {name} had ended and was started again")
            time.sleep(_POLL_SECONDS)


@contextmanager
def _stoppable(console: Console) -> Iterator[None]:
    """Ctrl-C, or SIGTERM as a service manager sends it, ends the block: so a service ends, and nothing has failed."""
    signal.signal(signal.SIGTERM, _stop)
    try:
        yield
    except KeyboardInterrupt:
        console.print("Foldcast has stopped serving; what was under way goes on when it serves again.")


def _stop(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt


def _configuration(host: str, pages_port: int) -> dict[str, str]:
    """The environment in which a worker, whose flow runs start in folders of their own, finds what is configured.

    Raises:
        ServiceError: no model is configured, so nothing would ever run.
    """
    file, settings = configuration_file(), load_settings()
    if not settings.models:
        where = f"in {file}" if file else "and found no foldcast.toml here; FOLDCAST_CONFIG names another"
        raise ServiceError(f"configuration: expected at least one model {where}")
    variables = {"FOLDCAST_STORE__ROOT": settings.store.root, "FOLDCAST_RUN__CACHE": settings.run.cache}
    if file is not None:
        variables["FOLDCAST_CONFIG"] = str(file)
    if settings.store.public_url is None and pages_port:
        variables["FOLDCAST_STORE__PUBLIC_URL"] = f"http://{_reachable(host)}:{pages_port}"
    return variables


def _reachable(host: str) -> str:
    return socket.gethostname() if host in ("0.0.0.0", "::") else host


@contextmanager
def _free(port: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ServiceError(f"port {port}: expected it free, got: {error.strerror}") from None


def _open_store(server: LocalServer) -> ObjectStore:
    store = load_settings().store
    if not store.credentials_block:
        return store.open()
    with temporary_settings(client_settings(server)):
        return store.open()


def set_up(server: LocalServer, prefect_file: Path, *, gpu_workers: int = 1) -> None:
    """Pools, queues, limits, deployments and automations of a running server; may be repeated.

    Args:
        server: the server.
        prefect_file: the file that declares the deployments.
        gpu_workers: workers of the member pool; with more than one, backfills leave one free.

    Raises:
        ServiceError: the file is missing or not accepted.
    """
    with temporary_settings(client_settings(server)):
        asyncio.run(_set_up_pools(gpu_workers))
        create_automations(load_settings().webhook)
    deploy(prefect_file, child_environment(**server.environment()))


def deploy(prefect_file: Path, environment: dict[str, str]) -> None:
    """Make or update the deployments that a file declares.

    Args:
        prefect_file: the file; a relative path that is not in the working folder is sought in the checkout.
        environment: names the server.

    Raises:
        ServiceError: the file is missing or not accepted.
    """
    if not prefect_file.is_file() and not prefect_file.is_absolute():
        prefect_file = Path(__file__).parents[1] / prefect_file  # that of the checkout
    if not prefect_file.is_file():
        raise ServiceError(f"deployments: expected a prefect.yaml at {prefect_file.resolve()}, found none")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "prefect",
            "--no-prompt",
            "deploy",
            "--all",
            "--prefect-file",
            prefect_file.name,
        ],
        cwd=prefect_file.resolve().parent,  # entry points in it are relative to its folder
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ServiceError(f"deployments: prefect deploy failed: {(done.stderr or done.stdout)[-2000:]}")


def client_settings(server: LocalServer) -> dict:
    """Prefect settings with which this process talks to the server."""
    settings = {PREFECT_API_URL: server.api_url, PREFECT_HOME: str(server.home)}
    if server.credentials is not None:
        settings[PREFECT_API_AUTH_STRING] = server.credentials.get_secret_value()
    return settings


async def _set_up_pools(gpu_workers: int) -> None:
    async with get_client() as client:
        await set_up_work_pools(client, local_pools(gpu_workers))
