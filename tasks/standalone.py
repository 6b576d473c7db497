"""``foldcast rollout`` and ``foldcast checkpoint show``: a published model alone, on DeepMind's own files."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import xarray as xr

from infra.checkpoint_files import local_copy, read_checkpoint, read_statistics
from infra.devices import describe
from infra.errors import InvalidFieldError, StoreError
from infra.graph_cache import graph_cache
from infra.jax_runtime import enable_compilation_cache
from infra.prediction_files import SUFFIXES, PredictionFile, check_output
from infra.resources import memory_use, size_text
from infra.settings import load_settings
from infra.terminal import FoldingTable, command_console
from model.checkpoint_file import CheckpointFile
from model.checkpoint_file import read_checkpoint as parse_checkpoint
from model.deepmind_format import read_example
from model.forecaster import load_forecaster
from model.gencast.attention_options import AttentionOptions
from model.grid import Grid
from model.networks import checkpoint_grid
from model.rollout.memory import memory_needed
from model.rollout.rng import base_key, member_key
from model.rollout.rollout import rollout as roll_out


def rollout(
    *,
    checkpoint: str,
    dataset: str,
    stats: str,
    steps: int,
    output: str,
    members: int = 1,
    seed: int = 0,
    rng: str = "operational",
    precision: str = "auto",
    attention: str = "auto",
    timings: Path | None = None,
) -> None:
    """Run members of a model from the first two frames of an example data set, and write their fields.

    Args:
        checkpoint: params file, path or URL.
        dataset: example data set, path or URL.
        stats: folder of the statistics, path or URL.
        steps: model steps.
        output: ``.nc`` or ``.zarr``; dims (sample,) batch, time, (level,) lat, lon, ``sample`` for a
            stochastic model. It appears under this name when it is whole.
        members: how many; one of a deterministic model, whose members would all be equal.
        seed: of the random keys.
        rng: ``"operational"`` or ``"reference"``.
        precision, attention: as ``load_forecaster`` takes them.
        timings: where to write compile and step seconds, those of a step's members one after the other, and
            memory peaks as JSON.

    Raises:
        FoldcastError: something about the files or options is not as it must be.
    """
    if steps < 1 or members < 1:
        raise InvalidFieldError(f"expected at least one step and one member, got {steps} and {members}")
    check_output(Path(output), suffixes=SUFFIXES)
    if timings is not None:
        check_output(timings)
    cache = Path(load_settings().run.cache).expanduser()
    enable_compilation_cache(cache / "compiled")
    params = read_checkpoint(checkpoint, cache=cache)
    example = read_example(_open_dataset(dataset, cache))
    forecaster = load_forecaster(
        params,
        read_statistics(stats, cache=cache),
        grid=example.grid,
        precision=precision,
        attention=attention,
        graphs=graph_cache(cache / "graphs"),
        given=example.given,
    )
    stochastic = forecaster.family != "graphcast"
    if members > 1 and not stochastic:
        raise InvalidFieldError(
            f"members: expected 1 of a {forecaster.family} model without a perturbation, whose members would all be "
            f"equal, got {members}; a configured model's `perturbation` tells them apart"
        )
    base = base_key(seed, example.init_time, rng)
    condition = example.initial_condition
    states = [
        forecaster.initial_state(
            condition, init_time=example.init_time, member=member, key=member_key(base, member)
        )
        for member in range(members)
    ]
    statics = condition[list(forecaster.task.statics)]
    sampled = members if stochastic else None
    seconds: list[float] = []
    with PredictionFile(
        Path(output), task=forecaster.task, grid=forecaster.grid, steps=steps, members=sampled
    ) as file:
        began = time.perf_counter()
        for step in roll_out(forecaster, states, statics, steps=steps):
            seconds.append(time.perf_counter() - began)
            file.write(step.fields, step=step.step, member=step.member)
            began = time.perf_counter()
    compile_seconds = forecaster.compile_seconds or 0.0
    seconds[0] -= compile_seconds
    if timings is not None:
        used = memory_use([forecaster.device])
        report = {
            "compile_seconds": compile_seconds,
            "step_seconds": seconds,
            "peak_host_bytes": used.peak_host_bytes,
            "peak_device_bytes": used.peak_device_bytes,
            "device": describe(forecaster.device).kind,
        }
        timings.write_text(json.dumps(report, indent=1) + "\n")


def check_attention(text: str) -> None:
    """Raises UnknownOptionError for what names no form of attention."""
    AttentionOptions.parse(text)


def show_checkpoint(path: str) -> None:
    """Print what a params file is.

    Raises:
        CheckpointFileError: it is none.
    """
    cache = Path(load_settings().run.cache)
    file = read_checkpoint(path, cache=cache)
    checkpoint = parse_checkpoint(file.read_bytes(), name=path)
    table = FoldingTable(show_header=False, box=None)
    rows: list[tuple[str, str]] = [
        ("family", checkpoint.family),
        ("description", checkpoint.description),
        ("licence", checkpoint.license),
        ("parameters", f"{checkpoint.parameter_count:,}"),
    ]
    rows += _configuration_rows(checkpoint.config)
    rows += [
        ("inputs", ", ".join(checkpoint.task.input_variables)),
        ("targets", ", ".join(checkpoint.task.target_variables)),
        ("forcings", ", ".join(checkpoint.task.forcing_variables)),
        ("levels (hPa)", ", ".join(map(str, checkpoint.task.pressure_levels))),
        ("step", f"{checkpoint.task.step.total_seconds() / 3600:g} h"),
    ]
    try:
        grid = checkpoint_grid(checkpoint)
    except InvalidFieldError:
        rows.append(("grid", "not said in the file"))
    else:
        rows.append(("grid", f"{grid.resolution:g}°, {grid.shape[0]} × {grid.shape[1]}"))
        rows += [
            (f"memory on a {name}", _memory_text(checkpoint, grid, name)) for name in ("CPU", "GPU", "TPU")
        ]
    for name, value in rows:
        table.add_row(name, value)
    command_console().print(table)


def _memory_text(checkpoint: CheckpointFile, grid: Grid, device: str) -> str:
    single, half = (
        size_text(memory_needed(checkpoint, grid, precision=precision, platform=device.lower()))
        for precision in ("float32", "bfloat16")
    )
    note = " (a CPU computes it in float32 copies)" if device == "CPU" else ""
    return f"about {single} in float32, {half} in bfloat16{note}"


def _configuration_rows(config: Any, prefix: str = "") -> list[tuple[str, str]]:
    rows = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            rows += _configuration_rows(value, f"{field.name}.")
        else:
            rows.append((f"{prefix}{field.name}", str(value)))
    return rows


def _open_dataset(url: str, cache: Path) -> xr.Dataset:
    try:
        path = local_copy(url, cache=cache)
    except StoreError as error:
        raise InvalidFieldError(f"dataset: {error}") from error
    try:
        return xr.load_dataset(path, decode_timedelta=True)
    except (OSError, ValueError) as error:
        raise InvalidFieldError(f"dataset {path}: expected a NetCDF file: {error}") from error
