"""Prefect automations that watch over the cycles, made by one command that may be run any number of times."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, cast

from pydantic import SecretStr

from infra.events import CycleEvent, event_name

DEAD_RUN_AFTER = timedelta(seconds=90)
"""A running flow that is silent for three heartbeats of 30 s is dead."""

_ALERTS: dict[CycleEvent, str] = {
    "late": "Inputs of a cycle have not come by its cut-off.",
    "overdue": "A cycle has its inputs and is not published in time.",
    "invalid": "Inputs of a cycle failed a blocking check; the cycle does not run.",
    "incomplete": "Members of a cycle were given up.",
    "quarantined": "Products of a cycle failed a check and stay invisible.",
    "failed": "Every attempt at a cycle failed; it is not tried again unless somebody asks.",
    "skill-out-of-range": "The skill of a model left its usual range.",
    "truth-missing": "Analyses or reports to verify a cycle with did not come and are no longer waited for.",
}
WEBHOOK_BLOCK = "foldcast-alerts"


def automation_documents(*, notify: bool) -> list[dict[str, Any]]:
    """All automations as Prefect's JSON documents.

    Args:
        notify: whether alerts are posted to the webhook block; otherwise they are only seen in the UI, where
            a triggered automation leaves an event of its own.
    """
    alerts = (_alert(event, text, notify=notify) for event, text in _ALERTS.items())
    return [_dead_run(), _no_worker(notify=notify), *alerts]


def _dead_run() -> dict[str, Any]:
    return {
        "name": "foldcast: mark dead runs as crashed",
        "description": "A run whose worker and process both died would otherwise stay running for ever.",
        "trigger": {
            "type": "event",
            "posture": "Proactive",
            "match": {"prefect.resource.id": "prefect.flow-run.*"},
            "after": ["prefect.flow-run.heartbeat"],
            "expect": [
                "prefect.flow-run.heartbeat",
                "prefect.flow-run.Completed",
                "prefect.flow-run.Failed",
                "prefect.flow-run.Crashed",
                "prefect.flow-run.Cancelled",
            ],
            "for_each": ["prefect.resource.id"],
            "threshold": 1,
            "within": DEAD_RUN_AFTER.total_seconds(),
        },
        "actions": [
            {
                "type": "change-flow-run-state",
                "state": "CRASHED",
                "message": "No heartbeat: worker and process died.",
            }
        ],
    }


def _no_worker(*, notify: bool) -> dict[str, Any]:
    """Nothing else can tell that no worker is alive: what would tell runs on a worker."""
    return {
        "name": "foldcast: flow runs do not start",
        "description": "Three flow runs within half an hour were late: no worker takes them.",
        "trigger": {
            "type": "event",
            "posture": "Reactive",
            "expect": ["prefect.flow-run.Late"],
            "match": {"prefect.resource.id": "prefect.flow-run.*"},
            "threshold": 3,
            "within": timedelta(minutes=30).total_seconds(),
        },
        "actions": [_notification("flow runs do not start", "No worker takes the flow runs.", notify=notify)],
    }


def _alert(event: CycleEvent, text: str, *, notify: bool) -> dict[str, Any]:
    body = "{{ event.resource.name }}: " + text + " {{ event.payload }}"
    return {
        "name": f"foldcast: {event}",
        "description": text,
        "trigger": {
            "type": "event",
            "posture": "Reactive",
            "expect": [event_name(event)],
            "match": {"prefect.resource.id": "foldcast.cycle.*"},
            "for_each": ["prefect.resource.id"],
            "threshold": 1,
            "within": 0,
        },
        "actions": [_notification(event, body, notify=notify)],
    }


def _notification(subject: str, body: str, *, notify: bool) -> dict[str, Any]:
    if not notify:
        return {"type": "do-nothing"}
    return {"type": "send-notification", "subject": f"Foldcast: {subject}", "body": body}


def create_automations(webhook: SecretStr | None) -> bool:
    """Create or bring up to date every automation on the server; may be repeated.

    Args:
        webhook: URL that alerts are posted to; None for the one that the server keeps, if it does.

    Returns:
        Whether alerts are posted anywhere.
    """
    from prefect.automations import Automation

    block_id = _saved_block(webhook) if webhook is not None else _kept_block()
    for document in automation_documents(notify=block_id is not None):
        for action in document["actions"]:
            if action["type"] == "send-notification":
                action["block_document_id"] = block_id
        wanted = Automation.model_validate(document)
        try:
            wanted.id = cast(
                Automation, Automation.read(name=wanted.name)
            ).id  # not a coroutine outside a loop
        except ValueError:
            wanted.create()
        else:
            wanted.update()
    return block_id is not None


def _saved_block(webhook: SecretStr) -> str:
    from prefect.blocks.notifications import CustomWebhookNotificationBlock
    from prefect.types import SecretDict

    block = CustomWebhookNotificationBlock(
        name=WEBHOOK_BLOCK,
        url="{{ url }}",
        secrets=SecretDict({"url": webhook.get_secret_value()}),
        json_data={"subject": "{{subject}}", "text": "{{body}}"},
    )
    return str(block.save(WEBHOOK_BLOCK, overwrite=True))


def _kept_block() -> str | None:
    """Of an earlier call with a webhook, or made by hand."""
    from prefect.blocks.notifications import CustomWebhookNotificationBlock

    try:
        block = cast(CustomWebhookNotificationBlock, CustomWebhookNotificationBlock.load(WEBHOOK_BLOCK))
    except ValueError:  # Prefect's way to say that there is none
        return None
    return str(block._block_document_id)
