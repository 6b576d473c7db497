"""Finds cycles whose inputs are complete at their source and starts each exactly once.

Run every few minutes: no slot is held while waiting. A cycle whose inputs have not come by its model's
cut-off is reported late, once, and still started should they come afterwards.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from prefect import flow

from infra.events import raise_event_once
from infra.object_store import ObjectStore
from infra.settings import Settings, load_settings
from model.cycle import Cycle, recent_init_times
from tasks.cycle_table import publish_cycle_table
from tasks.initial_conditions import missing_inputs
from tasks.launch import CycleStatus, start_cycle, state_in_store


@flow(name="availability", flow_run_name="availability")
def availability(
    models: list[str] | None = None,
    now: datetime | None = None,
    look_back: timedelta = timedelta(hours=30),
    attempts: int = 3,
) -> list[CycleStatus]:
    """Look after every recent cycle of the given (default: all configured) models.

    Args:
        models: names of configured models.
        now: the time to judge by; default: this machine's clock.
        look_back: older init_times are left to the backfill.
        attempts: flow runs a cycle may take before it is given up.
    """
    settings = load_settings()
    store = settings.store.open()
    moment = now or datetime.now(UTC)
    statuses = []
    for name in models or sorted(settings.models):
        model = settings.configured_model(name)
        for init_time in recent_init_times(moment, hours=model.init_hours, look_back=look_back):
            cycle = Cycle(model=name, init_time=init_time)
            statuses.append(look_after(cycle, settings, store, now=moment, attempts=attempts))
    publish_cycle_table(statuses, key="availability")
    return statuses


def look_after(
    cycle: Cycle, settings: Settings, store: ObjectStore, *, now: datetime, attempts: int
) -> CycleStatus:
    """Start the cycle if it can be, say that it is late if it is, else leave it waiting."""
    known = state_in_store(store, cycle)
    if known is not None:
        return known
    missing = missing_inputs(cycle, settings)
    if not missing:
        return start_cycle(cycle, queue="realtime", attempts=attempts)
    reason = f"missing {', '.join(missing[:5])}" + (
        f" and {len(missing) - 5} more" if len(missing) > 5 else ""
    )
    cutoff = settings.configured_model(cycle.model).cutoff
    if now < cycle.init_time + cutoff:
        return CycleStatus(cycle=cycle, state="waiting", reason=reason)
    raise_event_once(store, "late", cycle, reason=reason, cutoff=str(cutoff))
    return CycleStatus(cycle=cycle, state="late", reason=reason)
