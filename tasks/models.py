"""Load the configured model, once for each local device, and start its members."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from infra.checkpoint_files import read_checkpoint, read_statistics
from infra.dataset_checksum import dataset_sha256
from infra.errors import StoreError, UnknownOptionError
from infra.graph_cache import graph_cache
from infra.jax_runtime import enable_compilation_cache
from infra.manifests import RunDescription
from infra.settings import ModelSettings, Settings
from model.cycle import Cycle
from model.grid import Grid
from model.rollout.rng import base_key, member_key
from model.rollout.state import RolloutState

if TYPE_CHECKING:
    from model.forecaster import Forecaster


def load_models(
    settings: ModelSettings, *, cache: Path | None = None, devices: int | None = None
) -> list[Forecaster]:
    """The model, loaded once for each local device (or for the first ``devices`` of them).

    Args:
        settings: of the model.
        cache: folder for compiled programs, graphs and remote files; None keeps nothing.
        devices: how many local devices at most.

    Raises:
        UnknownOptionError: ``loader`` names no function.
        CheckpointFileError: the params file is not what it should be.
    """
    import jax

    local = jax.local_devices()[:devices]
    if settings.loader is not None:
        load = _loader(settings.loader)
        return [load(settings, device) for device in local]
    if cache is not None:
        enable_compilation_cache(cache / "compiled")
    return [_load_published(settings, device, cache) for device in local]


def cache_folder(settings: Settings) -> Path:
    """Where this machine keeps compiled programs, graphs and remote files."""
    return Path(settings.run.cache).expanduser()


def statistics_sha256(settings: ModelSettings, *, cache: Path) -> str:
    """sha256 over the contents of a model's normalisation statistics; empty for a family not built in."""
    if settings.loader is not None:
        return ""
    statistics = read_statistics(settings.statistics, cache=cache)
    parts = [statistics.mean, statistics.stddev, statistics.diffs_stddev, statistics.minimum]
    checksums = ["" if part is None else dataset_sha256(part) for part in parts]
    return hashlib.sha256(" ".join(checksums).encode()).hexdigest()


def member_starter(
    description: RunDescription, condition: Callable[[int, np.ndarray, Grid], xr.Dataset]
) -> Callable[[Forecaster, int], RolloutState]:
    """What makes a member's state at step 0.

    Args:
        description: of the run.
        condition: (member, its first key, grid) → its initial condition.
    """
    cycle = description.cycle
    base = base_key(description.seed, cycle.init_time, description.rng)

    def start(forecaster: Forecaster, member: int) -> RolloutState:
        key = member_key(base, member)
        own = condition(member, key, forecaster.grid)
        return forecaster.initial_state(own, init_time=cycle.init_time, member=member, key=key)

    return start


def statics_of(initial_condition: xr.Dataset, cycle: Cycle, names: tuple[str, ...]) -> xr.Dataset:
    """The fields without a time dimension.

    Raises:
        StoreError: the initial condition lacks one.
    """
    missing = [name for name in names if name not in initial_condition]
    if missing:
        raise StoreError(f"initial condition of {cycle}: expected the statics {names}, it lacks {missing}")
    return initial_condition[list(names)]


def _loader(name: str) -> Callable[[ModelSettings, object], Forecaster]:
    module, _, function = name.partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise UnknownOptionError(f"loader: expected 'module:function', got {name!r}: {error}") from error


def _load_published(settings: ModelSettings, device: object, cache: Path | None) -> Forecaster:
    from model.forecaster import load_forecaster

    grid = Grid(resolution=settings.resolution) if settings.resolution is not None else None
    remote = {} if cache is None else {"cache": cache}
    return load_forecaster(
        read_checkpoint(settings.checkpoint, **remote),
        read_statistics(settings.statistics, **remote),
        grid=grid,
        precision=settings.precision,
        attention=settings.attention,
        members_per_program=settings.members_per_program,
        graphs=graph_cache(cache / "graphs") if cache is not None else None,
        device=device,
    )
