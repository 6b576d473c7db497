"""What was done with which cycle, as a Prefect table and as rows for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from prefect.artifacts import create_table_artifact
from prefect.context import FlowRunContext

from infra.wording import counted
from tasks.launch import LaunchOutcome


def cycle_rows(statuses: Sequence[LaunchOutcome]) -> list[dict[str, str]]:
    """One row per cycle, ready to be shown."""
    return [
        {
            "model": status.cycle.model,
            "init time": status.cycle.identifier,
            "state": status.state,
            "attempts": str(status.attempts or ""),
            "reason": status.reason,
        }
        for status in statuses
    ]


def publish_cycle_table(statuses: Sequence[LaunchOutcome], *, key: str) -> None:
    """Attach the table to the flow run; outside a flow run nothing happens.

    Args:
        statuses: what became of each cycle.
        key: name of the artifact: lower-case letters, digits, dashes.
    """
    if FlowRunContext.get() is not None and statuses:
        create_table_artifact(
            key=key, table=cycle_rows(statuses), description=counted(len(statuses), "cycle")
        )
