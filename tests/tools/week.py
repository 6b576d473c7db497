"""A simulated week of operations against a real server, workers and an S3 server, all on loopback.

Analyses of the bundled nature run appear at a provider with delays, and those of one cycle never do; a clock set
by hand moves from publication to publication, and at each the deployment `availability` runs while the same is
asked by hand; a cycle is started by hand besides; a backfill runs beside; a member worker is killed together with
what it computes, and the server is started again, while cycles run. At the end every cycle but the missing one is
published once, with the bytes that an undisturbed run in one process gives, and the missing one is late.

``python -m tests.tools.week --days 4 --backfill 2`` prints what happened. With ``--database-url`` the server keeps
its state in PostgreSQL.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TypeVar
from unittest import mock

import psutil
from prefect.client.orchestration import get_client
from prefect.deployments import run_deployment
from prefect.settings import PREFECT_API_URL, temporary_settings
from pydantic import SecretStr

from flows.availability import look_after
from flows.serve import client_settings, set_up
from infra import layout
from infra.cycle_status import published_cycles
from infra.demo import INIT_TIME, LAST_ANALYSIS, bundled
from infra.local_services import LocalServer, running_server, running_worker
from infra.object_store import ObjectStore
from infra.settings import Settings, child_environment, load_settings
from model.cycle import Cycle
from tests.conftest import free_port
from tests.fakes.s3 import S3Server
from tests.tools.delayed_archive import DelayedArchive
from tests.tools.undisturbed import different_cycles

ROOT = Path(__file__).resolve().parents[2]
MODEL = "graphcast-week"
T = TypeVar("T")
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
PUBLICATION_DELAY = timedelta(hours=7, minutes=34)
CUTOFF = timedelta(hours=9)
_ASK_AGAIN_SECONDS = 20.0

_CONFIGURATION = """
[store]
root = "{root}"
endpoint_url = "{endpoint}"
access_key = "test"
secret_key = "test"
[run]
submission = "{submission}"
work_pool = "gpu"
cache = "{cache}"
heartbeat = 2.0
lost_after = 30.0
poll = 1.0
[sources.provider]
type = "nature-run"
kind = "nature-run"
roots = ["{provider}"]
[models.{model}]
checkpoint = "{checkpoint}"
statistics = "{statistics}"
trained_on = "nature-run"
source = "provider"
steps = 4
checkpoint_every = 2
init_hours = [0, 12]
cutoff = "PT9H"
climatology = "{climatology}"
"""


@dataclass
class Week:
    """What happened.

    Args:
        expected: identifiers of the cycles that should be published.
        published: how often each was published, as the server's events say.
        visible: identifiers of the cycles with a manifest.
        late: how often each cycle was reported late, likewise.
        different: published cycles whose values or files are not those of an undisturbed run.
        disturbances: what was killed, started again or asked for twice.
        seconds: wall time.
    """

    expected: list[str] = field(default_factory=list)
    published: dict[str, int] = field(default_factory=dict)
    visible: list[str] = field(default_factory=list)
    late: dict[str, int] = field(default_factory=dict)
    different: list[str] = field(default_factory=list)
    disturbances: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def problems(self, *, missing: str) -> list[str]:
        """What is not as it should be, in words.

        Args:
            missing: identifier of the cycle whose inputs never came.
        """
        found = [f"{name} is not visible" for name in self.expected if name not in self.visible]
        found += [f"{name} is visible" for name in self.visible if name not in self.expected]
        found += [f"{name} was published {n} times" for name, n in self.published.items() if n != 1]
        found += [f"{name} differs from an undisturbed run" for name in self.different]
        if self.late != {missing: 1}:
            found.append(f"late: expected {missing} once, got {self.late}")
        return found


def simulate(
    folder: Path, *, days: int, backfill: int, database_url: str | None = None, limit_seconds: float = 1800.0
) -> Week:
    """Run the week; returns when every cycle has ended.

    Args:
        folder: an empty folder for everything.
        days: daily cycles of the real-time week, at least 3; the inputs of the middle one never come.
        backfill: daily 12z cycles of the same days that are filled in beside it.
        database_url: PostgreSQL for the server; default SQLite.
        limit_seconds: the longest it may take.

    Raises:
        TimeoutError: it did not finish; logs lie in ``folder``.
    """
    began = time.monotonic()
    deadline = began + limit_seconds
    week = Week()
    cycles = [Cycle(model=MODEL, init_time=INIT_TIME + day * DAY) for day in range(days)]
    filled = [Cycle(model=MODEL, init_time=INIT_TIME + 12 * HOUR + day * DAY) for day in range(backfill)]
    missing = missing_cycle(days)
    expected = [cycle for cycle in cycles if cycle != missing] + filled
    week.expected = sorted(cycle.identifier for cycle in expected)
    url = SecretStr(database_url) if database_url else None
    server = LocalServer(home=folder / "prefect", port=free_port(), database_url=url)
    with S3Server() as s3, ExitStack() as services:
        configuration = _configure(folder, s3, "disturbed", submission="work-pool")
        services.enter_context(mock.patch.dict(os.environ, _environment(server, configuration)))
        settings = load_settings()
        store = settings.store.open()
        machine = _Machine(server, services)
        services.enter_context(temporary_settings(client_settings(server)))
        set_up(server, ROOT / "prefect.yaml")
        machine.start_workers()
        provider = DelayedArchive(folder / "provider", withheld=missing.init_time)
        for day, cycle in enumerate(cycles):
            _look_by_hand(cycles[: day + 1], settings, store, cycle.init_time + PUBLICATION_DELAY - HOUR)
            provider.publish_until(cycle.init_time)
            if day == 0 and filled:
                provider.publish_until(filled[-1].init_time)
                _start_backfill(filled)
            started = _start_by_hand(cycle, services) if day == 0 else None
            now = cycle.init_time + PUBLICATION_DELAY
            _look_by_schedule(cycle, now)
            _look_by_hand(cycles[: day + 1], settings, store, now)
            if started is not None:
                week.disturbances.append(f"started {cycle.identifier} by hand as well")
            if day == (0 if cycles[1] == missing else 1):  # a day on which there is something to compute
                week.disturbances.append(machine.kill_worker(deadline))
            if day == days - 1:
                week.disturbances.append(machine.restart_server())
            if cycle != missing:
                again = partial(_look_by_hand, [cycle], settings, store, now)
                _await(store, [cycle], deadline, folder, ask=again)
            else:
                _look_by_schedule(cycle, cycle.init_time + CUTOFF + HOUR)
                _look_by_hand(cycles[: day + 1], settings, store, cycle.init_time + CUTOFF + 2 * HOUR)
        _await(store, expected, deadline, folder)
        week.published = _await_events("published", expected, deadline)
        week.late = _await_events("late", [missing], deadline)
        week.visible = sorted(manifest.cycle.identifier for manifest in published_cycles(store, MODEL))
        quiet = load_settings(_configure(folder, s3, "quiet", submission="in-process"))
        with _no_server():
            week.different = different_cycles(list(published_cycles(store, MODEL)), store, quiet)
    week.seconds = time.monotonic() - began
    return week


def missing_cycle(days: int) -> Cycle:
    """The cycle whose inputs never come."""
    return Cycle(model=MODEL, init_time=INIT_TIME + days // 2 * DAY)


class _Machine:
    """The server and the workers, and what happens to them."""

    def __init__(self, server: LocalServer, services: ExitStack) -> None:
        self._server = server
        self._services = services
        self._server_stack = services.enter_context(ExitStack())
        self._server_stack.enter_context(running_server(server))
        self._member_workers: list[subprocess.Popen[bytes]] = []

    def start_workers(self) -> None:
        """One for controllers and two for members."""
        self._services.enter_context(
            running_worker(self._server, pool="controller", name="controller", limit=4)
        )
        for _ in range(2):
            self._start_member_worker()

    def _start_member_worker(self) -> None:
        name = f"gpu-{len(self._member_workers)}"
        worker = running_worker(self._server, pool="gpu", name=name, limit=1)
        self._member_workers.append(self._services.enter_context(worker))

    def kill_worker(self, deadline: float) -> str:
        """SIGKILL a member worker that computes a block, and the block's process; start another worker."""
        busy = _until(self._busy_worker, deadline, "a member worker computes")
        victims = [*busy.children(recursive=True), busy]
        for process in victims:
            process.kill()
        psutil.wait_procs(victims, timeout=10)
        self._start_member_worker()
        return f"killed a member worker and {len(victims) - 1} processes of its block"

    def _busy_worker(self) -> psutil.Process | None:
        for worker in self._member_workers:
            if worker.poll() is None and psutil.Process(worker.pid).children():
                return psutil.Process(worker.pid)
        return None

    def restart_server(self) -> str:
        """End the server and start it again on its database."""
        self._server_stack.close()
        self._server_stack.enter_context(running_server(self._server))
        return "restarted the server"


