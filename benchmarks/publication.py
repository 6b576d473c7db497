"""How fast publishing is against a plain copy of the same bytes, and how much memory making products takes.

    python -m benchmarks.publication --megabytes 200
    python -m benchmarks.publication --members 4 16 64

The first publishes a folder to a local store (written, read back, compared, listed, manifest) and copies it
plainly; the aim is half the speed of the copy. The second makes products of ensembles of growing size and
prints the peak of resident memory of each, measured in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from infra import layout
from infra.forecast_store import open_forecast
from infra.object_store import ObjectStore
from infra.publication import Manifest, make_visible, upload_folder, verify_sizes
from infra.settings import ProductSettings
from model.cycle import Cycle
from tasks.aggregate import aggregate
from tasks.product_plan import plan_products
from tests.fakes.forecasts import TASK, write_forecast

CYCLE = Cycle(model="benchmark", init_time=datetime(2026, 1, 1, tzinfo=UTC))


def publication(megabytes: int, *, object_megabytes: float = 2.0) -> dict[str, float]:
    """Megabytes per second of publishing and of a plain copy."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        source = root / "products"
        source.mkdir()
        rng = np.random.default_rng(0)
        for number in range(round(megabytes / object_megabytes)):
            (source / f"{number:05d}").write_bytes(rng.bytes(int(object_megabytes * 1e6)))
        start = time.perf_counter()
        shutil.copytree(source, root / "copy")
        copied = time.perf_counter() - start
        store = ObjectStore(root=str(root / "store"))
        start = time.perf_counter()
        prefix = layout.products_prefix(CYCLE, "run", "a")
        files = upload_folder(store, source, prefix)
        verify_sizes(store, prefix, files)
        manifest = Manifest(
            cycle=CYCLE, run="run", attempt="a", members=(0,), steps=1, step_hours=12,
            published_at=datetime.now(UTC), files=files,
        )  # fmt: skip
        make_visible(store, manifest)
        published = time.perf_counter() - start
    return {
        "copy_megabytes_per_second": megabytes / copied,
        "publish_megabytes_per_second": megabytes / published,
        "ratio": copied / published,
    }


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
    parser.add_argument("--members", type=int, nargs="+", default=[])
    parser.add_argument("--resolution", type=float, default=1.0)
    parser.add_argument("--budget", type=int, default=32 << 20)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(products(options.one, resolution=options.resolution, budget=options.budget)))
        return
    if options.megabytes:
        print(json.dumps(publication(options.megabytes)))
    for members in options.members:
        shared = ["--resolution", str(options.resolution), "--budget", str(options.budget)]
        command = [sys.executable, "-m", "benchmarks.publication", "--one", str(members), *shared]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
