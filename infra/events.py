"""What happens to a cycle, as Prefect events: automations and the person on call listen to these."""

from __future__ import annotations

import json
from typing import Any, Literal

from infra import layout
from infra.object_store import ObjectStore
from model.cycle import Cycle

CycleEvent = Literal[
    "started",
    "validated",
    "late",
    "overdue",
    "invalid",
    "incomplete",
    "quarantined",
    "failed",
    "published",
    "skill-out-of-range",
    "truth-missing",
]
"""The states of a cycle that raise an event."""


def event_name(event: CycleEvent) -> str:
    """The event's full name, as automations match it."""
    return f"foldcast.cycle.{event}"


def raise_event(event: CycleEvent, cycle: Cycle, **payload: Any) -> None:
    """Raise an event of a cycle; payload values must be JSON and hold no secrets.

    Outside a flow run and without a server there is nobody to tell, and nothing happens.
    """
    from prefect.context import FlowRunContext  # these import the whole orchestration client
    from prefect.events import emit_event
    from prefect.settings import get_current_settings

    if FlowRunContext.get() is None and get_current_settings().api.url is None:
        return
    emit_event(
        event=event_name(event),
        resource={
            "prefect.resource.id": f"foldcast.cycle.{cycle.model}.{cycle.identifier}",
            "prefect.resource.name": str(cycle),
            "foldcast.model": cycle.model,
            "foldcast.init_time": cycle.init_time.isoformat(),
        },
        payload=payload,
    )


def raise_event_once(
    store: ObjectStore, event: CycleEvent, cycle: Cycle, *, about: str = "", **payload: Any
) -> bool:
    """Raise an event unless this store already holds the mark that it was; returns whether it was raised.

    Args:
        store: where the mark lies.
        event: which.
        cycle: of which cycle.
        about: what it is raised once about; default: the cycle.
        payload: of the event.
    """
    mark = json.dumps({"event": event_name(event), **payload}, default=str).encode()
    if not store.create(layout.event_mark(cycle, event, about), mark):
        return False
    raise_event(event, cycle, **payload)
    return True
