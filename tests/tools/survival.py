"""Kill what computes an ensemble, at random moments, and see whether the ensemble comes out the same.

A real Prefect server and two process workers run on loopback; the model is the pass-through forecaster.
``python -m tests.tools.survival --seeds 20`` tries many random sequences on one server; the suite tries one.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from unittest import mock

import numpy as np
import psutil

from flows.ensemble import forecast_ensemble
from infra import layout
from infra.analyses import write_analysis
from infra.forecast_store import open_forecast
from infra.local_services import LocalServer, running_server, running_worker
from infra.manifests import load_member_manifest
from infra.object_store import ObjectStore
from infra.settings import ModelSettings, Settings, StoreSettings, child_environment
from model.cycle import Cycle
from tests.fakes.pass_through import initial_condition

ROOT = Path(__file__).resolve().parents[2]
CYCLE = Cycle(model="pass-through", init_time=datetime(2026, 1, 1, tzinfo=UTC))
MEMBERS, STEPS, CHECKPOINT_EVERY = 6, 12, 2
_CHECKPOINT_IS_SURE = 4
"""Once a member begins this step its first checkpoint, after step 2, has left the writer's queue of two."""
_SHARE_OF_ANYBODY = 0.3
"""How often, after the first kill, not the process that computed last is hit but any, perhaps as it starts."""
VICTIMS = ("member", "worker", "worker and member", "controller")
Workers = dict[str, subprocess.Popen[bytes]]
_CONFIGURATION = """
[store]
root = "{root}"
[run]
submission = "work-pool"
work_pool = "{pool}"
block_attempts = 8
retry_delay = 0.5
heartbeat = 1.0
lost_after = 12.0
start_within = 90.0
poll = 0.5
[models.pass-through]
checkpoint = "pass-through?step_seconds={step_seconds}&diary={diary}"
statistics = "none"
loader = "tests.fakes.pass_through:load"
trained_on = "nature-run"
source = "none"
members = {members}
steps = {steps}
block_size = 2
checkpoint_every = {checkpoint_every}
seed = {seed}
"""


@dataclass
class Outcome:
    """What happened in one run.

    Args:
        identical: whether every value equals the undisturbed run's, bit for bit.
        started_again: members that were computed from step 0 although a checkpoint had been seen.
        kills: what was killed, and after how many seconds.
        resumed: for each member, the steps at which workers took it up.
        seconds: how long it took.
    """

    identical: bool
    started_again: list[int]
    kills: list[str]
    resumed: dict[int, tuple[int, ...]] = field(default_factory=dict)
    seconds: float = 0.0


