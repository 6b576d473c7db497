"""Time and memory from a mirror of ECMWF's open data to a validated initial condition of GraphCast.

    python -m benchmarks.ingest MIRROR_FOLDER [--transport http s3] [--resolution 0.25]

The folder is filled first, if it is empty (minutes at 0.25°), with a synthetic atmosphere in balance, so that it
passes every check. For each transport the mirror is served on loopback by a process of its own and one cycle is
brought, by another, into a local store: index, byte ranges, checks, decoding, regridding, assembly, writing,
reading back, field statistics, expectations and Data Docs. Memory is that of all processes but the server,
summed while they run; pages that several share count once for each. Processor time depends less than wall time on
what else the machine does.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import fsspec
import psutil

from infra.settings import ModelSettings, RunSettings, Settings, SourceSettings, StoreSettings
from model.cycle import Cycle
from model.grid import Grid
from tasks.initial_conditions import prepare_initial_condition
from tasks.validation import validate_initial_condition
from tests.fakes.s3 import S3Server
from tests.fakes.synthetic_source import write_statistics
from tests.tools.balanced_fields import TASK, balanced_field
from tests.tools.loopback import serving
from tests.tools.open_data_mirror import write_run

INIT = datetime(2026, 10, 5, 0, tzinfo=UTC)
STEP = timedelta(hours=6)
LIMIT_SECONDS, LIMIT_GIGABYTES = 60.0, 4.0


def main() -> None:
    """Run the benchmark and print one JSON object for each transport."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mirror", type=Path)
    parser.add_argument("--transport", nargs="+", choices=("http", "s3"), default=("http", "s3"))
    parser.add_argument("--resolution", type=float, default=0.25)
    parser.add_argument("--root", help=argparse.SUPPRESS)  # the measured process
    parser.add_argument("--options", default="{}", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.root is not None:
        print(json.dumps(_ingest(options.root, json.loads(options.options), options.resolution)))
        return
    if not options.mirror.is_dir() or not any(options.mirror.iterdir()):
        for init_time in (INIT - STEP, INIT):
            write_run(
                options.mirror, init_time, resolution=options.resolution, steps=(0,), fields=balanced_field
            )
    for transport in options.transport:
        with _served(options.mirror, transport) as (root, storage):
            print(json.dumps({"transport": transport, **_measure(options, root, storage)}, indent=1))


def load_model(settings: ModelSettings, device: object) -> SimpleNamespace:
    """A loader of a model that is never run: what it takes, and on which grid."""
    resolution = float(settings.checkpoint)
    return SimpleNamespace(
        family="graphcast", task=TASK, grid=Grid(resolution=resolution), description="", sha256="0" * 64
    )


def _ingest(root: str, storage: Mapping[str, Any], resolution: float) -> dict[str, Any]:
    """One cycle, in this process; seconds of its stages."""
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        settings = Settings(
            store=StoreSettings(root=str(folder / "store")),
            run=RunSettings(cache=str(folder / "cache")),
            sources={
                "mirror": SourceSettings(
                    type="open-data", kind="hres", roots=(root,), options={"options": dict(storage)}
                )
            },
            models={
                "graphcast": ModelSettings(
                    checkpoint=str(resolution),
                    statistics=str(write_statistics(folder / "statistics", TASK)),
                    loader="benchmarks.ingest:load_model",
                    trained_on="hres",
                    source="mirror",
                    steps=1,
                )
            },
        )
        cycle = Cycle(model="graphcast", init_time=INIT)
        started = time.perf_counter()
        prepare_initial_condition(cycle, settings)
        prepared = time.perf_counter()
        report = validate_initial_condition(cycle, settings)
        ended = time.perf_counter()
    return {
        "passed": report.passed,
        "warnings": len(report.warnings),
        "prepare_seconds": round(prepared - started, 2),
        "validate_seconds": round(ended - prepared, 2),
    }


def _measure(options: argparse.Namespace, root: str, storage: Mapping[str, Any]) -> dict[str, Any]:
    """The measured process from its start to its end, its memory sampled all along."""
    command = [
        sys.executable, "-m", "benchmarks.ingest", str(options.mirror), "--root", root,
        "--options", json.dumps(dict(storage)), "--resolution", str(options.resolution),
    ]  # fmt: skip
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    peak, ended = 0, 0
    while not ended:
        peak = max(peak, _resident(process.pid))
        time.sleep(0.05)
        ended, status, usage = os.wait4(process.pid, os.WNOHANG)
    total = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0 or process.stdout is None:
        raise SystemExit(f"the measured process ended with {process.returncode}")
    result = json.loads(process.stdout.read().splitlines()[-1])
    return {
        **result,
        "seconds_from_start_to_end": round(total, 2),
        "processor_seconds": round(usage.ru_utime + usage.ru_stime, 2),
        "peak_gigabytes_of_all_processes": round(peak / 1e9, 2),
        "within_limits": total < LIMIT_SECONDS and peak / 1e9 < LIMIT_GIGABYTES,
    }


def _resident(pid: int) -> int:
    """Resident bytes of a process and all below it."""
    total = 0
    try:
        root = psutil.Process(pid)
        for process in [root, *root.children(recursive=True)]:
            total += process.memory_info().rss
    except psutil.NoSuchProcess:
        pass
    return total


@contextmanager
def _served(mirror: Path, transport: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The mirror's root URL and storage options while a process of its own serves it."""
    here, there = multiprocessing.get_context("spawn").Pipe()
    serve = _serve_http if transport == "http" else _serve_s3
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(mirror, there), daemon=True)
    server.start()
    try:
        yield here.recv()
    finally:
        here.send("end")
        server.join()


def _serve_http(mirror: Path, pipe: Any) -> None:
    with serving(mirror) as server:
        pipe.send((server.url, {}))
        pipe.recv()


def _serve_s3(mirror: Path, pipe: Any) -> None:
    with S3Server() as server:
        root = f"s3://{server.new_bucket()}"
        fsspec.filesystem("s3", **server.options).put(f"{mirror}/", f"{root}/", recursive=True)
        pipe.send((root, dict(server.options)))
        pipe.recv()


if __name__ == "__main__":
    main()
