"""Finds cycles whose inputs are complete at their source and starts each exactly once.

Run every few minutes: no slot is held while waiting. A cycle whose inputs have not come by its model's
cut-off is reported late, once, and still started should they come afterwards; one that has them and is not
published in time is reported overdue. A source that does not answer
has not delivered either, and holds up no other model.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta

from prefect import flow

from infra.errors import FoldcastError
from infra.events import raise_event_once
from infra.failures import readable_failure, told_as_failure
from infra.object_store import ObjectStore
from infra.settings import Settings, SettingsError, load_settings
from model.cycle import Cycle, recent_init_times
from tasks.cycle_table import publish_cycle_table
from tasks.initial_conditions import missing_inputs
from tasks.launch import LaunchOutcome, start_cycle, state_in_store

_LOG = logging.getLogger(__name__)

_PAUSE = timedelta(minutes=10)
"""Before a cycle's second attempt; with five attempts the last one comes two and a half hours after the first."""

_AFTER_CUTOFF = timedelta(hours=6)


@flow(name="availability", flow_run_name="availability")
def availability(
    models: list[str] | None = None,
    now: datetime | None = None,
    look_back: timedelta = timedelta(hours=30),
    attempts: int = 5,
) -> list[LaunchOutcome]:
    """Look after every recent cycle of the given (default: all configured) models.

    Args:
        models: names of configured models.
        now: the time to judge by; default: this machine's clock.
        look_back: older init_times are left to the backfill; at least some hours beyond a model's cut-off.
        attempts: flow runs a cycle may take before it is given up.

    Raises:
        FoldcastError: some cycle could not be looked after; the others were.
    """
    settings = load_settings()
    store = settings.store.open()
    moment = now or datetime.now(UTC)
    statuses: list[LaunchOutcome] = []
    if not settings.models:
        raise SettingsError("availability: no model is configured; FOLDCAST_CONFIG names the configuration")
    for name in models or sorted(settings.models):
        model = settings.configured_model(name)
        reach = max(look_back, model.cutoff + _AFTER_CUTOFF, model.publish_by + _AFTER_CUTOFF)
        for init_time in recent_init_times(moment, hours=model.init_hours, look_back=reach):
            cycle = Cycle(model=name, init_time=init_time)
            statuses.append(_looked_after(cycle, settings, store, now=moment, attempts=attempts))
    publish_cycle_table(statuses, key="availability")
    unknown = [status for status in statuses if status.state == "unknown"]
    if unknown:
        raise FoldcastError(
            f"{len(unknown)} of {len(statuses)} cycles could not be looked after, "
            f"first {unknown[0].cycle}: {unknown[0].reason}"
        )
    return statuses


def _looked_after(
    cycle: Cycle, settings: Settings, store: ObjectStore, *, now: datetime, attempts: int
) -> LaunchOutcome:
    """A cycle looked after by itself: whatever is wrong with it keeps no other from being started."""
    try:
        return look_after(cycle, settings, store, now=now, attempts=attempts)
    except Exception as error:
        _LOG.exception("%s: could not be looked after", cycle)
        return LaunchOutcome(cycle=cycle, state="unknown", reason=readable_failure(error) or repr(error))


def look_after(
    cycle: Cycle,
    settings: Settings,
    store: ObjectStore,
    *,
    now: datetime,
    attempts: int,
    pause: timedelta = _PAUSE,
) -> LaunchOutcome:
    """Start the cycle if it can be, say that it is late, overdue or given up if it is, else leave it waiting.

    Args:
        cycle: the cycle.
        settings: the configuration.
        store: its object store.
        now: the time to judge lateness by.
        attempts: flow runs it may take.
        pause: between the first two of them, doubled for each further one.
    """
    known = state_in_store(store, cycle)
    if known is not None and known.state == "published":
        return known
    missing = () if known is not None else _missing(cycle, settings)
    if not missing:
        outcome = known or start_cycle(cycle, queue="realtime", attempts=attempts, pause=pause)
        if outcome.state == "failed":
            raise_event_once(store, "failed", cycle, reason=outcome.reason, attempts=attempts)
        elif now >= cycle.init_time + settings.configured_model(cycle.model).publish_by:
            raise_event_once(store, "overdue", cycle, state=outcome.state, reason=outcome.reason)
        return outcome
    reason = f"missing {', '.join(missing[:5])}" + (
        f" and {len(missing) - 5} more" if len(missing) > 5 else ""
    )
    cutoff = settings.configured_model(cycle.model).cutoff
    if now < cycle.init_time + cutoff:
        return LaunchOutcome(cycle=cycle, state="waiting", reason=reason)
    raise_event_once(store, "late", cycle, reason=reason, cutoff=str(cutoff))
    return LaunchOutcome(cycle=cycle, state="late", reason=reason)


def _missing(cycle: Cycle, settings: Settings) -> tuple[str, ...]:
    try:
        with told_as_failure(f"{cycle}: its source could not be asked"):
            return missing_inputs(cycle, settings)
    except FoldcastError as error:
        return (f"all of it: the source cannot be asked: {error}",)
