"""Load the configured model, once for each local device, and start its members."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import xarray as xr

from infra.errors import StoreError, UnknownOptionError
from infra.manifests import RunDescription
from infra.object_store import ObjectStore
from infra.settings import ModelSettings
from model.cycle import Cycle
from model.rollout.rng import base_key, member_key
from model.rollout.state import RolloutState

if TYPE_CHECKING:
    from model.forecaster import Forecaster


def load_models(settings: ModelSettings, *, devices: int | None = None) -> list[Forecaster]:
    """The model, loaded once for each local device (or for the first ``devices`` of them).

    Raises:
        UnknownOptionError: ``loader`` names no function.
        CheckpointFileError: the params file is not what it should be.
    """
    import jax

    load = _loader(settings.loader) if settings.loader else _load_published
    local = jax.local_devices()[:devices]
    return [load(settings, device) for device in local]


def load_initial_condition(store: ObjectStore, key: str) -> xr.Dataset:
    """A stored initial condition in memory.

    Raises:
        StoreError: there is none.
    """
    try:
        return xr.open_zarr(store.zarr(key, read_only=True), chunks=None, consolidated=False).load()
    except (FileNotFoundError, KeyError) as error:
        raise StoreError(f"initial condition {store.url(key)}: could not be opened: {error}") from error


def member_starter(
    description: RunDescription, initial_condition: xr.Dataset
) -> Callable[[Forecaster, int], RolloutState]:
    """What makes a member's state at step 0 from the run's initial condition and the member's own key."""
    cycle = description.cycle
    base = base_key(description.seed, cycle.init_time, description.rng)

    def start(forecaster: Forecaster, member: int) -> RolloutState:
        key = member_key(base, member)
        return forecaster.initial_state(initial_condition, init_time=cycle.init_time, member=member, key=key)

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


def _load_published(settings: ModelSettings, device: object) -> Forecaster:
    from infra.checkpoint_files import read_checkpoint, read_statistics
    from model.forecaster import load_forecaster

    return load_forecaster(
        read_checkpoint(settings.checkpoint),
        read_statistics(settings.statistics),
        precision=settings.precision,
        attention=settings.attention,
        members_per_program=settings.members_per_program,
        device=device,
    )
