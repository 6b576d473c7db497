"""A Prefect server and workers on this machine, as child processes that end with this one.

The server keeps its state in SQLite unless a PostgreSQL URL is given. Bound to anything but loopback it
demands basic authentication.
"""

from __future__ import annotations

import fcntl
import ipaddress
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import httpx
from pydantic import SecretStr

from infra.settings import NO_TELEMETRY, child_environment
from infra.supervision import ServiceError

_HEALTH_POLL_SECONDS = 0.5
_STOP_SECONDS = 15.0


@dataclass(frozen=True, kw_only=True)
class LocalServer:
    """Where and how the server runs.

    Args:
        home: folder of its database, profiles and logs.
        host: address to bind to.
        port: TCP port.
        database_url: PostgreSQL URL (``postgresql+asyncpg://…``); None for SQLite below ``home``.
        credentials: ``user:password`` for basic authentication; required unless host is loopback.
        variables: further environment of the server and its workers, e.g. where the configuration is.
    """

    home: Path
    host: str = "127.0.0.1"
    port: int = 4200
    database_url: SecretStr | None = field(default=None, repr=False)
    credentials: SecretStr | None = field(default=None, repr=False)
    variables: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not is_loopback(self.host) and self.credentials is None:
            raise ServiceError(f"host {self.host}: expected credentials for anything but loopback, got none")

    @property
    def api_url(self) -> str:
        """URL of the server's API as its clients on this machine use it."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/api"

    def environment(self) -> dict[str, str]:
        """Environment of the server, its workers and its clients; no telemetry."""
        variables = {
            **self.variables,
            "PREFECT_HOME": str(self.home),
            "PREFECT_API_URL": self.api_url,
            **NO_TELEMETRY,
            "PREFECT_SERVER_API_HOST": self.host,
            "PREFECT_SERVER_API_PORT": str(self.port),
            "PREFECT_WORKER_HEARTBEAT_SECONDS": "15",
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
            "PREFECT_LOGGING_LEVEL": "INFO",  # whatever the command that starts them keeps quiet about
            "PREFECT_INTERNAL_LOGGING_LEVEL": "ERROR",
            "PREFECT_LOGGING_EXTRA_LOGGERS": "flows,tasks,infra",
            # Kept in memory they are lost with a restart, and Prefect ends the flow runs that held one.
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        }
        if self.database_url is not None:
            variables["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = self.database_url.get_secret_value()
        if self.credentials is not None:
            secret = self.credentials.get_secret_value()
            variables |= {"PREFECT_SERVER_API_AUTH_STRING": secret, "PREFECT_API_AUTH_STRING": secret}
        return variables


def is_loopback(host: str) -> bool:
    """Whether an address only reaches this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@contextmanager
def sole_use(home: Path) -> Iterator[None]:
    """A folder of services to this process alone until the block ends, however the process ends.

    Raises:
        ServiceError: another process has it.
    """
    home.mkdir(parents=True, exist_ok=True)
    with open(home / "serve.lock", "a+b") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().decode(errors="replace") or "unknown"
            raise ServiceError(
                f"home {home}: another `foldcast serve` is running there, process {holder}; "
                "stop it, or give this one another --home"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()).encode())
        lock.flush()
        yield


@contextmanager
def running_server(server: LocalServer, *, timeout: float = 300.0) -> Iterator[subprocess.Popen[bytes]]:
    """The server, healthy, until the block ends.

    Raises:
        ServiceError: the port is in use, or the server did not become healthy in time.
    """
    with socket.socket(socket.AF_INET6 if ":" in server.host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((server.host, server.port))
        except OSError as error:
            raise ServiceError(
                f"port {server.port} on {server.host}: expected it free, got: {error.strerror}"
            ) from None
    with _child(server, ["infra.server_program", "prefect", "server", "start"], "server") as process:
        _wait_until_healthy(server, process, timeout)
        yield process


@contextmanager
def running_worker(
    server: LocalServer, *, pool: str, name: str, queues: Sequence[str] = (), limit: int | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process worker of a pool, until the block ends."""
    command = ["prefect", "worker", "start", "--pool", pool, "--type", "process", "--name", name]
    for queue in queues:
        command += ["--work-queue", queue]
    if limit is not None:
        command += ["--limit", str(limit)]
    with _child(server, command, f"worker-{name}") as process:
        yield process


def tied_process(
    command: Sequence[str], environment: Mapping[str, str], *, log: IO[bytes] | None = None
) -> subprocess.Popen[bytes]:
    """A Python module as a child in a session of its own, which a terminal's Ctrl-C does not reach.

    It ends with this process, however that ends, or when its standard input is closed.

    Args:
        command: the module and its arguments.
        environment: all of the child's environment.
        log: takes its output; default: where this process's goes.
    """
    return subprocess.Popen(
        [sys.executable, "-m", "infra.service_program", *command],
        env=environment,
        stdout=log,
        stderr=subprocess.STDOUT if log is not None else None,
        stdin=subprocess.PIPE,
        start_new_session=True,
    )


@contextmanager
def _child(server: LocalServer, command: Sequence[str], log_name: str) -> Iterator[subprocess.Popen[bytes]]:
    logs = server.home / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    with open(logs / f"{log_name}.log", "ab") as log:
        process = tied_process(command, child_environment(**server.environment()), log=log)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdin is not None:
            process.stdin.close()


def _wait_until_healthy(server: LocalServer, process: subprocess.Popen[bytes], timeout: float) -> None:
    deadline = time.monotonic() + timeout
    log = server.home / "logs" / "server.log"
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServiceError(f"Prefect server: ended with code {process.returncode}; see {log}")
        try:
            user, _, password = (
                server.credentials.get_secret_value().partition(":") if server.credentials else ("", "", "")
            )
            auth = httpx.BasicAuth(user, password) if user else None
            if httpx.get(f"{server.api_url}/health", auth=auth, timeout=2.0).status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass
        time.sleep(_HEALTH_POLL_SECONDS)
    raise ServiceError(f"Prefect server: not healthy after {timeout:g} s; see {log}")
