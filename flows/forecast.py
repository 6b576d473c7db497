"""One cycle, from its analyses to verified products that readers can see.

Every stage leaves its result in the object store and is skipped where that is there, so a cycle that died at any
moment is finished by starting it again.
"""

from __future__ import annotations

import os
import socket
from datetime import datetime

from prefect import flow
from prefect.runtime import flow_run

from flows.ensemble import forecast_ensemble
from infra import layout
from infra.claims import claim_cycle, held
from infra.events import raise_event
from infra.settings import Settings, load_settings
from model.cycle import Cycle
from tasks.initial_conditions import prepare_initial_condition
from tasks.products import make_products
from tasks.publish import publish_cycle
from tasks.rollout import ProgressCallback
from tasks.validation import validate_initial_condition


@flow(name="forecast", flow_run_name="{model}-{init_time}")
def forecast(
    model: str,
    init_time: datetime,
    members: int | None = None,
    steps: int | None = None,
    source: str | None = None,
    force: bool = False,
) -> str:
    """Run one cycle with the configured settings; returns the key of its manifest.

    Args:
        model: name of a configured model.
        init_time: start of the forecast.
        members: ensemble size; default the model's.
        steps: number of model steps; default the model's.
        source: name of a configured source; default the model's.
        force: run a published cycle again and replace it.
    """
    settings = load_settings()
    if source is not None:
        settings = settings.with_source(model, source)
    cycle = Cycle(model=model, init_time=init_time)
    return run_cycle(cycle, settings, members=members, steps=steps, force=force)


def run_cycle(
    cycle: Cycle,
    settings: Settings,
    *,
    members: int | None = None,
    steps: int | None = None,
    force: bool = False,
    progress: ProgressCallback | None = None,
) -> str:
    """Bring a cycle from wherever it stands to publication.

    Returns:
        The key of its manifest.

    Raises:
        CycleBusyError: another run holds the cycle.
        MissingDataError: the source lacks its inputs.
        ValidationFailedError: its inputs failed a blocking check; they are quarantined.
        IncompleteCycleError: members were given up.
        PublicationError: its products failed a check; they are quarantined.
    """
    store = settings.store.open()
    manifest = layout.cycle_manifest(cycle)
    if store.exists(manifest) and not force:
        return manifest
    with held(claim_cycle(store, cycle, owner=_owner())):
        raise_event("started", cycle)
        prepare_initial_condition(cycle, settings)
        validate_initial_condition(cycle, settings)
        ensemble = forecast_ensemble(cycle, settings, members=members, steps=steps, progress=progress)
        make_products(cycle, settings, ensemble)
        return publish_cycle(cycle, settings, ensemble.run, replace=force)


def _owner() -> str:
    name = flow_run.get_name()
    return f"flow run {name}" if name else f"process {os.getpid()} on {socket.gethostname()}"
