"""What the person on call sees first."""

from __future__ import annotations

import io
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rich.console import Console
from rich.table import Table

from flows.status import status_table
from infra import layout
from infra.claims import claim_cycle, held
from infra.object_store import ObjectStore
from infra.publication import Manifest, make_visible, quarantine
from model.cycle import Cycle

INIT = datetime(2026, 1, 1, tzinfo=UTC)


def publish(store: ObjectStore, model: str, *, simulated: bool) -> None:
    manifest = Manifest(
        cycle=Cycle(model=model, init_time=INIT), run="run", attempt="a", members=(0, 1), steps=2, step_hours=12,
        published_at=INIT + timedelta(hours=7, minutes=5), files={}, details={"simulated": simulated},
    )  # fmt: skip
    make_visible(store, manifest)


def rows_of(table: Table, columns: int) -> list[tuple[object, ...]]:
    return list(zip(*(list(column.cells) for column in table.columns[:columns]), strict=True))


def test_a_cycle_that_somebody_works_on_is_running(tmp_path: Path) -> None:
    """One has a member, one was quarantined before, of one there is nothing yet; of two the runs have ended."""
    store = ObjectStore(root=str(tmp_path))
    again, ended, halfway, new, past = (
        Cycle(model=name, init_time=INIT) for name in ("again", "ended", "halfway", "new", "past")
    )
    quarantine(store, again, run="run", attempt="a", reasons=["spread: expected growth"])
    for cycle in (ended, halfway):
        store.write(f"{layout.run_prefix(cycle, 'run')}members/000.json", b"{}")
    for cycle in (ended, past):
        with held(claim_cycle(store, cycle, owner="before")):
            pass
    with ExitStack() as claims:
        for cycle in (again, halfway, new):
            claims.enter_context(held(claim_cycle(store, cycle, owner=f"flow run {cycle.model}-1")))
        table = status_table(store, models=None, now=INIT)
    assert rows_of(table, 4) == [
        ("again", "20260101T00Z", "running", "0"),
        ("ended", "20260101T00Z", "unfinished", "1"),
        ("halfway", "20260101T00Z", "running", "1"),
        ("new", "20260101T00Z", "running", "0"),
    ]
    assert [str(reason).partition(",")[0] for reason in table.columns[-1].cells] == [
        "held by flow run again-1", "", "held by flow run halfway-1", "held by flow run new-1"
    ]  # fmt: skip


def test_cycles_are_told_with_state_age_and_latency(tmp_path: Path) -> None:
    store = ObjectStore(root=str(tmp_path))
    publish(store, "real", simulated=False)
    publish(store, "demo", simulated=True)
    late = Cycle(model="late", init_time=INIT)
    quarantine(store, late, run="run", attempt="a", reasons=["spread: expected growth, got [0.0]"])
    store.write(f"{layout.run_prefix(Cycle(model='now', init_time=INIT), 'run')}members/000.json", b"{}")
    screen = io.StringIO()
    table = status_table(store, models=None, now=INIT + timedelta(hours=241))
    Console(file=screen, width=200, markup=False).print(table)
    rows = [
        [cell.strip() for cell in line.strip("│").split("│")] for line in screen.getvalue().splitlines()[4:-1]
    ]
    assert rows == [
        ["demo", "20260101T00Z", "published", "2", "10 d 01 h", "–", ""],
        ["late", "20260101T00Z", "quarantined", "0", "10 d 01 h", "", "spread: expected growth, got [0.0]"],
        ["now", "20260101T00Z", "unfinished", "1", "10 d 01 h", "", ""],
        ["real", "20260101T00Z", "published", "2", "10 d 01 h", "7 h 05 min", ""],
    ]
    soon = status_table(store, models=["real"], now=INIT + timedelta(hours=8))
    assert list(soon.columns[4].cells) == ["8 h 00 min"]
