"""Old cycles are removed whole: first what readers start from, then the products; so are old analyses.

The newest published cycle of a model is never removed, however old, nor one that ``latest.json`` points to, nor
one that is worked on. A cycle's age counts from when it was last worked on, so that a backfill of a past season is
kept as long as a season that has just been.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta

from infra import layout
from infra.claims import CycleBusyError, claim_cycle, held, holder_of, last_heard_of
from infra.cycle_status import list_cycles
from infra.errors import StoreError
from infra.object_store import ObjectStore
from infra.publication import read_latest
from model.cycle import Cycle, parse_init_time

_OWNER = "retention"


def expired_cycles(
    store: ObjectStore, *, keep: timedelta, now: datetime, model: str | None = None
) -> list[Cycle]:
    """Cycles of any state that nobody has worked on for longer than ``keep``, oldest init_time first."""
    expired = []
    newest: set[str] = set()
    for status in list_cycles(store, model):  # newest first
        cycle = status.cycle
        if status.state == "published" and cycle.model not in newest:
            newest.add(cycle.model)
            continue
        touched = (cycle.init_time, status.published_at, last_heard_of(store, cycle, other_than=_OWNER))
        age = now - max(time for time in touched if time is not None)
        if age > keep and cycle != _pointed_at(store, cycle.model) and holder_of(store, cycle) is None:
            expired.append(cycle)
    return sorted(expired, key=lambda cycle: cycle.init_time)


def remove_cycle(store: ObjectStore, cycle: Cycle) -> bool:
    """Remove a cycle's products, runs and inputs; its verification statistics stay.

    The manifest goes first, so a reader finds the cycle whole or not at all, and so does the mark of an initial
    condition. Repeating it after an interruption finishes the work, and the cycle can be run again.

    Returns:
        Whether it was removed; False if somebody works on it.
    """
    try:
        claim = claim_cycle(store, cycle, owner=_OWNER)
    except CycleBusyError:
        return False
    with held(claim):
        store.delete(layout.cycle_manifest(cycle))
        store.delete(layout.catalog_item(cycle))
        for key in _initial_conditions(store, cycle):
            store.delete(layout.completion_mark(key))
            store.delete(f"{key}/")
        for prefix in (
            layout.cycle_prefix(cycle),
            layout.validation(cycle),
            layout.event_marks(cycle),
            layout.runs_prefix(cycle),  # these two last: an interrupted removal is found by them
            layout.quarantine(cycle),
        ):
            store.delete(prefix)
    return True


def expired_fields(store: ObjectStore, *, keep: timedelta, now: datetime, reach: timedelta) -> list[str]:
    """Prefixes of raw and regridded analyses valid longer ago than ``keep``, but for those of cycles under way.

    Args:
        store: where.
        keep: how long analyses stay.
        now: the time to judge by.
        reach: before its init_time, from where a cycle may read analyses.
    """
    old = [(time, prefix) for time, prefix in _analyses(store) if now - time > keep]
    if not old:
        return []
    first, last = min(old)[0], max(old)[0] + reach
    # Claims stay for good: only those of cycles that could need what is about to go are read.
    near = [cycle for cycle in _claimed_cycles(store) if first <= cycle.init_time <= last]
    busy = [cycle.init_time for cycle in near if holder_of(store, cycle) is not None]
    return [
        prefix for time, prefix in old if not any(timedelta(0) <= start - time <= reach for start in busy)
    ]


def _analyses(store: ObjectStore) -> Iterator[tuple[datetime, str]]:
    """Valid times of the stored analyses, and their prefixes."""
    for source in store.folders(layout.fields_prefix()):
        for folder in store.folders(layout.fields_prefix(source)):
            with suppress(ValueError):  # not an analysis
                yield parse_init_time(folder), layout.fields_prefix(source, folder)


def _claimed_cycles(store: ObjectStore) -> Iterator[Cycle]:
    for model in store.folders(layout.claimed()):
        for folder in store.folders(layout.claimed(model)):
            with suppress(ValueError):  # not a cycle
                yield Cycle(model=model, init_time=parse_init_time(folder))


def _initial_conditions(store: ObjectStore, cycle: Cycle) -> list[str]:
    """The cycle's initial condition, and those of other sources beside it."""
    own = layout.initial_condition(cycle)
    folder, _, name = own.rpartition("/")
    beginning = name.removesuffix(".zarr") + "."
    found = {part for part in store.folders(f"{folder}/") if part.startswith(beginning)}
    return sorted({own} | {f"{folder}/{part}" for part in found})


def _pointed_at(store: ObjectStore, model: str) -> Cycle | None:
    try:
        return read_latest(store, model).cycle
    except StoreError:
        return None
