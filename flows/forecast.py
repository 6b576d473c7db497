"""One cycle, from its analyses to verified products that readers can see.

Every stage leaves its result in the object store and is skipped where that is there, so a cycle that died at any
moment is finished by starting it again.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import ParamSpec, TypeVar

from prefect import Task, flow, task
from prefect.cache_policies import NO_CACHE
from prefect.concurrency.sync import concurrency
from prefect.context import FlowRunContext
from prefect.runtime import flow_run
from prefect.states import State
from pydantic import PositiveInt
from rich.console import Console

from flows.ensemble import forecast_ensemble
from flows.progress import shown_progress
from infra import layout
from infra.claims import CycleBusyError, claim_cycle, held, utc_now
from infra.errors import FoldcastError, MissingDataError
from infra.events import raise_event
from infra.object_store import ObjectStore
from infra.publication import read_manifest
from infra.settings import Settings, load_settings
from infra.terminal import command_console
from infra.work_pool_setup import SOURCE_LIMIT
from model.cycle import Cycle, parse_init_time, recent_init_times
from tasks.cycle_links import publish_links
from tasks.initial_conditions import missing_inputs, prepare_initial_condition_task
from tasks.launch import held_elsewhere, require_server, shelter_temporary_server, start_cycle
from tasks.products import make_products
from tasks.publish import finish_publication, publish_cycle
from tasks.rollout import ProgressCallback
from tasks.validation import validate_initial_condition_task

P = ParamSpec("P")
R = TypeVar("R")


@flow(name="forecast", flow_run_name="{model}-{init_time:%Y%m%dT%HZ}")
def forecast(
    model: str,
    init_time: datetime,
    members: PositiveInt | None = None,
    steps: PositiveInt | None = None,
    source: str | None = None,
    force: bool = False,
) -> str | State:
    """Run one cycle with the configured settings; returns the key of its manifest.

    Where another run holds the cycle this one ends as cancelled.

    Args:
        model: name of a configured model.
        init_time: start of the forecast.
        members: ensemble size; default the model's.
        steps: number of model steps; default the model's.
        source: name of a configured source; default the model's.
        force: make and publish the products of a published cycle again and replace them; what is whole of its
            initial condition and members is kept.
    """
    settings = load_settings()
    if source is not None:
        settings = settings.with_source(model, source)
    cycle = Cycle(model=model, init_time=init_time)
    try:
        return run_cycle(cycle, settings, members=members, steps=steps, force=force, queue=_own_queue())
    except CycleBusyError as error:
        return held_elsewhere(error)


def run_cycle(
    cycle: Cycle,
    settings: Settings,
    *,
    members: int | None = None,
    steps: int | None = None,
    force: bool = False,
    progress: ProgressCallback | None = None,
    queue: str | None = None,
) -> str:
    """Bring a cycle from wherever it stands to publication.

    Args:
        cycle: the cycle.
        settings: the configuration.
        members: ensemble size; default the model's.
        steps: number of model steps; default the model's.
        force: run a published cycle again and replace it.
        progress: called after every step of a block that runs in this process.
        queue: work queue of its blocks of members; default the members deployment's own.

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
        finish_publication(cycle, settings)
        return manifest
    with held(claim_cycle(store, cycle, owner=_owner())):
        raise_event("started", cycle)
        with _place_at_source(settings):
            stage(prepare_initial_condition_task)(cycle, settings)
        stage(validate_initial_condition_task)(cycle, settings)
        ensemble = forecast_ensemble(
            cycle, settings, members=members, steps=steps, progress=progress, queue=queue
        )
        stage(_once(make_products, "make products"))(cycle, settings, ensemble)
        manifest = stage(_once(publish_cycle, "publish"))(cycle, settings, ensemble.run, replace=force)
    publish_links(cycle, settings)
    return manifest


def stage(shown: Task[P, R]) -> Callable[P, R]:
    """A stage of a cycle: in a flow run a task, which the UI shows and which has retries; else plain."""
    return shown if FlowRunContext.get() is not None else shown.fn


def _once(function: Callable[P, R], name: str) -> Task[P, R]:
    """A stage without retries: the next attempt at the cycle repeats it."""
    return task(name=name, persist_result=False, cache_policy=NO_CACHE)(function)


@contextmanager
def _place_at_source(settings: Settings) -> Iterator[None]:
    """One of the places that all workers together have at providers; in-process there is but this one."""
    if FlowRunContext.get() is None or settings.run.submission == "in-process":
        yield
        return
    with concurrency(SOURCE_LIMIT):
        yield


