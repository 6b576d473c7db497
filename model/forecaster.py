"""A loaded model, ready to step: what everything above knows of a model, whichever its family."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
import xarray as xr

from model.checkpoint_file import read_checkpoint
from model.forcings import GivenForcings
from model.grid import Grid
from model.network_forecaster import NetworkForecaster
from model.networks import GraphStore, build_network, checkpoint_grid
from model.normalization import Statistics, channel_scaling
from model.precision import resolve_precision
from model.rollout.state import RolloutState
from model.step import ModelStep
from model.task import TaskConfig


class Forecaster(Protocol):
    """A model that can be stepped."""

    @property
    def family(self) -> str:
        """Of the model."""

    @property
    def task(self) -> TaskConfig:
        """What it takes and gives; ``task.step`` is the length of its step."""

    @property
    def grid(self) -> Grid:
        """On which it works."""

    @property
    def description(self) -> str:
        """The publisher's words."""

    @property
    def sha256(self) -> str:
        """Of the params file."""

    @property
    def options(self) -> dict[str, str]:
        """What was chosen or resolved and may change rounding, for the run's fingerprint."""

    def initial_state(
        self, initial_condition: xr.Dataset, *, init_time: datetime, member: int, key: np.ndarray
    ) -> RolloutState:
        """A member before its first step, everything about its initial condition checked."""

    def advance(
        self, states: Sequence[RolloutState], statics: xr.Dataset
    ) -> list[tuple[RolloutState, xr.Dataset]]:
        """One step of each member: the state after it, and the fields at its time."""


@runtime_checkable
class HasParameters(Protocol):
    """A model whose parameters can be exchanged."""

    @property
    def parameters(self) -> Mapping[str, Mapping[str, Any]]:
        """Those of its file, by module and name, whichever are in use."""

    def use_parameters(self, parameters: Mapping[str, Mapping[str, Any]]) -> None:
        """Go on with others of the same shapes."""


def load_forecaster(
    params: bytes | Path,
    statistics: Statistics,
    *,
    grid: Grid | None = None,
    precision: str = "auto",
    attention: str = "auto",
    members_per_program: int = 1,
    graphs: GraphStore | None = None,
    device: Any = None,
    given: GivenForcings | None = None,
) -> NetworkForecaster:
    """Make a published params file ready to step on a device.

    Args:
        params: the file or its content.
        statistics: the normalisation statistics it was trained with.
        grid: on which the data are; needed only for a checkpoint that does not say its resolution.
        precision: one of ``model.precision.PRECISIONS``.
        attention: kind of attention (GenCast), or ``"auto"``.
        members_per_program: members one compiled program advances; above 1 rounding may change.
        graphs: where to look for the graphs before building them.
        device: of JAX; None for the first.
        given: forcings that came with the data.

    Raises:
        CheckpointFileError: the file is none of a known family, or its parameters do not fit.
        InvalidFieldError: wrong grid, or statistics are missing.
        UnknownOptionError: no such precision or attention.
        ValueError: members_per_program below 1.
    """
    if members_per_program < 1:
        raise ValueError(f"members_per_program: expected at least 1, got {members_per_program}")
    content = params.read_bytes() if isinstance(params, Path) else params
    checkpoint = read_checkpoint(content, name=params.name if isinstance(params, Path) else "checkpoint")
    grid = checkpoint_grid(checkpoint, grid)
    device = device if device is not None else jax.local_devices()[0]
    capability = getattr(device, "compute_capability", None)
    resolved = resolve_precision(
        precision,
        platform=device.platform,
        compute_capability=float(capability) if capability else None,
    )
    with jax.default_device(device):
        network = build_network(
            checkpoint, grid, precision=resolved, attention=attention, platform=device.platform, graphs=graphs
        )
    return NetworkForecaster(
        checkpoint=replace(checkpoint, params={}),
        sha256=hashlib.sha256(content).hexdigest(),
        grid=grid,
        network=network,
        model_step=ModelStep(
            task=checkpoint.task, grid=grid, scaling=channel_scaling(checkpoint.task, statistics)
        ),
        members_per_program=members_per_program,
        device=device,
        given=given,
    )
