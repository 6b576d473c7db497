"""Truth that never came: when a cycle is no longer waited for, and what is said of it.

A provider that has not published yet and one that never will answer alike, so age decides: what has not come so
long after its time, and after the cycle was published, is missing. It is recorded beside the statistics; asking
again finds it should it come after all.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta

import pandas as pd

from infra import layout
from infra.errors import StoreError
from infra.object_store import ObjectStore
from infra.publication import Manifest
from tasks.verification import load_statistics


def unscored(store: ObjectStore, manifest: Manifest, name: str) -> tuple[datetime, ...]:
    """Valid times of a published cycle that its statistics of that name do not hold."""
    step = timedelta(hours=manifest.step_hours)
    leads = {number * step for number in range(1, manifest.steps + 1)}
    try:
        scored = load_statistics(store, manifest.cycle, name)
    except StoreError:
        pass
    else:
        leads -= {pd.Timedelta(lead).to_pytimedelta() for lead in scored["lead_time"].values}
    return tuple(manifest.cycle.init_time + lead for lead in sorted(leads))


def given_up(store: ObjectStore, manifest: Manifest, name: str) -> tuple[datetime, ...]:
    """Valid times of a cycle whose truth is recorded as missing; none if the record is damaged."""
    try:
        record = json.loads(store.read(layout.missing_truth(manifest.cycle, name)))
        return tuple(datetime.fromisoformat(time) for time in record["valid_times"])
    except (StoreError, ValueError, KeyError, TypeError):
        return ()


def give_up(
    store: ObjectStore, manifest: Manifest, name: str, *, patience: timedelta, now: datetime
) -> tuple[datetime, ...]:
    """Record what is still not there and older than it may be; the times, empty if all may come yet.

    A record of the same times stays, with when they were given up.

    Args:
        store: where the statistics lie.
        manifest: of a cycle that has just been scored as far as it can be.
        name: of the statistics.
        patience: for how long truth is waited for.
        now: the time to judge by.
    """
    key = layout.missing_truth(manifest.cycle, name)
    times = tuple(
        time for time in unscored(store, manifest, name) if now - max(time, manifest.published_at) > patience
    )
    if times and times != given_up(store, manifest, name):
        record = {"valid_times": [time.isoformat() for time in times], "given_up_at": now.isoformat()}
        store.write(key, json.dumps(record, indent=1).encode())
    elif not times:
        store.delete(key)
    return times
