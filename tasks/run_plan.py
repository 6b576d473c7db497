"""What a run would need against what the machine has, before it starts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import jax
import numpy as np
import psutil

from infra.checkpoint_files import read_checkpoint as checkpoint_path
from infra.errors import DoesNotFitError
from infra.object_store import ObjectStore
from infra.resources import device_memory_limit, host_memory_available, host_memory_limit
from infra.settings import ModelSettings, Settings
from model.checkpoint_file import CheckpointFile, read_checkpoint
from model.grid import Grid
from model.networks import checkpoint_grid
from model.precision import resolve_precision
from model.rollout.memory import memory_needed
from model.task import TaskConfig
from model.variables import VARIABLES
from tasks.models import cache_folder, load_models
from tasks.rollout import LoadedModels, RolloutOptions

_RUNTIME_BYTES = 700 * 2**20
"""Resident memory of a worker before any model: Python, JAX, Prefect, xarray (measured: 0.43–0.7 GiB)."""

_COMPILE_BYTES = 5.5e9
_COMPILE_BYTES_PER_POINT = 284e3
"""Host memory for compiling GenCast for an accelerator: the line through DeepMind's published figures of about
24 GB at 1° (65 160 grid points) and 300 GB at 0.25° (1 038 240) on a GPU, less than that on a TPU."""

_OTHER_RESOLUTIONS = (0.25, 1.0, 2.0, 5.0)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The settings that decide how much memory a worker needs."""

    precision: str
    members_per_program: int

    def __str__(self) -> str:
        return f"precision={self.precision}, members_per_program={self.members_per_program}"


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a worker has.

    Args:
        platform: ``"cpu"``, ``"gpu"`` or ``"tpu"``.
        device_kind: as the maker calls it.
        devices: local devices, each of which computes members of its own.
        device_bytes: memory of the smallest; None where it is the host's.
        host_bytes: host memory that is free for this process.
        store_bytes: free space of the store; None where it has no limit of its own.
        compute_capability: of an NVIDIA device.
    """

    platform: str
    device_kind: str
    devices: int
    device_bytes: int | None
    host_bytes: int
    store_bytes: int | None = None
    compute_capability: float | None = None


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """A run's needs against a machine.

    Args:
        model: name of the configured model.
        grid: its grid.
        members, steps, blocks: of the run.
        choice: precision and members per program, resolved.
        machine: what there is.
        device_bytes: needed on each device.
        host_bytes: needed on the host; on a CPU it contains the devices' need.
        store_bytes: needed in the store at most (fields uncompressed, checkpoints kept until publication).
        seconds_per_step: measured in an earlier run of the model on such a device; None before the first.
        problems: what does not fit; empty if everything does.
        remedies: choices that would fit.
    """

    model: str
    grid: Grid
    members: int
    steps: int
    blocks: int
    choice: Choice
    machine: Machine
    device_bytes: int
    host_bytes: int
    store_bytes: int
    seconds_per_step: float | None
    problems: tuple[str, ...]
    remedies: tuple[str, ...]

    @property
    def duration(self) -> timedelta | None:
        """Expected time of all members on this machine alone; None before the first run."""
        if self.seconds_per_step is None:
            return None
        return timedelta(
            seconds=self.seconds_per_step * self.members * self.steps / max(1, self.machine.devices)
        )

    def require_fit(self) -> None:
        """Refuse what does not fit.

        Raises:
            DoesNotFitError: something does not; the message names settings that would fit.
        """
        if not self.problems:
            return
        remedy = (
            f"it would fit with {' or '.join(self.remedies)}" if self.remedies else "nothing here fits it"
        )
        raise DoesNotFitError(f"model {self.model}: {'; '.join(self.problems)}; {remedy}")


def plan_run(
    name: str,
    settings: Settings,
    *,
    members: int | None = None,
    steps: int | None = None,
    machine: Machine | None = None,
) -> RunPlan:
    """Compare a model's needs with a machine.

    Args:
        name: of a configured, built-in model.
        settings: the model's, and the store.
        members: ensemble size; default the model's.
        steps: model steps; default the model's.
        machine: default this one.

    Raises:
        CheckpointFileError: the params file is not there or not what it should be.
    """
    model = settings.configured_model(name)
    members, steps = members or model.members, steps or model.steps
    store = settings.store.open()
    machine = machine or this_machine(store)
    path = checkpoint_path(model.checkpoint, cache=cache_folder(settings))
    checkpoint = read_checkpoint(path.read_bytes(), name=path.name)
    named = Grid(resolution=model.resolution) if model.resolution is not None else None
    grid = checkpoint_grid(checkpoint, named)
    choice = Choice(
        precision=resolve_precision(
            model.precision, platform=machine.platform, compute_capability=machine.compute_capability
        ),
        members_per_program=model.members_per_program,
    )
    device, host = _memory(checkpoint, grid, choice, machine)
    stored = stored_bytes(
        checkpoint.task, grid, members=members, steps=steps, checkpoint_every=model.checkpoint_every
    )
    problems = _problems(device, host, machine)
    remedies: tuple[str, ...] = ()
    if problems:
        remedies = tuple(_remedies(checkpoint, grid, choice, machine))
    if machine.store_bytes is not None and stored > machine.store_bytes:
        problems.append(
            f"needs {size_text(stored)} in the store at most, {size_text(machine.store_bytes)} are free"
        )
        per_member = stored // members
        if machine.store_bytes // per_member:
            remedies = (*remedies, f"members={machine.store_bytes // per_member}")
    return RunPlan(
        model=name,
        grid=grid,
        members=members,
        steps=steps,
        blocks=-(-members // model.block_size),
        choice=choice,
        machine=machine,
        device_bytes=device,
        host_bytes=host,
        store_bytes=stored,
        seconds_per_step=measured_seconds_per_step(store, name, machine.device_kind),
        problems=tuple(problems),
        remedies=remedies,
    )


def load_fitting_models(name: str, settings: Settings) -> LoadedModels:
    """The model on each local device, refused before it is loaded if this machine cannot hold it.

    Raises:
        DoesNotFitError: device or host memory is too small; the message names settings that would fit.
    """
    model: ModelSettings = settings.configured_model(name)
    if model.loader is None:
        plan = plan_run(name, settings)
        memory_alone = replace(
            plan, problems=tuple(_problems(plan.device_bytes, plan.host_bytes, plan.machine))
        )
        memory_alone.require_fit()
    return load_models(model, cache=cache_folder(settings))


def this_machine(store: ObjectStore) -> Machine:
    """The machine that this process runs on."""
    devices = jax.local_devices()
    capability = getattr(devices[0], "compute_capability", None)
    return Machine(
        platform=devices[0].platform,
        device_kind=devices[0].device_kind,
        devices=len(devices),
        device_bytes=device_memory_limit(devices),
        host_bytes=min(host_memory_available(), host_memory_limit()),
        store_bytes=_free_space(store),
        compute_capability=float(capability) if capability else None,
    )


def stored_bytes(task: TaskConfig, grid: Grid, *, members: int, steps: int, checkpoint_every: int) -> int:
    """Bytes of a run in the store at most: float32 fields uncompressed, and the checkpoints that are kept."""
    step = _field_bytes(task.target_variables, task, grid)
    frames = 2 * _field_bytes(task.time_inputs, task, grid)
    anchors = steps // RolloutOptions(checkpoint_every=checkpoint_every).anchors
    return members * (steps * step + (2 + anchors) * frames)


def measured_seconds_per_step(store: ObjectStore, model: str, device_kind: str) -> float | None:
    """Seconds per member and step in the newest ensemble of a model that ran on such a device."""
    found: list[tuple[str, float]] = []
    for key in store.list(f"runs/{model}/"):
        if not key.endswith("/ensemble.json"):
            continue
        document: dict[str, Any] = json.loads(store.read(key))
        seconds = [
            entry["seconds_per_step"] for name, entry in document["devices"].items() if device_kind in name
        ]
        if seconds:
            found.append((document["cycle"], float(np.mean(seconds))))
    return max(found)[1] if found else None


def _memory(checkpoint: CheckpointFile, grid: Grid, choice: Choice, machine: Machine) -> tuple[int, int]:
    """Bytes on a device and on the host."""
    device = memory_needed(checkpoint, grid, precision=choice.precision, members=choice.members_per_program)
    task = checkpoint.task
    frames = 2 * _field_bytes(task.time_inputs, task, grid)
    step = _field_bytes(task.target_variables, task, grid)
    # A member's state, the next one's, and a checkpoint being written with its copy; steps that wait.
    streaming = choice.members_per_program * (4 * frames + (RolloutOptions().queue_depth + 2) * step)
    parameters = 2 * 4 * checkpoint.parameter_count
    host = _RUNTIME_BYTES + machine.devices * streaming + parameters
    if machine.platform == "cpu":
        host += machine.devices * device
    elif checkpoint.family == "gencast":
        host += int(_COMPILE_BYTES + _COMPILE_BYTES_PER_POINT * np.prod(grid.shape))
    else:
        host += device
    return device, host


def _problems(device: int, host: int, machine: Machine) -> list[str]:
    problems = []
    if machine.device_bytes is not None and device > machine.device_bytes:
        problems.append(
            f"needs about {size_text(device)} on a {machine.device_kind}, which has {size_text(machine.device_bytes)}"
        )
    if host > machine.host_bytes:
        problems.append(
            f"needs about {size_text(host)} of host memory, {size_text(machine.host_bytes)} are free"
        )
    return problems


def _remedies(checkpoint: CheckpointFile, grid: Grid, choice: Choice, machine: Machine) -> Iterator[str]:
    """Other choices that would fit, the smallest change first; failing all, the finest grid that would."""

    def fits(other: Choice, on: Grid) -> bool:
        return not _problems(*_memory(checkpoint, on, other, machine), machine)

    fewer = [n for n in (choice.members_per_program // 2, 1) if 0 < n < choice.members_per_program]
    others = [replace(choice, members_per_program=n) for n in dict.fromkeys(fewer)]
    if choice.precision == "float32":
        others += [replace(other, precision="bfloat16") for other in (choice, *others)]
    found = [other for other in others if fits(other, grid)]
    yield from map(str, found[:2])
    if not found:
        smallest = others[-1] if others else choice
        for resolution in _OTHER_RESOLUTIONS:
            if resolution > grid.resolution and fits(smallest, Grid(resolution=resolution)):
                yield f"a checkpoint of such a model at {resolution:g}° ({smallest})"
                return


def _field_bytes(names: Sequence[str], task: TaskConfig, grid: Grid) -> int:
    layers = sum(len(task.pressure_levels) if VARIABLES[name].on_levels else 1 for name in names)
    return layers * int(np.prod(grid.shape)) * 4


def _free_space(store: ObjectStore) -> int | None:
    if not store.is_local:
        return None
    path = store.path("x").removesuffix("/x")
    while path:
        try:
            return psutil.disk_usage(path).free
        except FileNotFoundError:
            path = path.rpartition("/")[0]
    return None


def size_text(count: int) -> str:
    """A number of bytes for people."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
