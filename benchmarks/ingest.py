"""Time and memory of ingesting two 0.25° frames for GraphCast from a loopback mirror of ECMWF's open data.

    python -m benchmarks.ingest MIRROR_FOLDER [--resolution 0.25] [--onto 0.25]

The folder is filled first, if it is empty (some minutes at 0.25°). What is measured: index, byte ranges, checks,
decoding, regridding, writing and reading back, everything up to the assembly of the initial condition.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from infra.analyses import read_analysis
from infra.object_store import ObjectStore
from infra.sources.open_data import OpenData
from infra.sources.source import FieldRequest
from model.grid import Grid
from model.variables import LEVELS_13
from tasks.ingest import fetch_analysis
from tasks.regrid import regrid_analysis
from tests.tools.loopback import serving
from tests.tools.open_data_mirror import write_run

INIT = datetime(2026, 10, 5, 0, tzinfo=UTC)
STEP = timedelta(hours=6)
VARIABLES = (
    "2m_temperature",
    "mean_sea_level_pressure",
    "10m_u_component_of_wind",
    "10m_v_component_of_wind",
    "temperature",
    "geopotential",
    "u_component_of_wind",
    "v_component_of_wind",
    "vertical_velocity",
    "specific_humidity",
)
STATICS = ("geopotential_at_surface", "land_sea_mask")


def main() -> None:
    """Run the benchmark and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mirror", type=Path)
    parser.add_argument("--resolution", type=float, default=0.25)
    parser.add_argument("--onto", type=float, default=0.25)
    options = parser.parse_args()
    if not options.mirror.is_dir() or not any(options.mirror.iterdir()):
        for init_time in (INIT - STEP, INIT):
            write_run(options.mirror, init_time, resolution=options.resolution)
    timings: dict[str, float] = {"fetch": 0.0, "decode_and_regrid": 0.0, "read": 0.0}
    with TemporaryDirectory() as folder, serving(options.mirror) as server:
        store, source = ObjectStore(root=folder), OpenData(roots=(server.url,))
        for valid_time in (INIT - STEP, INIT):
            names = VARIABLES + (STATICS if valid_time == INIT else ())
            request = FieldRequest(valid_time=valid_time, variables=names, levels=LEVELS_13)
            started = time.perf_counter()
            raw = fetch_analysis(source, request, store)
            fetched = time.perf_counter()
            key = regrid_analysis(store, raw, Grid(resolution=options.onto))
            regridded = time.perf_counter()
            read_analysis(store, key)
            timings["fetch"] += fetched - started
            timings["decode_and_regrid"] += regridded - fetched
            timings["read"] += time.perf_counter() - regridded
        requests = len(server.log)
    usage = {
        name: resource.getrusage(who)
        for name, who in (("self", resource.RUSAGE_SELF), ("children", resource.RUSAGE_CHILDREN))
    }
    print(
        json.dumps(
            {
                "seconds": {name: round(value, 2) for name, value in timings.items()},
                "total_seconds": round(sum(timings.values()), 2),
                "processor_seconds": {k: round(u.ru_utime + u.ru_stime, 2) for k, u in usage.items()},
                "peak_gigabytes": {k: round(u.ru_maxrss / 1e6, 2) for k, u in usage.items()},
                "requests": requests,
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
