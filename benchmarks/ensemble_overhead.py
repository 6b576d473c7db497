"""What streaming and checkpointing add to a rollout, and whether host memory stays flat.

``python -m benchmarks.ensemble_overhead`` steps a model alone, then the same steps through the ensemble's
machinery (forecast store, rollout checkpoints, manifests), and prints one line of JSON with both. Processor
seconds are those of all cores together and depend less than wall time on what else the machine does.
``--memory`` streams 40 steps of that size from a forecaster that costs next to nothing, and prints resident
memory and the processor time of streaming and checkpointing alone. ``--preparation`` prints how long a device waits
between two blocks whose members start from correlated noise, with the second prepared ahead and not.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import xarray as xr

from benchmarks.cases import CASES, Case, write_case
from infra import layout
from infra.checkpoint_files import read_statistics
from infra.dataset_checksum import dataset_sha256
from infra.forecast_store import create_forecast_store
from infra.graph_cache import graph_cache
from infra.manifests import RunDescription
from infra.object_store import ObjectStore
from infra.version import compiler_version
from model.cycle import Cycle
from model.deepmind_format import Example, read_example
from model.forecaster import Forecaster, load_forecaster
from model.rollout.perturbations import Perturbation, perturb
from model.rollout.rng import base_key, member_key
from model.rollout.state import RolloutState
from tasks.rollout import BlockRollout, RolloutOptions, RolloutProgress


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", choices=sorted(CASES), default="graphcast-small")
    parser.add_argument("--precision", default="bfloat16")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--checkpoint-every", type=int, default=4)
    parser.add_argument("--folder", type=Path, default=Path("build/benchmarks"))
    parser.add_argument("--memory", action="store_true", help="of 40 steps whose computation costs nothing")
    parser.add_argument("--preparation", action="store_true", help="what the device waits between two blocks")
    arguments = parser.parse_args()
    case = CASES[arguments.case]
    folder = arguments.folder / case.name
    write_case(case, folder)
    example = read_example(xr.load_dataset(folder / "dataset.nc", decode_timedelta=True))
    if arguments.memory:
        result = measure_memory(case, example, steps=40, checkpoint_every=arguments.checkpoint_every)
    elif arguments.preparation:
        result = measure_preparation(case, example, folder, step_seconds=3.0)
    else:
        forecaster = load_forecaster(
            folder / "params.npz",
            read_statistics(str(folder)),
            precision=arguments.precision,
            graphs=graph_cache(folder / "graphs"),
        )
        result = measure_overhead(
            forecaster, example, steps=arguments.steps, checkpoint_every=arguments.checkpoint_every
        )
    print(json.dumps({"case": case.name, "precision": arguments.precision, **result}))


def measure_overhead(
    forecaster: Forecaster, example: Example, *, steps: int, checkpoint_every: int
) -> dict[str, Any]:
    """Seconds per step of the model alone and of the model within the ensemble's machinery."""
    state = _start(example, forecaster, 0)
    statics = example.initial_condition[list(forecaster.task.statics)]
    forecaster.advance([state], statics)  # compiles
    began, began_processor = time.perf_counter(), time.process_time()
    for _ in range(steps):
        [(state, _)] = forecaster.advance([state], statics)
    alone = (time.perf_counter() - began) / steps
    alone_processor = (time.process_time() - began_processor) / steps
    began, began_processor = time.perf_counter(), time.process_time()
    _stream(forecaster, example, steps=steps, checkpoint_every=checkpoint_every)
    within = (time.perf_counter() - began) / steps
    within_processor = (time.process_time() - began_processor) / steps
    return {
        "steps": steps,
        "alone_seconds": alone,
        "within_seconds": within,
        "overhead": within / alone - 1,
        "alone_processor_seconds": alone_processor,
        "within_processor_seconds": within_processor,
        "processor_overhead": within_processor / alone_processor - 1,
    }


def measure_memory(case: Case, example: Example, *, steps: int, checkpoint_every: int) -> dict[str, Any]:
    """Resident memory after each step of a rollout whose steps cost nothing but their fields."""
    resident: list[int] = []

    def remember(_: RolloutProgress) -> None:
        resident.append(psutil.Process().memory_info().rss)

    forecaster = _Idle(task=case.task, grid=example.grid)
    state = _start(example, forecaster, 0)
    began = time.process_time()
    for _ in range(steps):
        [(state, _)] = forecaster.advance([state], example.initial_condition)
    alone = time.process_time() - began
    began = time.process_time()
    _stream(forecaster, example, steps=steps, checkpoint_every=checkpoint_every, progress=remember)
    streaming = time.process_time() - began - alone
    return {
        "steps": steps,
        "streaming_processor_seconds_per_step": streaming / steps,
        "resident_after_10_steps": resident[9],
        "resident_at_the_end": resident[-1],
        "peak": max(resident),
        "one_step_bytes": sum(v.nbytes for v in forecaster.fields(_start(example, forecaster, 0)).values()),
    }


