"""How fast publishing is against a plain copy of the same bytes, and how much memory making products takes.

    python -m benchmarks.publication --megabytes 200
    python -m benchmarks.publication --megabytes 100 --store s3
    python -m benchmarks.publication --members 4 16 64

The first publishes a folder (written, checked in the store, listed, manifest, ``latest.json``) and puts the same
files into the same store plainly, by as many at once: a folder by ``shutil.copyfile``, S3 (a server on loopback that
compares checksums) by ``put_file``. Both end with the bytes on the disk. The two take turns; the medians are
compared, of the time and of the processor's time, which other work on the machine disturbs less. The aim is half the
speed of the copy. The second makes products of ensembles of growing size and prints the peak of resident memory of
each, measured in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from infra import layout
from infra.forecast_store import open_forecast
from infra.object_store import ObjectStore
from infra.publication import PARALLEL, Manifest, make_visible, upload_folder, verify_sizes
from infra.settings import ProductSettings
from model.cycle import Cycle
from tasks.aggregate import aggregate
from tasks.product_plan import plan_products
from tests.fakes.forecasts import TASK, write_forecast


def publication(
    megabytes: int, kind: str, *, object_megabytes: float = 2.0, turns: int = 5
) -> dict[str, Any]:
    """Megabytes per second of publishing and of a plain copy, and the ratios of speed and of processor time."""
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        store = ObjectStore(root=str(root / "store")) if kind == "local" else _loopback(stack)
        rng = np.random.default_rng(0)
        contents = [
            rng.bytes(int(object_megabytes * 1e6)) for _ in range(round(megabytes / object_megabytes))
        ]
        spent: dict[str, list[tuple[float, float]]] = {"copy": [], "publish": []}
        for turn in range(turns):
            for name, put in (("copy", _copy), ("publish", _publish)):
                with store.scratch("benchmark") as folder:
                    for number, data in enumerate(contents):
                        (folder / f"{number:05d}").write_bytes(data)
                    os.sync()
                    start, processor = time.perf_counter(), time.process_time()
                    put(store, folder, turn)
                    spent[name].append((time.perf_counter() - start, time.process_time() - processor))
                store.delete("copies/")
                store.delete("cycles/")
    seconds = {name: [statistics.median(column) for column in zip(*times)] for name, times in spent.items()}
    return {
        "store": kind,
        "copy_megabytes_per_second": megabytes / seconds["copy"][0],
        "publish_megabytes_per_second": megabytes / seconds["publish"][0],
        "ratio": seconds["copy"][0] / seconds["publish"][0],
        "ratio_of_processor_time": seconds["copy"][1] / seconds["publish"][1],
    }


def _copy(store: ObjectStore, folder: Path, turn: int) -> None:
    """Put all files plainly."""

    def put(path: Path) -> None:
        target = store.path(f"copies/{path.name}")
        if not store.is_local:
            store.filesystem.put_file(str(path), target)
            return
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        with open(target, "rb") as file:
            os.fsync(file.fileno())

    with ThreadPoolExecutor(PARALLEL) as pool:
        list(pool.map(put, sorted(folder.iterdir())))


def _publish(store: ObjectStore, folder: Path, turn: int) -> None:
    """All of publication."""
    cycle = Cycle(model="benchmark", init_time=datetime(2026, 1, 1 + turn, tzinfo=UTC))
    prefix = layout.products_prefix(cycle, "run", "a")
    files = upload_folder(store, folder, prefix, adopt=True)
    verify_sizes(store, prefix, files)
    manifest = Manifest(
        cycle=cycle, run="run", attempt="a", members=(0,), steps=1, step_hours=12,
        published_at=datetime.now(UTC), files=files,
    )  # fmt: skip
    make_visible(store, manifest)


def _loopback(stack: ExitStack) -> ObjectStore:
    """An S3 server on loopback behind a proxy that compares checksums as S3 does; both in this process."""
    from tests.fakes.s3 import S3Server
    from tests.tools.faulty_proxy import FaultyProxy

    server = stack.enter_context(S3Server())
    proxy = stack.enter_context(FaultyProxy(server.address, rate=0, seed=0, compares_checksums=True))
    return ObjectStore(root=f"s3://{server.new_bucket()}", options=server.options_at(proxy.url))


def products(members: int, *, resolution: float, budget: int) -> dict[str, float]:
    """Seconds and growth of peak memory of making products."""
    with tempfile.TemporaryDirectory() as scratch:
        store = ObjectStore(root=f"{scratch}/store")
        write_forecast(store, "forecast.zarr", resolution=resolution, members=members, steps=2)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start = time.perf_counter()
        plan = plan_products(ProductSettings(), TASK.target_variables, TASK.pressure_levels)
        aggregate(open_forecast(store, "forecast.zarr"), Path(scratch), plan=plan, budget=budget)
        return {
            "members": members,
            "seconds": time.perf_counter() - start,
            "peak_growth_megabytes": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024,
        }


def main() -> None:
    """Run what the command line asks for and print one JSON object per measurement."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int)
    parser.add_argument("--store", choices=("local", "s3"), default="local")
    parser.add_argument("--members", type=int, nargs="+", default=[])
    parser.add_argument("--resolution", type=float, default=1.0)
    parser.add_argument("--budget", type=int, default=32 << 20)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(products(options.one, resolution=options.resolution, budget=options.budget)))
        return
    if options.megabytes:
        print(json.dumps(publication(options.megabytes, options.store)))
    for members in options.members:
        shared = ["--resolution", str(options.resolution), "--budget", str(options.budget)]
        command = [sys.executable, "-m", "benchmarks.publication", "--one", str(members), *shared]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
