"""What a run would need against what the machine has, before it starts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from typing import Any, NoReturn

import numpy as np
import psutil

from infra.checkpoint_files import read_checkpoint as checkpoint_path
from infra.devices import Machine, describe, local_devices, machine_of
from infra.errors import DoesNotFitError
from infra.object_store import ObjectStore
from infra.resources import host_memory_available, size_text
from infra.settings import ModelSettings, Settings
from model.checkpoint_file import CheckpointFile, read_checkpoint
from model.grid import Grid
from model.networks import checkpoint_grid
from model.task import TaskConfig
from tasks.compiled_memory import compiled_memory, program_name, recalled_memory
from tasks.memory_plan import (
    ESTIMATE_TOLERANCE,
    Choice,
    MemoryPlan,
    field_bytes,
    resolved_choice,
)
from tasks.models import cache_folder, load_models
from tasks.rollout import LoadedModels, RolloutOptions


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """A run's needs against a machine.

    Args:
        model: name of the configured model.
        grid: its grid.
        members, steps, blocks: of the run.
        choice: precision, members per program and attention, resolved.
        machine: what there is.
        device_bytes: needed on each device.
        host_bytes: needed on the host; on a CPU it contains the devices' need.
        compiled: whether the device's need is that of the compiled program; else it is an estimate.
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
    compiled: bool
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
        if self.problems:
            _refuse(self.model, self.problems, self.remedies)


def plan_run(
    name: str,
    settings: Settings,
    *,
    members: int | None = None,
    steps: int | None = None,
    machine: Machine | None = None,
) -> RunPlan:
    """Compare a model's needs with a machine.

    On this machine the memory is that of the model's compiled program, which is compiled to know it unless an
    earlier run did or it is far from fitting; for another machine it is estimated.

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
    if machine is None:
        memory, program = _memory_here(model, settings)
        if memory.compiled is None and not memory.problems(tolerance=ESTIMATE_TOLERANCE):
            [forecaster] = load_models(model, cache=cache_folder(settings), devices=1)
            compiled = compiled_memory(forecaster, cache_folder(settings), program)
            memory = replace(memory, compiled=compiled)
    else:
        checkpoint, grid, _ = _checkpoint(model, settings)
        memory = MemoryPlan(
            checkpoint=checkpoint, grid=grid, machine=machine, choice=_choice(checkpoint, machine, model)
        )
    machine, grid = memory.machine, memory.grid
    stored = stored_bytes(
        memory.checkpoint.task, grid, members=members, steps=steps, checkpoint_every=model.checkpoint_every
    )
    problems = memory.problems()
    remedies = tuple(memory.remedies()) if problems else ()
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
        choice=memory.choice,
        machine=machine,
        device_bytes=memory.need.device,
        host_bytes=memory.need.host,
        compiled=memory.compiled is not None,
        store_bytes=stored,
        seconds_per_step=measured_seconds_per_step(store, name, machine.device_kind),
        problems=tuple(problems),
        remedies=remedies,
    )


def load_fitting_models(name: str, settings: Settings) -> LoadedModels:
    """The model on each local device, refused before it runs if this machine cannot hold it.

    What by the estimate is far from fitting is refused before it is loaded. Otherwise the program is compiled,
    once, and its own need decides.

    Raises:
        DoesNotFitError: device or host memory is too small; the message names settings that would fit.
    """
    model: ModelSettings = settings.configured_model(name)
    cache = cache_folder(settings)
    if model.loader is not None:
        return load_models(model, cache=cache)
    memory, program = _memory_here(model, settings)
    _require(name, memory, tolerance=ESTIMATE_TOLERANCE if memory.compiled is None else 1.0)
    models = load_models(model, cache=cache)
    if memory.compiled is None:
        _require(name, replace(memory, compiled=compiled_memory(models[0], cache, program)))
    return models


def _require(name: str, memory: MemoryPlan, *, tolerance: float = 1.0) -> None:
    problems = memory.problems(tolerance=tolerance)
    if problems:
        _refuse(name, problems, tuple(memory.remedies()))


def _refuse(name: str, problems: Sequence[str], remedies: Sequence[str]) -> NoReturn:
    remedy = f"it would fit with {' or '.join(remedies)}" if remedies else "nothing here fits it"
    raise DoesNotFitError(f"model {name}: {'; '.join(problems)}; {remedy}")


def _memory_here(model: ModelSettings, settings: Settings) -> tuple[MemoryPlan, str]:
    """The memory plan on this machine, by the compiled program if it was ever compiled, and that program's name."""
    machine = this_machine(settings.store.open())
    checkpoint, grid, sha256 = _checkpoint(model, settings)
    choice = _choice(checkpoint, machine, model)
    program = program_name(
        {
            "checkpoint": sha256,
            "resolution": grid.resolution,
            "attention": model.attention,
            "platform": machine.platform,
            "device": machine.device_kind,
            **asdict(choice),
        }
    )
    memory = MemoryPlan(
        checkpoint=checkpoint,
        grid=grid,
        machine=machine,
        choice=choice,
        compiled=recalled_memory(cache_folder(settings), program),
    )
    return memory, program


def _checkpoint(model: ModelSettings, settings: Settings) -> tuple[CheckpointFile, Grid, str]:
    """The params file's content, its grid and its sha256."""
    path = checkpoint_path(model.checkpoint, cache=cache_folder(settings))
    content = path.read_bytes()
    checkpoint = read_checkpoint(content, name=path.name)
    named = Grid(resolution=model.resolution) if model.resolution is not None else None
    return checkpoint, checkpoint_grid(checkpoint, named), hashlib.sha256(content).hexdigest()


def _choice(checkpoint: CheckpointFile, machine: Machine, model: ModelSettings) -> Choice:
    return resolved_choice(
        checkpoint,
        machine,
        precision=model.precision,
        attention=model.attention,
        members_per_program=model.members_per_program,
    )


def this_machine(store: ObjectStore) -> Machine:
    """The machine that this process runs on."""
    return machine_of(
        [describe(device) for device in local_devices()],
        host_bytes=host_memory_available(),
        store_bytes=_free_space(store),
    )


def stored_bytes(task: TaskConfig, grid: Grid, *, members: int, steps: int, checkpoint_every: int) -> int:
    """Bytes of a run in the store at most: float32 fields uncompressed, and the checkpoints that are kept."""
    step = field_bytes(task.target_variables, task, grid)
    frames = 2 * field_bytes(task.time_inputs, task, grid)
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
