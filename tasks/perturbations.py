"""Each member's own initial condition, as the model's perturbation is configured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr

from infra.checkpoint_files import read_statistics
from infra.dataset_checksum import dataset_sha256
from infra.errors import UnknownOptionError
from infra.initial_conditions import load_initial_condition
from infra.settings import Settings
from model.cycle import Cycle
from model.grid import Grid
from model.rollout.perturbations import Perturbation, perturb
from tasks.initial_conditions import other_analyses
from tasks.models import cache_folder

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
    if perturbation.kind == "weights":
        raise UnknownOptionError(
            "perturbation 'weights' gives every member parameters of its own, which ensembles do not run yet; "
            "take 'noise', 'lagged' or 'analyses', or write perturbed params files and run each as a model"
        )
    described = perturbation.to_json()
    checksums = [dataset_sha256(analysis) for analysis in _load_analyses(cycle, settings)]
    return described | ({"analyses_sha256": checksums} if checksums else {})


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


def _load_analyses(cycle: Cycle, settings: Settings) -> list[xr.Dataset]:
    store = settings.store.open()
    return [load_initial_condition(store, other, source) for other, source in other_analyses(cycle, settings)]
