"""What will decide a run's values, and whether this worker would decide them in the same way."""

from __future__ import annotations

from dataclasses import fields

import xarray as xr

from infra import layout
from infra.dataset_checksum import dataset_sha256
from infra.errors import CheckpointMismatchError
from infra.manifests import RunDescription
from infra.settings import Settings
from infra.version import code_version, compiler_version
from model.cycle import Cycle
from tasks.models import cache_folder, statistics_sha256
from tasks.perturbations import describe_perturbation


def describe_run(
    cycle: Cycle, settings: Settings, *, model_sha256: str, initial_condition: xr.Dataset
) -> RunDescription:
    """Everything that will decide a value of a run, as this process is configured.

    Args:
        cycle: the cycle.
        settings: of this process.
        model_sha256: of the params file.
        initial_condition: as stored.

    Raises:
        UnknownOptionError: the perturbation is none that can be run.
        StoreError: an analysis that the perturbation needs is not in the store.
    """
    model = settings.configured_model(cycle.model)
    return RunDescription(
        cycle=cycle,
        model_sha256=model_sha256,
        statistics_sha256=statistics_sha256(model, cache=cache_folder(settings)),
        initial_condition=layout.initial_condition(cycle),
        initial_condition_sha256=dataset_sha256(initial_condition),
        seed=model.seed,
        rng=model.rng,
        precision=model.precision,
        attention=model.attention,
        perturbation=describe_perturbation(cycle, settings),
        code_version=code_version(),
        compiler_version=compiler_version(),
    )


def require_same(planned: RunDescription, own: RunDescription) -> None:
    """Refuse to compute members of a run that this worker would compute otherwise.

    Args:
        planned: the run's.
        own: as this worker would describe it.

    Raises:
        CheckpointMismatchError: naming every field that differs.
    """
    if own.fingerprint == planned.fingerprint:
        return
    differences = [
        f"{field.name}: planned with {_text(getattr(planned, field.name))}, this worker has "
        f"{_text(getattr(own, field.name))}"
        for field in fields(RunDescription)
        if getattr(planned, field.name) != getattr(own, field.name)
    ]
    raise CheckpointMismatchError(f"{planned.cycle}, run {planned.run}: {'; '.join(differences)}")


def _text(value: object) -> str:
    text = str(value)
    return f"{text[:12]}…" if len(text) == 64 else repr(value)
