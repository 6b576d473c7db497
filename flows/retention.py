"""Retention: removes old cycles, each as a whole, never the newest good one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from prefect import flow

from infra.catalog import update_catalog
from infra.retention import expired_cycles, remove_cycle
from infra.settings import load_settings


@flow(name="retention")
def retention(keep_days: int | None = None, dry_run: bool = False) -> list[str]:
    """Remove cycles whose init_time is longer ago than the retention period.

    Args:
        keep_days: days to keep; default the configured number.
        dry_run: only say what would be removed.

    Returns:
        The cycles (to be) removed, as ``model/init_time``.
    """
    settings = load_settings()
    store = settings.store.open()
    keep = timedelta(days=keep_days if keep_days is not None else settings.keep_days)
    expired = expired_cycles(store, keep=keep, now=datetime.now(UTC))
    if not dry_run:
        for cycle in expired:
            remove_cycle(store, cycle)
        if expired:
            update_catalog(store)
    return [str(cycle) for cycle in expired]
