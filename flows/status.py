"""What the person on call sees first: every cycle of the store with its state, age and latency."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from rich.table import Table

from infra.cycle_status import CycleStatus, list_cycles, with_running
from infra.errors import StoreError, UnknownModelError
from infra.object_store import ObjectStore
from infra.settings import load_settings
from infra.terminal import FoldingTable, command_console

_LONG = timedelta(days=10)
_STYLES = {"published": "green", "quarantined": "red", "unfinished": "yellow", "running": "cyan"}


def status(*, models: list[str] | None = None) -> None:
    """Print the cycles of the configured store, by model and newest first.

    Args:
        models: names of models; default: all in the store.

    Raises:
        StoreError: there is no such store, and no model that might begin one is configured.
        UnknownModelError: a model is neither configured nor in the store.
    """
    settings = load_settings()
    store = settings.store.open()
    if not settings.models and store.is_local and not store.filesystem.isdir(store.root):
        raise StoreError(
            f"store {store.root}: expected a folder, found none, and no model is configured; FOLDCAST_CONFIG and "
            "FOLDCAST_STORE__ROOT name another place"
        )
    known = {*settings.models, *(status.cycle.model for status in list_cycles(store))} if models else set()
    for name in models or []:
        if name not in known:
            raise UnknownModelError(
                f"unknown model {name!r}; configured or in the store: {', '.join(sorted(known)) or 'none'}"
            )
    table = status_table(store, models=models, now=datetime.now(UTC))
    console = command_console()
    if table.row_count:
        console.print(table)
    else:
        whose = f" of {', '.join(models)}" if models else ""
        console.print(f"No cycles{whose} in {store.root} yet", soft_wrap=True)


def status_table(store: ObjectStore, *, models: list[str] | None, now: datetime) -> Table:
    """The cycles of a store as a table."""
    table = FoldingTable(title=f"Cycles in {store.root}")
    for column in ("model", "init time", "state", "members", "age", "latency", "reason"):
        table.add_column(column, justify="right" if column in ("members", "age", "latency") else "left")
    names: list[str | None] = [*models] if models else [None]
    for name in names:
        for cycle_status in with_running(store, list_cycles(store, name), name):
            table.add_row(*_cells(cycle_status, now), style=_STYLES[cycle_status.state])
    return table


def _cells(status: CycleStatus, now: datetime) -> tuple[str, ...]:
    return (
        status.cycle.model,
        status.cycle.identifier,
        status.state,
        str(status.members),
        _hours(status.age(now)),
        _latency(status),
        "; ".join(status.reasons),
    )


def _latency(status: CycleStatus) -> str:
    """A dash where times are simulated."""
    if status.latency is not None:
        return _hours(status.latency)
    return "" if status.published_at is None else "–"


def _hours(interval: timedelta) -> str:
    minutes = int(interval.total_seconds()) // 60
    if interval >= _LONG:
        return f"{interval.days} d {minutes // 60 % 24:02d} h"
    return f"{minutes // 60} h {minutes % 60:02d} min"
