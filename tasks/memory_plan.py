"""The memory of one worker: what a model needs under some settings, whether that fits, and what would."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from infra.devices import Machine
from infra.resources import size_text
from model.checkpoint_file import CheckpointFile
from model.gencast.attention_options import AttentionOptions, attention_kind_for
from model.graphcast import ModelConfig
from model.grid import Grid
from model.precision import resolve_precision
from model.rollout.memory import memory_needed
from model.task import TaskConfig
from model.variables import VARIABLES
from tasks.rollout import RolloutOptions

_RUNTIME_BYTES = 700 * 2**20
"""Resident memory of a worker before any model: Python, JAX, Prefect, xarray (measured: 0.43–0.7 GiB)."""

_COMPILE_BYTES = 5.5e9
_COMPILE_BYTES_PER_POINT = 284e3
"""Host memory for compiling GenCast for an accelerator: the line through DeepMind's published figures of about
24 GB at 1° (65 160 grid points) and 300 GB at 0.25° (1 038 240) on a GPU, less than that on a TPU."""

_OTHER_RESOLUTIONS = (0.25, 1.0, 2.0, 5.0)

ESTIMATE_TOLERANCE = 1.5
"""An estimate beyond this factor of what there is is refused without compiling to know it exactly."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The settings that decide how much memory a worker needs, resolved for its device.

    Args:
        precision: ``"float32"``, ``"bfloat16"`` or ``"float16"``.
        members_per_program: members advanced by one program.
        attention: kind of attention; None for a family without.
    """

    precision: str
    members_per_program: int
    attention: str | None = None

    def __str__(self) -> str:
        attention = f", attention={self.attention}" if self.attention else ""
        return f"precision={self.precision}, members_per_program={self.members_per_program}{attention}"


@dataclass(frozen=True, kw_only=True)
class MemoryNeed:
    """Bytes on each device, and on the host (which contains the devices' need where these are the host's)."""

    device: int
    host: int


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """What a model needs of a machine, by estimate or, where ``compiled`` is known, by its compiled program.

    Args:
        checkpoint: the model.
        grid: its grid.
        machine: what there is.
        choice: the settings asked for.
        compiled: bytes on the device by the compiled program of ``choice``; None: not compiled.
    """

    checkpoint: CheckpointFile
    grid: Grid
    machine: Machine
    choice: Choice
    compiled: int | None = None

    @property
    def need(self) -> MemoryNeed:
        """Under the settings asked for."""
        return self._need(self.choice, self.grid)

    def problems(self, *, tolerance: float = 1.0) -> list[str]:
        """What does not fit, in words.

        Args:
            tolerance: how many times what there is may be needed.
        """
        return self._problems(self.need, tolerance)

    def remedies(self) -> Iterator[str]:
        """Other settings that would fit, the smallest change first; failing all, the finest grid that would.

        Edges are always worked on in chunks, so these are not among them.
        """
        found = [
            choice for choice in self._others() if not self._problems(self._need(choice, self.grid), 1.0)
        ]
        yield from map(str, found[:3])
        if found:
            return
        smallest = min(
            (self.choice, *self._others()), key=lambda choice: self._need(choice, self.grid).device
        )
        for resolution in _OTHER_RESOLUTIONS:
            grid = Grid(resolution=resolution)
            if resolution > self.grid.resolution and not self._problems(self._need(smallest, grid), 1.0):
                yield f"a checkpoint of such a model at {resolution:g}° ({smallest})"
                return

    def _others(self) -> list[Choice]:
        together = self.choice.members_per_program
        found = [replace(self.choice, members_per_program=n) for n in dict.fromkeys((together // 2, 1)) if n]
        if self.choice.attention is not None:
            best = attention_kind_for(
                "auto", platform=self.machine.platform, channels_per_head=channels_per_head(self.checkpoint)
            )
            found = [replace(each, attention=best) for each in (self.choice, *found)]
        # Half precision on a CPU is computed in float32: it needs more there, not less.
        if self.choice.precision == "float32" and self.machine.platform != "cpu":
            found += [replace(each, precision="bfloat16") for each in (self.choice, *found)]
        return [choice for choice in dict.fromkeys(found) if choice != self.choice]

    def _need(self, choice: Choice, grid: Grid) -> MemoryNeed:
        device = self._estimate(choice, grid)
        if self.compiled is not None:
            # What the estimate gets wrong of these settings it gets wrong of their neighbours too.
            device = int(device * self.compiled / self._estimate(self.choice, self.grid))
        task = self.checkpoint.task
        frames = 2 * field_bytes(task.time_inputs, task, grid)
        step = field_bytes(task.target_variables, task, grid)
        # A member's state, the next one's, and a checkpoint being written with its copy; steps that wait.
        streaming = choice.members_per_program * (4 * frames + (RolloutOptions().queue_depth + 2) * step)
        host = _RUNTIME_BYTES + self.machine.devices * streaming + 2 * 4 * self.checkpoint.parameter_count
        if self.machine.platform == "cpu":
            host += self.machine.devices * device
        elif self.checkpoint.family == "gencast":
            host += int(_COMPILE_BYTES + _COMPILE_BYTES_PER_POINT * np.prod(grid.shape))
        else:
            host += device
        return MemoryNeed(device=device, host=host)

    def _estimate(self, choice: Choice, grid: Grid) -> int:
        return memory_needed(
            self.checkpoint,
            grid,
            precision=choice.precision,
            members=choice.members_per_program,
            attention=choice.attention,
            platform=self.machine.platform,
        )

    def _problems(self, need: MemoryNeed, tolerance: float) -> list[str]:
        problems, machine = [], self.machine
        if machine.device_bytes is not None and need.device > tolerance * machine.device_bytes:
            problems.append(
                f"needs about {size_text(need.device)} on a {machine.device_kind}, which has "
                f"{size_text(machine.device_bytes)}"
            )
        if need.host > tolerance * machine.host_bytes:
            problems.append(
                f"needs about {size_text(need.host)} of host memory, {size_text(machine.host_bytes)} are free"
            )
        return problems


def resolved_choice(
    checkpoint: CheckpointFile, machine: Machine, *, precision: str, attention: str, members_per_program: int
) -> Choice:
    """Settings as configured, resolved for a machine's devices.

    Raises:
        UnknownOptionError: no such precision or attention.
        ValueError: the attention cannot run with the model.
    """
    kind = None
    if not isinstance(checkpoint.config, ModelConfig):
        kind = attention_kind_for(
            AttentionOptions.parse(attention).kind,
            platform=machine.platform,
            channels_per_head=channels_per_head(checkpoint),
        )
    return Choice(
        precision=resolve_precision(
            precision, platform=machine.platform, compute_capability=machine.compute_capability
        ),
        members_per_program=members_per_program,
        attention=kind,
    )


def channels_per_head(checkpoint: CheckpointFile) -> int:
    """Width of one attention head of a GenCast checkpoint."""
    transformer = checkpoint.config.denoiser_architecture_config.sparse_transformer_config  # type: ignore[union-attr]
    return transformer.d_model // transformer.num_heads


def field_bytes(names: Sequence[str], task: TaskConfig, grid: Grid) -> int:
    """Bytes of one time of some variables, float32."""
    layers = sum(len(task.pressure_levels) if VARIABLES[name].on_levels else 1 for name in names)
    return layers * int(np.prod(grid.shape)) * 4
