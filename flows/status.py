"""What the person on call sees first: every cycle of the store with its state, age and latency."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from rich.console import Console
from rich.table import Table

from infra.cycle_status import CycleStatus, list_cycles
from infra.object_store import ObjectStore
from infra.settings import load_settings

_STYLES = {"published": "green", "quarantined": "red", "unfinished": "yellow"}


def status(*, models: list[str] | None = None) -> None:
    """Print the cycles of the configured store, by model and newest first.

    Args:
        models: names of models; default: all in the store.
    """
    store = load_settings().store.open()
    Console().print(status_table(store, models=models, now=datetime.now(UTC)))


def status_table(store: ObjectStore, *, models: list[str] | None, now: datetime) -> Table:
    """The cycles of a store as a table."""
    table = Table(title=f"Cycles in {store.root}")
    for column in ("model", "init time", "state", "members", "age", "latency", "reason"):
        table.add_column(column, justify="right" if column in ("members", "age", "latency") else "left")
    for name in models or [None]:
        for cycle_status in list_cycles(store, name):
            table.add_row(*_cells(cycle_status, now), style=_STYLES[cycle_status.state])
    return table


def _cells(status: CycleStatus, now: datetime) -> tuple[str, ...]:
    return (
        status.cycle.model,
        status.cycle.identifier,
        status.state,
        str(status.members),
        _hours(status.age(now)),
        _hours(status.latency) if status.latency is not None else "",
        "; ".join(status.reasons),
    )


def _hours(interval: timedelta) -> str:
    minutes = int(interval.total_seconds()) // 60
    return f"{minutes // 60} h {minutes % 60:02d} min"
