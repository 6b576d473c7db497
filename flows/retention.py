"""Retention: removes old cycles, each as a whole, never the newest good one, and old analyses."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from prefect import flow

from infra.catalog import update_catalog
from infra.retention import expired_cycles, expired_fields, remove_cycle
from infra.settings import load_settings
from tasks.initial_conditions import analyses_reach

_ABANDONED = timedelta(days=2)
"""No process works on a scratch folder for so long."""


@flow(name="retention")
def retention(keep_days: int | None = None, dry_run: bool = False) -> list[str]:
    """Remove cycles that nobody has worked on for longer than the retention period, and analyses older than it.

    Args:
        keep_days: days to keep; default the configured number.
        dry_run: only say what would be removed.

    Returns:
        The cycles (to be) removed, as ``model/init_time``.
    """
    settings = load_settings()
    store = settings.store.open()
    keep = timedelta(days=keep_days if keep_days is not None else settings.keep_days)
    now = datetime.now(UTC)
    expired = expired_cycles(store, keep=keep, now=now)
    if dry_run:
        return [str(cycle) for cycle in expired]
    removed = [cycle for cycle in expired if remove_cycle(store, cycle)]
    if removed:
        update_catalog(store)
    for prefix in expired_fields(store, keep=keep, now=now, reach=analyses_reach(settings)):
        store.delete(prefix)
    store.remove_abandoned(age=_ABANDONED, now=now)
    return [str(cycle) for cycle in removed]