def survive(
    server: LocalServer, folder: Path, victims: Sequence[str], *, seed: int, limit_seconds: float = 240.0
) -> Outcome:
    """Run the ensemble while killing the victims one after the other; returns when it is complete.

    Args:
        server: a running server; the ensemble has a work pool of its own there.
        folder: an empty folder for the store and the logs.
        victims: what to kill, in order, of ``VICTIMS``.
        seed: decides the moments, and the members' random numbers.
        limit_seconds: the longest it may take.

    Raises:
        TimeoutError: it did not finish; the logs lie in ``folder``.
    """
    chance = random.Random(seed)
    store, diary, configuration = _prepare(folder, seed)
    pool = _pool(seed)
    asyncio.run(_deploy(server, pool))
    began = time.monotonic()
    with (
        mock.patch.dict(os.environ, {"FOLDCAST_CONFIG": str(configuration), "PYTHONPATH": str(ROOT)}),
        _workers(server, pool) as (workers, start_worker),
        open(folder / "controller.log", "ab") as log,
    ):
        environment = child_environment(**server.environment())

        def start_controller() -> subprocess.Popen[bytes]:
            command = [sys.executable, "-m", "tests.tools.survival", "--control"]
            return subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=ROOT)

        controller = start_controller()
        seen: dict[int, float] = {}
        kills: list[str] = []
        open_victims = list(victims)
        done_at_next = chance.randrange(1, MEMBERS * STEPS // (len(victims) + 1))
        earliest = _CHECKPOINT_IS_SURE
        try:
            while controller.poll() != 0:
                look_for_checkpoints(store, seen)
                if time.monotonic() - began > limit_seconds:
                    raise TimeoutError(f"not complete after {limit_seconds:g} s, kills {kills}; see {folder}")
                if controller.poll() is not None:
                    if controller.returncode != -signal.SIGKILL:
                        raise RuntimeError(f"the controller failed by itself, kills {kills}; see {folder}")
                    controller = start_controller()
                if open_victims and _steps_done(diary) >= done_at_next:
                    time.sleep(chance.uniform(0.0, 0.5))
                    victim = open_victims[0]
                    if victim == "controller":
                        controller.send_signal(signal.SIGKILL)
                        controller.wait()
                        hit = controller.returncode == -signal.SIGKILL
                    else:
                        anybody = bool(kills) and chance.random() < _SHARE_OF_ANYBODY
                        chosen = (
                            chance.choice(sorted(workers)) if anybody else _busiest(diary, workers, earliest)
                        )
                        hit = chosen is not None and _kill(chosen, victim, workers, start_worker)
                    if hit:
                        open_victims.pop(0)
                        kills.append(f"{victim} at {time.monotonic() - began:.1f} s")
                        span = MEMBERS * STEPS // (len(victims) + 1)
                        done_at_next = _steps_done(diary) + chance.randrange(1, span)
                        earliest = chance.randrange(0, _CHECKPOINT_IS_SURE + 1)
                time.sleep(0.1)
        finally:
            if controller.poll() is None:
                controller.kill()
                controller.wait()
    return examine(folder, store, diary, seen, kills, seed, time.monotonic() - began)


def _pool(seed: int) -> str:
    return f"survival-{seed}"


def _prepare(folder: Path, seed: int) -> tuple[ObjectStore, Path, Path]:
    store = ObjectStore(root=str(folder / "store"))
    write_analysis(store, layout.initial_condition(CYCLE), initial_condition(CYCLE.init_time))
    diary = folder / "diary.txt"
    diary.touch()
    configuration = folder / "foldcast.toml"
    configuration.write_text(
        _CONFIGURATION.format(
            root=folder / "store",
            diary=diary,
            pool=_pool(seed),
            seed=seed,
            members=MEMBERS,
            steps=STEPS,
            checkpoint_every=CHECKPOINT_EVERY,
            step_seconds=0.4,
        )
    )
    return store, diary, configuration


@contextmanager
def own_server(folder: Path) -> Iterator[LocalServer]:
    """A server with its database in a folder, until the block ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = LocalServer(home=folder, port=port)
    with running_server(server, timeout=180.0):
        yield server


@contextmanager
def _workers(server: LocalServer, pool: str) -> Iterator[tuple[Workers, Callable[[str], None]]]:
    with ExitStack() as stack:
        workers: Workers = {}

        def start_worker(name: str) -> None:
            workers[name] = stack.enter_context(running_worker(server, pool=pool, name=name, limit=1))

        start_worker(f"{pool}-first")
        start_worker(f"{pool}-second")
        try:
            yield workers, start_worker
        finally:
            for process in [c for w in workers.values() if w.poll() is None for c in _members_of(w)]:
                process.kill()


def _busiest(diary: Path, workers: Workers, earliest: int) -> str | None:
    """The worker whose process computed last; None if it is too early or the process has ended."""
    last = diary.read_text().splitlines()[-1].split()
    if int(last[2]) < earliest:
        return None
    return next(
        (name for name, worker in workers.items() if int(last[0]) in [p.pid for p in _members_of(worker)]),
        None,
    )


def _kill(name: str, victim: str, workers: Workers, start_worker: Callable[[str], None]) -> bool:
    """Kill a worker's member process, the worker, or both; False if there is nothing to kill."""
    worker = workers[name]
    computing = _members_of(worker)
    if not computing:
        return False
    if victim != "member":
        worker.send_signal(signal.SIGKILL)
        worker.wait()
    if victim != "worker":
        for process in computing:
            process.kill()
    if victim != "member":
        start_worker(f"{name}'")
        del workers[name]
    return True


def _members_of(worker: subprocess.Popen[bytes]) -> list[psutil.Process]:
    try:
        return psutil.Process(worker.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _steps_done(diary: Path) -> int:
    return diary.read_bytes().count(b"\n")


def look_for_checkpoints(store: ObjectStore, seen: dict[int, float]) -> None:
    """Note when each member's first checkpoint was seen."""
    folder = Path(store.path("runs"))
    for path in folder.glob("*/*/*/checkpoints/*/*.npz"):
        seen.setdefault(int(path.parent.name), time.time())


def examine(
    folder: Path,
    store: ObjectStore,
    diary: Path,
    seen: dict[int, float],
    kills: list[str],
    seed: int,
    seconds: float,
    *,
    excused: frozenset[int] = frozenset(),
) -> Outcome:
    """Compare what came out with an undisturbed run in this process.

    Args:
        folder: for the undisturbed run's store.
        store: of the disturbed one.
        diary: which process computed what, and when.
        seen: when a member's first checkpoint was seen.
        kills: what was killed.
        seed: of the run.
        seconds: how long it took.
        excused: processes that ran beside another and could not know of its checkpoints.
    """
    model = ModelSettings(
        checkpoint="pass-through",
        statistics="none",
        loader="tests.fakes.pass_through:load",
        trained_on="nature-run",
        source="none",
        members=MEMBERS,
        steps=STEPS,
        block_size=MEMBERS,
        seed=seed,
    )
    quiet = ObjectStore(root=str(folder / "quiet"))
    write_analysis(quiet, layout.initial_condition(CYCLE), initial_condition(CYCLE.init_time))
    settings = Settings(store=StoreSettings(root=quiet.root), models={"pass-through": model})
    expected = forecast_ensemble(CYCLE, settings)
    [got, want] = [open_forecast(s, expected.forecast_store).load() for s in (store, quiet)]
    identical = all(
        np.array_equal(got[name].values.view(np.uint32), want[name].values.view(np.uint32))
        and not np.isnan(want[name].values).any()
        for name in want.data_vars
    )
    entries = [line.split() for line in diary.read_text().splitlines()]
    again = [
        int(member)
        for process, member, step, moment in entries
        if step == "0" and int(member) in seen and float(moment) > seen[int(member)]
        if int(process) not in excused
    ]
    manifests = [load_member_manifest(store, CYCLE, expected.run, member) for member in range(MEMBERS)]
    return Outcome(
        identical=identical,
        started_again=again,
        kills=kills,
        resumed={m.member: m.started_at_steps for m in manifests if m is not None},
        seconds=seconds,
    )


async def _deploy(server: LocalServer, pool: str) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.settings import temporary_settings

    from flows.members import members
    from flows.serve import client_settings

    with temporary_settings(client_settings(server)):
        async with get_client() as client:
            await client.create_work_pool(WorkPoolCreate(name=pool, type="process"))
            flow_id = await client.create_flow(members)
            await client.create_deployment(
                flow_id, name=pool, entrypoint="flows.members.members", work_pool_name=pool, pull_steps=[]
            )


def _control() -> None:
    from infra.settings import load_settings

    forecast_ensemble(CYCLE, load_settings())


def main() -> None:
    """Many random sequences, or one of the processes of a single one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--control", action="store_true")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--victims", nargs="+", choices=VICTIMS, help="default: three at random")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--port", type=int, help="of a server that runs on this machine; default: starts one")
    arguments = parser.parse_args()
    if arguments.control:
        _control()
        return
    base = Path(tempfile.mkdtemp(prefix="survival-", dir=arguments.folder))
    failed = 0
    home = base / "server"
    port = arguments.port
    running = nullcontext(LocalServer(home=home, port=port)) if port else own_server(home)
    with running as server:
        for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
            victims = arguments.victims or random.Random(seed).choices(VICTIMS, k=3)
            folder = base / str(seed)
            folder.mkdir()
            try:
                outcome = survive(server, folder, victims, seed=seed, limit_seconds=600)
                failed += not outcome.identical or bool(outcome.started_again)
                print(seed, victims, outcome, flush=True)
            except Exception:
                failed += 1
                print(seed, victims, "failed", traceback.format_exc(), flush=True)
    sys.exit(f"{failed} of {arguments.seeds} failed" if failed else 0)


if __name__ == "__main__":
    main()
