"""Each member's own initial condition, as the model's perturbation is configured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import xarray as xr

from infra.checkpoint_files import read_statistics
from infra.dataset_checksum import dataset_sha256
from infra.errors import UnknownOptionError
from infra.initial_conditions import load_initial_condition
from infra.manifests import RunDescription
from infra.settings import Settings
from model.cycle import Cycle
from model.forecaster import Forecaster, HasParameters
from model.grid import Grid
from model.rollout.perturbations import CONTROL, Perturbation, perturb, perturb_parameters
from model.rollout.rng import base_key, member_key
from tasks.initial_conditions import other_analyses
from tasks.models import cache_folder
from tasks.rollout import MemberParameters

_CHECKSUMS = "analyses_sha256"

MemberCondition = Callable[[int, np.ndarray, Grid], xr.Dataset]
"""(member, its first key, the model's grid) → its initial condition."""


def describe_perturbation(cycle: Cycle, settings: Settings) -> dict[str, Any]:
    """What decides how the members of a cycle differ at the start; empty if they do not.

    It is the configuration and the checksums of the other analyses it draws on: part of the run's fingerprint.

    Raises:
        UnknownOptionError: of a kind that does not exist, or that ensembles cannot run.
        ValueError: a value out of range.
        StoreError: one of the other analyses is not in the store.
    """
    perturbation = Perturbation.from_json(settings.configured_model(cycle.model).perturbation)
    if perturbation.kind == "none":
        return {}
    together = settings.configured_model(cycle.model).members_per_program
    if perturbation.kind == "weights" and together > 1:
        raise UnknownOptionError(
            "perturbation 'weights' gives every member parameters of its own, which members of one program "
            f"cannot have: expected members_per_program=1, got {together}"
        )
    described = perturbation.to_json()
    checksums = [dataset_sha256(analysis) for analysis in _load_analyses(cycle, settings)]
    return described | ({_CHECKSUMS: checksums} if checksums else {})


def member_conditions(cycle: Cycle, settings: Settings, control: xr.Dataset) -> MemberCondition:
    """What makes each member's initial condition from the control's.

    Raises:
        StoreError: one of the other analyses is not in the store.
        InvalidFieldError: the statistics cannot be read.
    """
    model = settings.configured_model(cycle.model)
    perturbation = Perturbation.from_json(model.perturbation)
    if perturbation.kind == "none":
        return lambda member, key, grid: control
    analyses = _load_analyses(cycle, settings)
    diffs_stddev = None
    if perturbation.kind == "noise":
        diffs_stddev = read_statistics(model.statistics, cache=cache_folder(settings)).diffs_stddev

    def condition(member: int, key: np.ndarray, grid: Grid) -> xr.Dataset:
        return perturb(
            control,
            perturbation,
            key=key,
            member=member,
            grid=grid,
            diffs_stddev=diffs_stddev,
            analyses=analyses,
        )

    return condition


def member_parameters(description: RunDescription, forecaster: Forecaster) -> MemberParameters | None:
    """What makes each member's network parameters from the model's; None where all members share these.

    They follow from (seed, init_time, member) and the configuration alone, as the members' random numbers do.

    Raises:
        UnknownOptionError: the model's parameters cannot be exchanged.
    """
    perturbation = Perturbation.from_json(
        {name: value for name, value in description.perturbation.items() if name != _CHECKSUMS}
    )
    if perturbation.kind != "weights":
        return None
    if not isinstance(forecaster, HasParameters):
        raise UnknownOptionError(
            f"perturbation 'weights': the parameters of family {forecaster.family} cannot be exchanged; "
            "take 'noise', 'lagged' or 'analyses'"
        )
    published = forecaster.parameters
    base = base_key(description.seed, description.cycle.init_time, description.rng)

    def parameters(member: int) -> Mapping[str, Mapping[str, Any]]:
        if member == CONTROL:
            return published
        return perturb_parameters(published, perturbation, key=member_key(base, member), member=member)

    return parameters


def _load_analyses(cycle: Cycle, settings: Settings) -> list[xr.Dataset]:
    store = settings.store.open()
    return [load_initial_condition(store, other, source) for other, source in other_analyses(cycle, settings)]
