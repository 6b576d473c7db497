"""The automations are what Prefect accepts and cover every event that needs a person."""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

import pytest
from prefect.automations import Automation
from prefect.events.schemas.automations import EventTrigger, Posture

from infra.automations import DEAD_RUN_AFTER, automation_documents


def automations(*, notify: bool) -> dict[str, Automation]:
    documents = automation_documents(notify=notify)
    for document in documents:
        for action in document["actions"]:
            if action["type"] == "send-notification":
                action["block_document_id"] = str(uuid4())
    return {a.name: a for a in (Automation.model_validate(d) for d in documents)}


@pytest.mark.parametrize("notify", [True, False])
def test_prefect_accepts_them_all(notify: bool) -> None:
    assert len(automations(notify=notify)) == 10


def test_silence_after_a_heartbeat_crashes_a_run() -> None:
    automation = automations(notify=False)["foldcast: mark dead runs as crashed"]
    trigger = automation.trigger
    assert isinstance(trigger, EventTrigger)
    assert trigger.posture == Posture.Proactive
    assert trigger.within == DEAD_RUN_AFTER
    assert timedelta(seconds=30) < DEAD_RUN_AFTER  # more than one heartbeat
    assert automation.actions[0].type == "change-flow-run-state"


def test_alerts_go_to_the_webhook_where_there_is_one() -> None:
    alerts = {n: a for n, a in automations(notify=True).items() if "dead" not in n and "start" not in n}
    assert {a.actions[0].type for a in alerts.values()} == {"send-notification"}
    assert {e for a in alerts.values() for e in a.trigger.expect} == {
        f"foldcast.cycle.{state}"
        for state in (
            "late",
            "overdue",
            "invalid",
            "incomplete",
            "quarantined",
            "failed",
            "skill-out-of-range",
            "truth-missing",
        )
    }
