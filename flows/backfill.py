"""Runs the cycles of a past period that are not published yet, bounded and behind the real-time ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta

from prefect import flow
from prefect.runtime import flow_run
from rich.console import Console
from rich.table import Table

from flows.forecast import run_cycle
from infra.errors import FoldcastError
from infra.object_store import ObjectStore
from infra.settings import Settings, load_settings
from model.cycle import Cycle, cycle_times, parse_init_time
from tasks.cycle_table import cycle_rows, publish_cycle_table
from tasks.launch import CycleStatus, start_cycle, state_in_store

Starter = Callable[[Cycle], CycleStatus]


@flow(name="backfill", flow_run_name="backfill-{start:%Y%m%d}-{end:%Y%m%d}")
def backfill(
    start: datetime,
    end: datetime,
    every: timedelta = timedelta(hours=24),
    models: list[str] | None = None,
    max_parallel: int = 2,
    dry_run: bool = False,
    force: bool = False,
    poll_seconds: float = 10.0,
) -> list[CycleStatus]:
    """Run all cycles from start to end, both included, on the low-priority queue.

    Published cycles are skipped by their manifest: an interrupted backfill is resumed by starting it again.

    Args:
        start: first init_time (UTC where no offset is given).
        end: last init_time.
        every: time between cycles.
        models: names of configured models; default: all.
        max_parallel: cycles running at once.
        dry_run: only say what would be done.
        force: run published cycles again as well.
        poll_seconds: seconds between looks at the running cycles.
    """
    settings = load_settings()
    cycles = planned_cycles(settings, start, end, every=every, models=models)
    store = settings.store.open()
    series = f"forced-{flow_run.get_id()}" if force else ""
    done, todo = split_published(store, cycles, force=force)
    if dry_run:
        statuses = done + [CycleStatus(cycle=cycle, state="waiting", reason="would be run") for cycle in todo]
    elif settings.run.submission == "in-process":
        statuses = done + [run_here(cycle, settings, force=force) for cycle in todo]
    else:

        def starter(cycle: Cycle) -> CycleStatus:
            known = None if force else state_in_store(store, cycle)
            return known or start_cycle(
                cycle, queue="backfill", attempts=2, series=series, parameters={"force": force}
            )

        statuses = done + run_bounded(todo, starter, max_parallel=max_parallel, poll_seconds=poll_seconds)
    publish_cycle_table(statuses, key="backfill")
    failed = [status for status in statuses if status.state == "failed"]
    if failed:
        raise FoldcastError(
            f"{len(failed)} of {len(cycles)} cycles failed, first {failed[0].cycle}: {failed[0].reason}"
        )
    return statuses


def planned_cycles(
    settings: Settings, start: datetime, end: datetime, *, every: timedelta, models: Iterable[str] | None
) -> list[Cycle]:
    """The cycles of a backfill, oldest first.

    Raises:
        FoldcastError: end lies before start; a model is not configured.
    """
    first, last = (t.replace(tzinfo=UTC) if t.tzinfo is None else t for t in (start, end))
    if last < first:
        raise FoldcastError(f"backfill: expected end at or after start, got {start} to {end}")
    names = sorted(models or settings.models)
    for name in names:
        settings.configured_model(name)
    return [Cycle(model=name, init_time=t) for t in cycle_times(first, last, every=every) for name in names]


def split_published(
    store: ObjectStore, cycles: list[Cycle], *, force: bool
) -> tuple[list[CycleStatus], list[Cycle]]:
    """Cycles that need nothing, and those to run."""
    if force:
        return [], cycles
    known = [(cycle, state_in_store(store, cycle)) for cycle in cycles]
    done = [status for _, status in known if status is not None and status.state == "published"]
    return done, [cycle for cycle, status in known if status is None or status.state != "published"]


def run_bounded(
    cycles: list[Cycle],
    starter: Starter,
    *,
    max_parallel: int,
    poll_seconds: float,
    sleep: Callable[[float], None] = time.sleep,
) -> list[CycleStatus]:
    """Keep at most ``max_parallel`` cycles going until all have ended; results in the cycles' order.

    ``starter`` is asked again and again for the same cycle until that has ended.
    """
    ended: dict[Cycle, CycleStatus] = {}
    while len(ended) < len(cycles):
        waiting = [cycle for cycle in cycles if cycle not in ended]
        for cycle in waiting[:max_parallel]:
            status = starter(cycle)
            if status.ended:
                ended[cycle] = status
        if len(ended) < len(cycles):
            sleep(poll_seconds)
    return [ended[cycle] for cycle in cycles]


def run_here(cycle: Cycle, settings: Settings, *, force: bool) -> CycleStatus:
    """Run one cycle in this process; a failure is a result, not the end of the backfill."""
    try:
        run_cycle(cycle, settings, force=force)
    except FoldcastError as error:
        return CycleStatus(cycle=cycle, state="failed", reason=str(error), attempts=1)
    return CycleStatus(cycle=cycle, state="published", attempts=1)


def parse_interval(text: str) -> timedelta:
    """An interval such as ``6h`` or ``1d``.

    Raises:
        FoldcastError: the text is none.
    """
    units = {"h": "hours", "d": "days", "m": "minutes"}
    try:
        return timedelta(**{units[text[-1:]]: float(text[:-1])})
    except (KeyError, ValueError):
        raise FoldcastError(f"interval: expected e.g. 6h or 1d, got {text!r}") from None


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
    """Run a backfill from the command line and print its table."""
    try:
        first, last = parse_init_time(start), parse_init_time(end)
    except ValueError as error:
        raise FoldcastError(f"backfill: {error}") from None
    statuses = backfill(
        start=first,
        end=last,
        every=parse_interval(every),
        models=models,
        max_parallel=max_parallel,
        dry_run=dry_run,
        force=force,
    )
    table = Table(title="Backfill")
    rows = cycle_rows(statuses)
    for column in rows[0] if rows else ():
        table.add_column(column)
    for row in rows:
        table.add_row(*row.values())
    Console().print(table)
