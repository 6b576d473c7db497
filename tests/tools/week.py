"""A simulated week of operations against a real server, workers and an S3 server, all on loopback.

Analyses of the bundled nature run appear at a provider with delays, one of them never in time; a clock set by
hand moves from publication to publication; `availability` is asked again and again; a backfill runs beside; a
worker is killed and the server restarted on the way. At the end every cycle is published once, with the values
that an undisturbed run in one process gives.

``python -m tests.tools.week --days 4 --backfill 2`` prints what happened. With ``--database-url`` the server keeps
its state in PostgreSQL.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from unittest import mock

from prefect.deployments import run_deployment
from prefect.settings import temporary_settings
from pydantic import SecretStr

from flows.availability import look_after
from flows.forecast import run_cycle
from flows.serve import client_settings, set_up
from infra import layout
from infra.cycle_status import published_cycles
from infra.demo import INIT_TIME, bundled
from infra.local_services import LocalServer, running_server, running_worker
from infra.manifests import load_member_manifest
from infra.object_store import ObjectStore
from infra.publication import Manifest
from infra.settings import Settings, load_settings
from model.cycle import Cycle
from tests.conftest import free_port
from tests.fakes.s3 import S3Server

ROOT = Path(__file__).resolve().parents[2]
MODEL = "graphcast-week"
DAY, SIX_HOURS = timedelta(days=1), timedelta(hours=6)
PUBLICATION_DELAY = timedelta(hours=7, minutes=34)
CUTOFF = timedelta(hours=9)

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
init_hours = [0]
cutoff = "PT9H"
climatology = "{climatology}"
"""


@dataclass
class Week:
    """What happened.

    Args:
        published: init times with a manifest, in order.
        late: init times that were reported late.
        started: how often each cycle was reported as started.
        identical: whether every cycle's values are those of an undisturbed run.
        disturbances: what was killed or restarted.
        seconds: wall time.
    """

    published: list[str] = field(default_factory=list)
    late: list[str] = field(default_factory=list)
    started: dict[str, int] = field(default_factory=dict)
    identical: bool = False
    disturbances: list[str] = field(default_factory=list)
    seconds: float = 0.0


def simulate(
    folder: Path, *, days: int, backfill: int, database_url: str | None = None, limit_seconds: float = 1800.0
) -> Week:
    """Run the week; returns when every cycle has ended.

    Args:
        folder: an empty folder for everything.
        days: daily cycles of the real-time week.
        backfill: daily 12z cycles of the same days that are filled in beside it.
        database_url: PostgreSQL for the server; default SQLite.
        limit_seconds: the longest it may take.

    Raises:
        TimeoutError: it did not finish; logs lie in ``folder``.
    """
    began = time.monotonic()
    week = Week()
    first = INIT_TIME
    missing_day = days // 2
    url = SecretStr(database_url) if database_url else None
    server = LocalServer(home=folder / "prefect", port=free_port(), database_url=url)
    with S3Server() as s3, ExitStack() as services:
        configuration = _configure(folder, s3, "disturbed", submission="work-pool")
        services.enter_context(
            mock.patch.dict(
                os.environ,
                {
                    "FOLDCAST_CONFIG": str(configuration),
                    "PYTHONPATH": str(ROOT),
                    "AWS_DEFAULT_REGION": "us-east-1",
                    "PREFECT_API_URL": server.api_url,
                },
            )
        )
        settings = load_settings()
        store = settings.store.open()
        machine = _Machine(server, services)
        services.enter_context(temporary_settings(client_settings(server)))
        set_up(server, ROOT / "prefect.yaml")
        provider = _Provider(folder / "provider")
        cycles = [Cycle(model=MODEL, init_time=first + day * DAY) for day in range(days)]
        for day, cycle in enumerate(cycles):
            withheld = cycle.init_time if day == missing_day else None
            now = cycle.init_time + PUBLICATION_DELAY - timedelta(hours=1)
            _look(cycles[: day + 1], settings, store, now, week)
            provider.publish_until(cycle.init_time, withheld=withheld)
            _look(cycles[: day + 1], settings, store, cycle.init_time + PUBLICATION_DELAY, week)
            _look(cycles[: day + 1], settings, store, cycle.init_time + CUTOFF + SIX_HOURS / 6, week)
            if day == 1 and backfill:
                provider.publish_until(first + backfill * DAY, withheld=None)
                run_deployment(
                    "backfill/backfill",
                    parameters={
                        "start": (first + SIX_HOURS * 2).isoformat(),
                        "end": (first + SIX_HOURS * 2 + (backfill - 1) * DAY).isoformat(),
                        "models": [MODEL],
                        "max_parallel": 1,
                        "poll_seconds": 2.0,
                    },
                    timeout=0,
                    as_subflow=False,
                )
            if day == 2:
                week.disturbances.append(machine.kill_worker())
            if day == 3:
                week.disturbances.append(machine.restart_server())
            if day != missing_day:
                _await(store, [cycle], began + limit_seconds, folder)
        provider.publish_until(cycles[-1].init_time, withheld=None)
        _look(cycles, settings, store, cycles[-1].init_time + PUBLICATION_DELAY, week)
        expected = cycles + [
            Cycle(model=MODEL, init_time=first + SIX_HOURS * 2 + day * DAY) for day in range(backfill)
        ]
        _await(store, expected, began + limit_seconds, folder)
        published = list(published_cycles(store, MODEL))
        week.published = [manifest.cycle.identifier for manifest in published]
        quiet = _configure(folder, s3, "quiet", submission="in-process")
        week.identical = _equals_undisturbed(published, store, load_settings(quiet))
    week.seconds = time.monotonic() - began
    return week


