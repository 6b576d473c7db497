"""Runs the cycles of a past period that are not published yet, bounded and behind the real-time ones."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Annotated

import httpx
from prefect import flow
from prefect.runtime import flow_run
from pydantic import BeforeValidator
from rich.table import Table

from flows.forecast import run_cycle
from infra.errors import FoldcastError, TransientSourceError
from infra.failures import told_as_failure
from infra.object_store import ObjectStore
from infra.settings import Settings, load_settings
from infra.terminal import FoldingTable, command_console
from model.cycle import Cycle, cycle_times, parse_init_time, parse_interval
from tasks.cycle_table import cycle_rows, publish_cycle_table
from tasks.initial_conditions import missing_inputs
from tasks.launch import (
    LaunchOutcome,
    require_server,
    run_in_store,
    shelter_temporary_server,
    start_cycle,
    state_in_store,
)

_LOG = logging.getLogger(__name__)
_ATTEMPTS = 2
_FAILURES = {"failed": "failed", "would fail": "would fail", "unknown": "cannot be foreseen"}

Starter = Callable[[Cycle], LaunchOutcome]


def _interval(value: object) -> object:
    """What people type into the deployment's form; ISO 8601 and seconds are left to pydantic."""
    return parse_interval(value) if isinstance(value, str) and value[-1:] in ("h", "d", "m") else value


Interval = Annotated[timedelta, BeforeValidator(_interval)]


@flow(name="backfill", flow_run_name="backfill-{start:%Y%m%d}-{end:%Y%m%d}")
def backfill(
    start: datetime,
    end: datetime,
    every: Interval = timedelta(hours=24),
    models: list[str] | None = None,
    max_parallel: int = 2,
    dry_run: bool = False,
    force: bool = False,
    poll_seconds: float = 10.0,
) -> list[LaunchOutcome]:
    """Run all cycles from start to end, both included, on the low-priority queue.

    Published cycles are skipped by their manifest: an interrupted backfill is resumed by starting it again.
    So are those at hours outside their model's ``init_hours``.

    Args:
        start: first init_time (UTC where no offset is given).
        end: last init_time.
        every: time between cycles, e.g. 6h or 1d.
        models: names of configured models; default: all.
        max_parallel: cycles running at once on the workers; in-process they run one after the other.
        dry_run: only say what would be done, with what the sources have now; it ends as the backfill would.
        force: run published cycles again as well.
        poll_seconds: seconds between looks at the running cycles.

    Raises:
        FoldcastError: the period or a model is not valid; no model starts at any of the hours; some cycles failed.
    """
    settings = load_settings()
    cycles = planned_cycles(settings, start, end, every=every, models=models)
    outcomes = fill(
        cycles, settings, max_parallel=max_parallel, dry_run=dry_run, force=force, poll_seconds=poll_seconds
    )
    require_none_failed(outcomes)
    return outcomes


def fill(
    cycles: list[Cycle],
    settings: Settings,
    *,
    max_parallel: int,
    dry_run: bool,
    force: bool,
    poll_seconds: float = 10.0,
) -> list[LaunchOutcome]:
    """Run the cycles that are not published; what became of each, those skipped first.

    Inside a flow run the outcomes become its table. The arguments are those of the flow.

    Raises:
        FoldcastError: max_parallel is not positive; no model starts at any of the cycles' hours.
    """
    if max_parallel < 1:
        raise FoldcastError(f"backfill: expected max_parallel of at least 1, got {max_parallel}")
    store = settings.store.open()
    unserved, served = split_served(settings, cycles)
    if unserved and not served:
        first = unserved[0]
        raise FoldcastError(
            f"backfill: expected a cycle at an hour its model starts at, got none of {len(unserved)}; "
            f"first {first.cycle}: {first.reason}"
        )
    published, todo = split_published(store, served, force=force)
    if dry_run:
        outcomes = [foreseen(store, cycle, settings) for cycle in todo]
    elif settings.run.submission == "in-process":
        outcomes = [run_here(cycle, settings, force=force) for cycle in todo]
    else:
        outcomes = run_bounded(
            todo, _submitter(store, force=force), max_parallel=max_parallel, poll_seconds=poll_seconds
        )
    outcomes = unserved + published + outcomes
    publish_cycle_table(outcomes, key="backfill")
    return outcomes


def require_none_failed(outcomes: list[LaunchOutcome]) -> None:
    """Raises FoldcastError if a cycle failed, would fail or cannot be foreseen, with the first one's reason."""
    for state, what in _FAILURES.items():
        of_state = [outcome for outcome in outcomes if outcome.state == state]
        if of_state:
            first = of_state[0]
            raise FoldcastError(
                f"{len(of_state)} of {len(outcomes)} cycles {what}, first {first.cycle}: {first.reason}"
            )


def _submitter(store: ObjectStore, *, force: bool) -> Starter:
    """Starts cycles through the server, each with so many attempts besides those made before this backfill."""
    series = f"forced-{flow_run.get_id()}" if force else ""
    limits: dict[Cycle, int] = {}

    def submit(cycle: Cycle) -> LaunchOutcome:
        try:
            # While a run is at the cycle another would only end at once, and that is no attempt.
            known = run_in_store(store, cycle) if force else state_in_store(store, cycle)
            if known is not None:
                return known
            outcome = start_cycle(
                cycle,
                queue="backfill",
                attempts=limits.get(cycle),
                series=series,
                parameters={"force": force},
            )
        except (TransientSourceError, httpx.HTTPError) as error:
            if isinstance(error, httpx.HTTPStatusError) and error.response.is_client_error:
                raise
            _LOG.warning("%s: asked again later: %s", cycle, error)
            return LaunchOutcome(cycle=cycle, state="waiting", reason=str(error))
        limits.setdefault(cycle, outcome.attempts + _ATTEMPTS - 1)
        return outcome

    return submit