def forecast_here(
    cycle: Cycle,
    settings: Settings,
    console: Console,
    *,
    members: int | None = None,
    steps: int | None = None,
    force: bool = False,
) -> str:
    """Run a cycle in this process as a flow run, with a progress bar; returns the key of its manifest."""
    model = settings.configured_model(cycle.model)
    published_before = not force and settings.store.open().exists(layout.cycle_manifest(cycle))
    if published_before:
        console.print(f"{cycle}: published before")

    @flow(name="forecast", flow_run_name=f"{cycle.model}-{cycle.identifier}", persist_result=False)
    def run() -> str:
        sizes = {"members": members or model.members, "steps": steps or model.steps}
        with shown_progress(console, cycle, **sizes, published_before=published_before) as progress:
            return run_cycle(cycle, settings, members=members, steps=steps, force=force, progress=progress)

    shelter_temporary_server()
    key = run()
    tell_warnings(console, settings.store.open(), cycle)
    return key


def tell_warnings(console: Console, store: ObjectStore, cycle: Cycle) -> None:
    """Print what the checks of a published cycle's products warn of."""
    for warning in read_manifest(store, cycle).warnings:
        console.print(f"{cycle}: warning: {warning}", style="yellow", markup=False, soft_wrap=True)


def forecast_command(
    *,
    model: str,
    init: str | None,
    members: int | None,
    steps: int | None,
    source: str | None,
    force: bool,
    submit: bool,
) -> None:
    """Run or submit one cycle from the command line.

    Raises:
        FoldcastError: a name or time is not valid, no recent cycle has its inputs, or a stage failed.
    """
    console = command_console()
    settings = load_settings()
    if source is not None:
        settings = settings.with_source(model, source)
    settings.configured_model(model)
    cycle = _cycle(model, init) if init else newest_complete(model, settings)
    if not submit and not settings.store.open().exists(layout.cycle_manifest(cycle)):
        require_inputs(cycle, settings)  # said at once, before Prefect starts or is asked
    if submit or settings.run.submission == "work-pool":
        require_server()
    if submit:
        series = f"forced-{utc_now():%Y%m%dT%H%M%S}" if force else ""
        parameters = {"members": members, "steps": steps, "source": source, "force": force}
        status = start_cycle(cycle, queue="realtime", attempts=None, series=series, parameters=parameters)
        console.print(f"{cycle}: {status.state} {status.reason}".rstrip())
        return
    manifest = forecast_here(cycle, settings, console, members=members, steps=steps, force=force)
    console.print(f"Published: {settings.store.open().url(manifest)}", soft_wrap=True)


def newest_complete(model: str, settings: Settings) -> Cycle:
    """The newest cycle of the last two days whose inputs are complete at its source.

    Raises:
        MissingDataError: there is none; the message says what the newest lacks.
    """
    hours = settings.configured_model(model).init_hours
    lacks = ""
    for init_time in reversed(recent_init_times(utc_now(), hours=hours, look_back=timedelta(days=2))):
        cycle = Cycle(model=model, init_time=init_time)
        missing = missing_inputs(cycle, settings)
        if not missing:
            return cycle
        lacks = lacks or f"{cycle} lacks {missing[0]}"
    raise MissingDataError(
        f"{model}: no cycle of the last two days has its inputs; {lacks}; name one with --init"
    )


def require_inputs(cycle: Cycle, settings: Settings) -> None:
    """Raises MissingDataError if the source lacks inputs of a cycle, with the first ones it lacks."""
    missing = missing_inputs(cycle, settings)
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        source = settings.configured_model(cycle.model).source
        raise MissingDataError(
            f"{cycle}: expected its inputs at source {source!r}, missing {missing[0]}{more}"
        )


def _cycle(model: str, init: str) -> Cycle:
    try:
        return Cycle(model=model, init_time=parse_init_time(init))
    except ValueError as error:
        raise FoldcastError(str(error)) from None


def _own_queue() -> str | None:
    """The work queue this flow run came from: its blocks of members wait in the queue of the same name."""
    context = FlowRunContext.get()
    return context.flow_run.work_queue_name if context is not None and context.flow_run is not None else None


def _owner() -> str:
    name = flow_run.get_name()
    return f"flow run {name}" if name else f"process {os.getpid()} on {socket.gethostname()}"
