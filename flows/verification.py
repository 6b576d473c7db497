"""Scores every published cycle as its truth arrives, and says when skill leaves its usual range."""

from __future__ import annotations

from prefect import flow
from rich.console import Console
from rich.table import Table

from infra.cycle_status import published_cycles
from infra.errors import FoldcastError, MissingDataError, StoreError
from infra.events import raise_event_once
from infra.object_store import ObjectStore
from infra.publication import Manifest
from infra.settings import load_settings
from model.cycle import Cycle, parse_init_time
from tasks.report import publish_skill_table, report_skill, skill_table, unusual_scores
from tasks.verification import Verification, load_statistics, skill_rows, verify_cycle


@flow(name="verification")
def verification(models: list[str] | None = None, again: bool = False) -> list[str]:
    """Score all published cycles that are not scored at every lead time yet.

    Args:
        models: names of configured models; default: all.
        again: also score those that are scored completely.

    Returns:
        What was scored, as ``model/init_time``.

    Raises:
        FoldcastError: some cycle could not be scored; the others were.
    """
    settings = load_settings()
    store = settings.store.open()
    scored: list[str] = []
    failures: list[str] = []
    for model in models or list(settings.models):
        for manifest in published_cycles(store, model):
            if not again and _is_complete(store, manifest):
                continue
            try:
                result = verify_cycle(manifest.cycle, settings)
            except (MissingDataError, StoreError):
                continue  # its truth has not arrived, or its members were removed
            except FoldcastError as error:
                failures.append(f"{manifest.cycle}: {error}")
                continue
            scored.append(str(result.cycle))
            _alert(store, result)
        if any(name.startswith(f"{model}/") for name in scored):
            report_skill(store, model)
            publish_skill_table(store, model)
    if failures:
        raise FoldcastError(f"{len(failures)} cycles could not be scored, first {failures[0]}")
    return scored


def verify(*, model: str, init_times: list[str] | None = None, region: str = "global") -> None:
    """Score cycles of a model here and print the skill table over all that are scored.

    Args:
        model: name of a configured model.
        init_times: cycles to score, e.g. ``20260101T00Z``; default: those not scored completely.
        region: region of the table.
    """
    settings = load_settings()
    store = settings.store.open()
    settings.configured_model(model)
    if init_times:
        for text in init_times:
            verify_cycle(Cycle(model=model, init_time=parse_init_time(text)), settings)
    else:
        verification.fn(models=[model])
    rows = skill_table(skill_rows(store, model, region=region))
    table = Table(title=f"Skill of {model}, {region}")
    for column in rows[0]:
        table.add_column(column, justify="left" if column in ("field", "units") else "right")
    for row in rows:
        table.add_row(*row.values())
    Console().print(table)


def _is_complete(store: ObjectStore, manifest: Manifest) -> bool:
    try:
        statistics = load_statistics(store, manifest.cycle)
    except StoreError:
        return False
    return statistics.sizes["lead_time"] >= manifest.steps


def _alert(store: ObjectStore, result: Verification) -> None:
    unusual = unusual_scores(store, result.cycle)
    if unusual:
        raise_event_once(store, "skill-out-of-range", result.cycle, findings=unusual[:10])