def planned_cycles(
    settings: Settings, start: datetime, end: datetime, *, every: timedelta, models: Iterable[str] | None
) -> list[Cycle]:
    """The cycles of a backfill, oldest first.

    Raises:
        FoldcastError: end lies before start; a model is not configured; a time is not on the hour.
    """
    first, last = (t.replace(tzinfo=UTC) if t.tzinfo is None else t for t in (start, end))
    if last < first:
        raise FoldcastError(f"backfill: expected end at or after start, got {start} to {end}")
    names = sorted(models or settings.models)
    for name in names:
        settings.configured_model(name)
    try:
        return [
            Cycle(model=name, init_time=t) for t in cycle_times(first, last, every=every) for name in names
        ]
    except ValueError as error:
        raise FoldcastError(f"backfill: {error}") from None


def split_served(settings: Settings, cycles: list[Cycle]) -> tuple[list[LaunchOutcome], list[Cycle]]:
    """Cycles at hours that their model does not start at, and the others."""
    skipped, served = [], []
    for cycle in cycles:
        hours = settings.configured_model(cycle.model).init_hours
        if cycle.init_time.hour in hours:
            served.append(cycle)
        else:
            reason = f"init_hours are {', '.join(map(str, hours))}"
            skipped.append(LaunchOutcome(cycle=cycle, state="skipped", reason=reason))
    return skipped, served


def foreseen(store: ObjectStore, cycle: Cycle, settings: Settings) -> LaunchOutcome:
    """What would become of a cycle that was started now, without starting it."""
    known = run_in_store(store, cycle)
    if known is not None:
        return known
    source = settings.configured_model(cycle.model).source
    try:
        with told_as_failure(f"{cycle}: its source could not be asked"):
            missing = missing_inputs(cycle, settings)
    except FoldcastError as error:
        return LaunchOutcome(cycle=cycle, state="unknown", reason=f"source {source!r}: {error}")
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        reason = f"source {source!r} lacks {missing[0]}{more}"
        return LaunchOutcome(cycle=cycle, state="would fail", reason=reason)
    return LaunchOutcome(cycle=cycle, state="would run")


def split_published(
    store: ObjectStore, cycles: list[Cycle], *, force: bool
) -> tuple[list[LaunchOutcome], list[Cycle]]:
    """Cycles that need nothing, and those to run."""
    if force:
        return [], cycles
    known = [(cycle, state_in_store(store, cycle)) for cycle in cycles]
    published = {cycle for cycle, status in known if status is not None and status.state == "published"}
    done = [
        LaunchOutcome(cycle=cycle, state="skipped", reason="published before")
        for cycle in cycles
        if cycle in published
    ]
    return done, [cycle for cycle in cycles if cycle not in published]


def run_bounded(
    cycles: list[Cycle],
    starter: Starter,
    *,
    max_parallel: int,
    poll_seconds: float,
    sleep: Callable[[float], None] = time.sleep,
) -> list[LaunchOutcome]:
    """Keep at most ``max_parallel`` cycles going until all have ended; results in the cycles' order.

    ``starter`` is asked again and again for the same cycle until that has ended.
    """
    ended: dict[Cycle, LaunchOutcome] = {}
    while len(ended) < len(cycles):
        waiting = [cycle for cycle in cycles if cycle not in ended]
        for cycle in waiting[:max_parallel]:
            outcome = starter(cycle)
            if outcome.ended:
                ended[cycle] = outcome
        if len(ended) < len(cycles):
            sleep(poll_seconds)
    return [ended[cycle] for cycle in cycles]


def run_here(cycle: Cycle, settings: Settings, *, force: bool) -> LaunchOutcome:
    """Run one cycle in this process; a failure is a result, not the end of the backfill."""
    try:
        run_cycle(cycle, settings, force=force)
    except FoldcastError as error:
        return LaunchOutcome(cycle=cycle, state="failed", reason=str(error), attempts=1)
    except Exception as error:
        _LOG.exception("%s", cycle)
        return LaunchOutcome(cycle=cycle, state="failed", reason=repr(error), attempts=1)
    return LaunchOutcome(cycle=cycle, state="published", attempts=1)


def backfill_command(
    *,
    start: str,
    end: str,
    every: str,
    models: list[str] | None,
    max_parallel: int,
    dry_run: bool,
    force: bool,
) -> None:
    """Run a backfill from the command line and print its table.

    Raises:
        FoldcastError: the period or a model is not valid; some cycles failed.
    """
    try:
        first, last = parse_init_time(start), parse_init_time(end)
    except ValueError as error:
        raise FoldcastError(f"backfill: {error}") from None
    settings = load_settings()
    cycles = planned_cycles(settings, first, last, every=parse_interval(every), models=models)
    if settings.run.submission == "work-pool" and not dry_run:
        require_server()

    @flow(name="backfill", flow_run_name=f"backfill-{first:%Y%m%d}-{last:%Y%m%d}", persist_result=False)
    def run() -> None:
        outcomes = fill(cycles, settings, max_parallel=max_parallel, dry_run=dry_run, force=force)
        command_console().print(outcome_table(outcomes))
        require_none_failed(outcomes)

    if dry_run:
        run.fn()
    else:
        shelter_temporary_server()
        run()


def outcome_table(outcomes: list[LaunchOutcome]) -> Table:
    """What became of each cycle, for the terminal."""
    table = FoldingTable(title="Backfill")
    rows = cycle_rows(outcomes)
    for column in rows[0] if rows else ():
        table.add_column(column)
    for row in rows:
        table.add_row(*row.values())
    return table