class _Provider:
    """An archive in which analyses appear as time goes on."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir()
        shutil.copyfile(bundled("analyses") / "statics.grib2", folder / "statics.grib2")

    def publish_until(self, last: datetime, *, withheld: datetime | None) -> None:
        for path in sorted(bundled("analyses").glob("*/*z.grib2")):
            valid_time = datetime.strptime(f"{path.parent.name}{path.stem}+0000", "%Y%m%d%Hz%z")
            target = self._folder / path.parent.name / path.name
            if valid_time <= last and valid_time != withheld and not target.exists():
                target.parent.mkdir(exist_ok=True)
                shutil.copyfile(path, target.with_suffix(".part"))
                target.with_suffix(".part").replace(target)


class _Machine:
    """The server and the workers, and what happens to them."""

    def __init__(self, server: LocalServer, services: ExitStack) -> None:
        self._server = server
        self._services = services
        self._server_stack = ExitStack()
        services.callback(self._server_stack.close)
        self._server_stack.enter_context(running_server(server))
        self._count = 0
        self._workers = [
            self._start(pool, limit) for pool, limit in (("controller", 3), ("gpu", 1), ("gpu", 1))
        ]

    def _start(self, pool: str, limit: int) -> tuple[str, int, object]:
        self._count += 1
        name = f"{pool}-{self._count}"
        worker = running_worker(self._server, pool=pool, name=name, limit=limit)
        return pool, limit, self._services.enter_context(worker)

    def kill_worker(self) -> str:
        """SIGKILL the first member worker and start another in its place."""
        pool, limit, process = self._workers[1]
        process.send_signal(signal.SIGKILL)  # type: ignore[attr-defined]
        process.wait()  # type: ignore[attr-defined]
        self._workers[1] = self._start(pool, limit)
        return "killed a member worker"

    def restart_server(self) -> str:
        """End the server and start it again on its database."""
        self._server_stack.close()
        self._server_stack = ExitStack()
        self._services.callback(self._server_stack.close)
        self._server_stack.enter_context(running_server(self._server))
        return "restarted the server"


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


def _look(cycles: list[Cycle], settings: Settings, store: ObjectStore, now: datetime, week: Week) -> None:
    """What the availability flow does at one moment, twice, as two of its runs might at once."""
    for cycle in cycles + cycles:
        status = look_after(cycle, settings, store, now=now, attempts=3)
        if status.state == "started":
            week.started[cycle.identifier] = week.started.get(cycle.identifier, 0) + 1
        if status.state == "late" and cycle.identifier not in week.late:
            week.late.append(cycle.identifier)


def _await(store: ObjectStore, cycles: list[Cycle], deadline: float, folder: Path) -> None:
    while not all(store.exists(layout.cycle_manifest(cycle)) for cycle in cycles):
        if time.monotonic() > deadline:
            raise TimeoutError(f"cycles are not published in time: {[str(c) for c in cycles]}; see {folder}")
        time.sleep(1.0)


def _equals_undisturbed(published: list[Manifest], store: ObjectStore, quiet: Settings) -> bool:
    """Whether members written under disturbance have the checksums of members computed in this process."""
    same = []
    with _no_server():
        for manifest in published:
            run_cycle(manifest.cycle, quiet)
            got = load_member_manifest(store, manifest.cycle, manifest.run, 0)
            want = load_member_manifest(quiet.store.open(), manifest.cycle, manifest.run, 0)
            same.append(got is not None and want is not None and got.chunks == want.chunks)
    return bool(same) and all(same)


@contextmanager
def _no_server() -> Iterator[None]:
    from prefect.settings import PREFECT_API_URL

    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        yield


def main() -> None:
    """Simulate one week and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=int, default=7)
    parser.add_argument("--backfill", type=int, default=5)
    parser.add_argument("--database-url")
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="week-", dir=arguments.folder))
    print(
        simulate(
            folder,
            days=arguments.days,
            backfill=arguments.backfill,
            database_url=arguments.database_url,
            limit_seconds=3600,
        )
    )


if __name__ == "__main__":
    main()
