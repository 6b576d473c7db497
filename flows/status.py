"""What the person on call sees first: every cycle of the store with its state, age and latency."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from infra.settings import load_settings
from tasks.publish import cycle_overview


def status(*, models: list[str] | None = None) -> None:
    """Print the cycles of the configured store, newest first.

    Args:
        models: names of models; default: all in the store.
    """
    store = load_settings().store.open()
    table = Table(title=f"Cycles in {store.root}")
    for column in ("model", "init time", "state", "members", "age", "latency"):
        table.add_column(column)
    for row in cycle_overview(store, models=models):
        table.add_row(*row.cells())
    Console().print(table)