def _environment(server: LocalServer, configuration: Path) -> dict[str, str]:
    return {
        "FOLDCAST_CONFIG": str(configuration),
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "AWS_DEFAULT_REGION": "us-east-1",
        "PREFECT_API_URL": server.api_url,
    }


def _configure(folder: Path, s3: S3Server, name: str, *, submission: str) -> Path:
    path = folder / f"{name}.toml"
    text = _CONFIGURATION.format(
        root=f"s3://{s3.new_bucket()}/{name}",
        endpoint=s3.options["endpoint_url"],
        submission=submission,
        cache=folder / "cache",
        provider=folder / "provider",
        model=MODEL,
        checkpoint=bundled("graphcast.npz"),
        statistics=bundled("graphcast_stats"),
        climatology=bundled("climatology.nc"),
    )
    path.write_text(text)
    return path


def _look_by_hand(cycles: list[Cycle], settings: Settings, store: ObjectStore, now: datetime) -> None:
    for cycle in cycles:
        look_after(cycle, settings, store, now=now, attempts=5, pause=timedelta(0))


def _look_by_schedule(cycle: Cycle, now: datetime, *, tries: int = 5) -> None:
    """The deployment that the schedule runs, at a moment of the simulated clock.

    A run that meets one of the schedule's own is cancelled by the deployment's limit; then it is tried again.
    """
    for _ in range(tries):
        run = run_deployment(
            "availability/availability",
            parameters={"models": [cycle.model], "now": now.isoformat(), "look_back": "PT12H"},
            timeout=300,
            poll_interval=1,
            as_subflow=False,
        )
        if run.state is not None and run.state.is_completed():
            return
    raise RuntimeError(f"availability at {now}: expected it completed, got {run.state}")


