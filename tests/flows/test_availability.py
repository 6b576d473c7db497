"""Looking after cycles: started once when complete, waited for until the cut-off, then late, and said so once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flows import availability
from flows.availability import look_after
from infra import events, layout
from infra.claims import claim_cycle
from infra.errors import FoldcastError
from infra.object_store import ObjectStore
from infra.settings import Settings, StoreSettings
from model.cycle import Cycle
from tasks.launch import LaunchOutcome

INIT = datetime(2026, 1, 2, tzinfo=UTC)
CYCLE = Cycle(model="tiny", init_time=INIT)
SETTINGS = Settings.model_validate(
    {
        "models": {
            "tiny": {
                "checkpoint": "p.npz",
                "statistics": "s",
                "trained_on": "era5",
                "source": "a",
                "steps": 4,
                "cutoff": timedelta(hours=10),
            }
        }
    }
)


class World:
    """A provider, a server and a listener, as far as looking after a cycle touches them."""

    def __init__(self, store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store = store
        self.missing: tuple[str, ...] = ()
        self.started: list[Cycle] = []
        self.raised: list[str] = []
        monkeypatch.setattr(availability, "missing_inputs", lambda cycle, settings: self.missing)
        monkeypatch.setattr(availability, "start_cycle", self._start)
        monkeypatch.setattr(events, "raise_event", lambda event, cycle, **_: self.raised.append(event))

    def _start(self, cycle: Cycle, **_: Any) -> LaunchOutcome:
        self.started.append(cycle)
        return LaunchOutcome(cycle=cycle, state="started", attempts=1)

    def look(self, hours: float) -> LaunchOutcome:
        return look_after(CYCLE, SETTINGS, self.store, now=INIT + timedelta(hours=hours), attempts=3)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(ObjectStore(root=str(tmp_path)), monkeypatch)


def test_complete_inputs_start_the_cycle(world: World) -> None:
    assert world.look(7.5).state == "started"
    assert world.started == [CYCLE]


def test_missing_inputs_are_waited_for_and_named(world: World) -> None:
    world.missing = ("q 850 of 20260102T00Z",)
    status = world.look(9.9)
    assert (status.state, world.started) == ("waiting", [])
    assert "q 850" in status.reason


def test_after_the_cut_off_a_cycle_is_late_and_that_is_said_once(world: World) -> None:
    world.missing = tuple(f"piece {i}" for i in range(7))
    assert [world.look(hours).state for hours in (10.0, 10.1, 20.0)] == ["late"] * 3
    assert world.raised == ["late"]
    assert world.look(20.0).reason.endswith("and 2 more")


def test_late_inputs_still_start_the_cycle(world: World) -> None:
    world.missing = ("everything",)
    world.look(11.0)
    world.missing = ()
    assert world.look(12.0).state == "started"


def test_a_published_or_held_cycle_is_left_alone(world: World) -> None:
    claim = claim_cycle(world.store, CYCLE, owner="by hand")
    assert world.look(8.0).state == "running"
    claim.release()
    world.store.write(layout.cycle_manifest(CYCLE), b"{}")
    assert world.look(8.0).state == "published"
    assert world.started == []


@pytest.mark.parametrize("fault", [ValueError("amplitude: expected a number"), OSError("no route to host")])
def test_a_source_that_cannot_even_be_asked_is_late_like_one_that_does_not_deliver(
    fault: Exception, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(cycle: Cycle, settings: Settings) -> tuple[str, ...]:
        raise fault

    monkeypatch.setattr(availability, "missing_inputs", fail)
    assert world.look(9.0).state == "waiting"
    late = world.look(11.0)
    assert late.state == "late"
    assert str(fault) in late.reason
    assert world.raised == ["late"]


def test_a_cycle_that_cannot_be_looked_after_holds_up_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = Cycle(model="tiny", init_time=INIT - timedelta(hours=12))

    def damaged_state(store: ObjectStore, cycle: Cycle) -> None:
        if cycle == damaged:
            raise ValueError("what lies there is no claim")

    settings = SETTINGS.model_copy(update={"store": StoreSettings(root=world.store.root)})
    monkeypatch.setattr(availability, "state_in_store", damaged_state)
    monkeypatch.setattr(availability, "load_settings", lambda: settings)
    tables: list[list[LaunchOutcome]] = []
    monkeypatch.setattr(availability, "publish_cycle_table", lambda rows, key: tables.append(rows))
    with pytest.raises(FoldcastError, match=r"1 of \d+ cycles .* tiny/20260101T12Z: .*no claim"):
        availability.availability.fn(now=INIT + timedelta(hours=8), look_back=timedelta(hours=30))
    assert damaged not in world.started
    assert CYCLE in world.started
    assert [row.state for row in tables[0]].count("unknown") == 1


def test_a_model_with_a_late_cut_off_is_looked_after_until_then(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = SETTINGS.models["tiny"].model_copy(update={"cutoff": timedelta(days=6)})
    settings = SETTINGS.model_copy(
        update={"models": {"tiny": slow}, "store": StoreSettings(root=world.store.root)}
    )
    monkeypatch.setattr(availability, "load_settings", lambda: settings)
    availability.availability.fn(now=INIT + timedelta(days=6, hours=1), look_back=timedelta(hours=30))
    assert CYCLE in world.started