def measure_preparation(case: Case, example: Example, folder: Path, *, step_seconds: float) -> dict[str, Any]:
    """Seconds a device waits between two blocks whose members start from noise, prepared ahead and not."""
    statistics = read_statistics(str(folder)).diffs_stddev
    noise = Perturbation(kind="noise", amplitude=0.1)
    grid = example.grid

    def initial_state(loaded: Any, member: int) -> RolloutState:
        key = member_key(base_key(0, example.init_time), member)
        own = perturb(
            example.initial_condition, noise, key=key, member=member, grid=grid, diffs_stddev=statistics
        )
        return loaded.initial_state(own, init_time=example.init_time, member=member, key=key)

    forecaster = _Idle(task=case.task, grid=grid, step_seconds=step_seconds)
    initial_state(forecaster, 1)  # draws once, which compiles
    began = time.perf_counter()
    initial_state(forecaster, 2)
    result = {"preparation_seconds": time.perf_counter() - began}
    for ahead in (False, True):
        forecaster.busy.clear()
        with tempfile.TemporaryDirectory() as store, ThreadPoolExecutor(1) as pool:
            blocks = [
                _block(forecaster, example, store, member=member, steps=3, initial_state=initial_state)
                for member in (1, 2)
            ]
            blocks[0].prepare()
            upcoming = pool.submit(blocks[1].prepare) if ahead else None
            blocks[0].run()
            if upcoming is not None:
                upcoming.result()
            blocks[1].run()
        between = forecaster.busy[3][0] - forecaster.busy[2][1]
        result["waits_seconds_ahead" if ahead else "waits_seconds"] = between
    return result


def _stream(
    forecaster: Forecaster, example: Example, *, steps: int, checkpoint_every: int, progress: Any = None
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        _block(
            forecaster,
            example,
            folder,
            member=0,
            steps=steps,
            checkpoint_every=checkpoint_every,
            progress=progress,
        ).run()


def _block(
    forecaster: Any,
    example: Example,
    folder: str,
    *,
    member: int,
    steps: int,
    checkpoint_every: int = 4,
    progress: Any = None,
    initial_state: Callable[[Any, int], RolloutState] | None = None,
) -> BlockRollout:
    cycle = Cycle(model="benchmark", init_time=example.init_time)
    store = ObjectStore(root=folder)
    description = RunDescription(
        cycle=cycle,
        model_sha256=forecaster.sha256,
        statistics_sha256="",
        initial_condition=layout.initial_condition(cycle),
        initial_condition_sha256=dataset_sha256(example.initial_condition),
        seed=0,
        rng="operational",
        precision="auto",
        attention="auto",
        code_version="benchmark",
        compiler_version=compiler_version(),
    )
    create_forecast_store(
        store,
        layout.forecast_store(cycle, description.run),
        task=forecaster.task,
        grid=forecaster.grid,
        init_time=cycle.init_time,
        members=member + 1,
        steps=steps,
    )
    return BlockRollout(
        forecasters=[forecaster],
        store=store,
        description=description,
        members=[member],
        steps=steps,
        initial_state=initial_state or (lambda loaded, member: _start(example, loaded, member)),
        statics=example.initial_condition[list(forecaster.task.statics)],
        options=RolloutOptions(checkpoint_every=checkpoint_every),
        progress=progress,
    )


def _start(example: Example, forecaster: Forecaster, member: int) -> RolloutState:
    key = member_key(base_key(0, example.init_time), member)
    return forecaster.initial_state(
        example.initial_condition, init_time=example.init_time, member=member, key=key
    )


@dataclass(kw_only=True)
class _Idle:
    """A forecaster that returns fresh fields of a task's size, smooth enough to compress like weather."""

    task: Any
    grid: Any
    family: str = "idle"
    description: str = "benchmark"
    sha256: str = "0" * 64
    options: dict[str, str] = field(default_factory=dict)
    step_seconds: float = 0.0
    busy: list[tuple[float, float]] = field(default_factory=list)

    def initial_state(
        self, initial_condition: xr.Dataset, *, init_time: Any, member: int, key: np.ndarray
    ) -> RolloutState:
        frames = initial_condition[list(self.task.time_inputs)]
        return RolloutState(member=member, init_time=init_time, step=0, key=key, frames=frames)

    def fields(self, state: RolloutState) -> xr.Dataset:
        return xr.Dataset(
            {name: state.frames[name].isel(time=1, drop=True) + np.float32(0.01) for name in state.frames}
        )[list(self.task.target_variables)]

    def advance(
        self, states: Sequence[RolloutState], statics: xr.Dataset
    ) -> list[tuple[RolloutState, xr.Dataset]]:
        began = time.perf_counter()
        time.sleep(self.step_seconds)
        results = [self._advance(state) for state in states]
        self.busy.append((began, time.perf_counter()))
        return results

    def _advance(self, state: RolloutState) -> tuple[RolloutState, xr.Dataset]:
        fields = self.fields(state)
        frames = xr.concat([state.frames.isel(time=1, drop=True), fields], dim="time").assign_coords(
            time=state.frames["time"].values + np.timedelta64(self.task.step)
        )
        following = RolloutState(
            member=state.member, init_time=state.init_time, step=state.step + 1, key=state.key, frames=frames
        )
        return following, fields


if __name__ == "__main__":
    main()