def _start_by_hand(cycle: Cycle, services: ExitStack) -> subprocess.Popen[bytes]:
    """What somebody types at the moment at which the schedule starts the same cycle."""
    command = ["forecast", "--model", cycle.model, "--init", cycle.identifier]
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", *command], env=child_environment(), stdout=subprocess.DEVNULL
    )
    services.callback(process.wait)
    return process


def _start_backfill(cycles: list[Cycle]) -> None:
    run_deployment(
        "backfill/backfill",
        parameters={
            "start": cycles[0].init_time.isoformat(),
            "end": cycles[-1].init_time.isoformat(),
            "models": [MODEL],
            "max_parallel": 1,
            "poll_seconds": 2.0,
        },
        timeout=0,
        as_subflow=False,
    )


def _await(
    store: ObjectStore,
    cycles: list[Cycle],
    deadline: float,
    folder: Path,
    ask: Callable[[], None] | None = None,
) -> None:
    """Wait for publication; ``ask`` is called at intervals, as the schedule would."""
    asked = time.monotonic()

    def published() -> bool:
        nonlocal asked
        if ask is not None and time.monotonic() - asked > _ASK_AGAIN_SECONDS:
            ask()
            asked = time.monotonic()
        return all(store.exists(layout.cycle_manifest(cycle)) for cycle in cycles)

    _until(published, deadline, f"{', '.join(map(str, cycles))} published; logs are in {folder}")


def _until(condition: Callable[[], T], deadline: float, what: str) -> T:
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"expected within the time limit: {what}")
        time.sleep(0.5)
    return result


def _await_events(event: str, cycles: list[Cycle], deadline: float) -> dict[str, int]:
    """How often each of some cycles raised an event; events reach the server a little later than the store.

    The server's own schedules look for cycles of the real date, which are late: these do not count.
    """
    names = {cycle.identifier for cycle in cycles}
    found: Counter[str] = Counter()

    def all_seen() -> bool:
        nonlocal found
        found = asyncio.run(_events(event))
        return names <= found.keys()

    _until(all_seen, min(deadline, time.monotonic() + 60), f"an event {event} of each of {sorted(names)}")
    return {name: count for name, count in found.items() if name <= f"{LAST_ANALYSIS:%Y%m%dT%HZ}"}


async def _events(event: str) -> Counter[str]:
    query = {"filter": {"event": {"name": [f"foldcast.cycle.{event}"]}}, "limit": 50}
    async with get_client() as client:
        answer = await client.request("POST", "/events/filter", json=query)
    return Counter(
        found["resource"]["prefect.resource.id"].split(".")[-1] for found in answer.json()["events"]
    )


@contextmanager
def _no_server() -> Iterator[None]:
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        yield


def main() -> None:
    """Simulate one week and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=int, default=7)
    parser.add_argument("--backfill", type=int, default=5)
    parser.add_argument("--database-url")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--limit-minutes", type=float, default=60.0)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="week-", dir=arguments.folder))
    week = simulate(
        folder,
        days=arguments.days,
        backfill=arguments.backfill,
        database_url=arguments.database_url,
        limit_seconds=60 * arguments.limit_minutes,
    )
    print(week)
    problems = week.problems(missing=missing_cycle(arguments.days).identifier)
    print("\n".join(problems) or "as undisturbed")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
