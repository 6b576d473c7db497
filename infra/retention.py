"""Old cycles are removed whole: first what readers start from, then the products.

The newest published cycle of a model is never removed, however old, nor one that ``latest.json`` points to.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from infra import layout
from infra.cycle_status import list_cycles
from infra.errors import StoreError
from infra.object_store import ObjectStore
from infra.publication import read_latest
from model.cycle import Cycle


def expired_cycles(
    store: ObjectStore, *, keep: timedelta, now: datetime, model: str | None = None
) -> list[Cycle]:
    """Cycles of any state whose init_time is longer ago than ``keep``, oldest first."""
    expired = []
    newest: set[str] = set()
    for status in list_cycles(store, model):  # newest first
        cycle = status.cycle
        if status.state == "published" and cycle.model not in newest:
            newest.add(cycle.model)
            continue
        if now - cycle.init_time > keep and cycle != _pointed_at(store, cycle.model):
            expired.append(cycle)
    return sorted(expired, key=lambda cycle: cycle.init_time)


def remove_cycle(store: ObjectStore, cycle: Cycle) -> None:
    """Remove a cycle's products, runs and inputs; its verification statistics stay.

    The manifest goes first, so a reader finds the cycle whole or not at all. Repeating it after an
    interruption finishes the work.
    """
    store.delete(layout.cycle_manifest(cycle))
    store.delete(layout.catalog_item(cycle))
    for prefix in (
        layout.cycle_prefix(cycle),
        layout.runs_prefix(cycle),
        layout.quarantine(cycle),
        layout.validation(cycle),
        f"{layout.initial_condition(cycle)}/",
    ):
        store.delete(prefix)


def _pointed_at(store: ObjectStore, model: str) -> Cycle | None:
    try:
        return read_latest(store, model).cycle
    except StoreError:
        return None
