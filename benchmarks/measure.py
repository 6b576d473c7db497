"""Measure one case in this process and print one line of JSON: ``python -m benchmarks.measure CASE …``.

A process measures once, so that peak memory and compile time are its own. ``processor_seconds`` is the time of all
cores together, which depends less than wall time on what else the machine does.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import jax
import xarray as xr

from benchmarks.cases import CASES, Case, write_case
from infra.checkpoint_files import read_statistics
from infra.graph_cache import graph_cache
from infra.jax_runtime import enable_compilation_cache
from model.deepmind_format import read_example
from model.forecaster import load_forecaster
from model.network_forecaster import NetworkForecaster
from model.rollout.rng import base_key


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", choices=sorted(CASES))
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("build/benchmarks"))
    parser.add_argument("--compilation-cache", type=Path)
    parser.add_argument("--reference", type=Path, help="checkout of the reference implementation to time")
    arguments = parser.parse_args()
    case = CASES[arguments.case]
    folder = arguments.folder / case.name
    write_case(case, folder)
    if arguments.compilation_cache:
        enable_compilation_cache(arguments.compilation_cache)
    if arguments.reference:
        sys.path.insert(0, str(arguments.reference))
        from benchmarks.reference import measure_reference

        result = measure_reference(case, folder, precision=arguments.precision, steps=arguments.steps)
    else:
        result = measure(case, folder, precision=arguments.precision, steps=arguments.steps)
    result |= {
        "case": case.name,
        "precision": arguments.precision,
        "implementation": "reference" if arguments.reference else "foldcast",
        "peak_host_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "peak_device_bytes": (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use"),
        "device": jax.local_devices()[0].device_kind,
    }
    print(json.dumps(result))


def measure(case: Case, folder: Path, *, precision: str, steps: int) -> dict[str, Any]:
    """Time ours."""
    statistics, graphs = read_statistics(str(folder)), graph_cache(folder / "graphs")
    if case.compile_only:
        return analyse_memory(
            load_forecaster(folder / "params.npz", statistics, precision=precision, graphs=graphs)
        )
    example = read_example(xr.load_dataset(folder / "dataset.nc", decode_timedelta=True))
    began = time.perf_counter()
    forecaster = load_forecaster(
        folder / "params.npz", statistics, precision=precision, graphs=graphs, given=example.given
    )
    state = forecaster.initial_state(
        example.initial_condition, init_time=example.init_time, member=0, key=base_key(0, example.init_time)
    )
    statics = example.initial_condition[list(case.task.statics)]
    wall, processor = [], []
    for _ in range(steps + 1):
        start, start_processor = time.perf_counter(), time.process_time()
        [(state, _)] = forecaster.advance([state], statics)
        wall.append(time.perf_counter() - start)
        processor.append(time.process_time() - start_processor)
    return {
        "compile_seconds": forecaster.compile_seconds,
        "first_step_seconds": time.perf_counter() - began - sum(wall[1:]),
        "step_seconds": wall[1:],
        "processor_seconds": processor[1:],
    }


def analyse_memory(forecaster: NetworkForecaster) -> dict[str, Any]:
    """Compile without running, and say what the program needs."""
    began = time.perf_counter()
    analysis = forecaster.compiled_memory()
    return {"compile_seconds": time.perf_counter() - began, **analysis}


if __name__ == "__main__":
    main()
