"""What retention may not touch: what is worked on, and what was made lately, however old its init_time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from infra import layout, retention
from infra.claims import claim_cycle
from infra.object_store import ObjectStore
from infra.retention import expired_cycles, expired_fields, remove_cycle
from model.cycle import Cycle

NOW = datetime(2026, 7, 1, tzinfo=UTC)
WINTER = Cycle(model="m", init_time=datetime(2026, 1, 5, tzinfo=UTC))
KEEP = timedelta(days=30)
REACH = timedelta(days=12)


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    """A cycle of last winter, of which a member is complete."""
    store = ObjectStore(root=str(tmp_path))
    store.write(layout.member_manifest(WINTER, "run", 0), b"{}")
    return store


def expired(store: ObjectStore, now: datetime = NOW) -> list[Cycle]:
    return expired_cycles(store, keep=KEEP, now=now)


def test_an_old_cycle_that_nobody_works_on_expires(store: ObjectStore) -> None:
    assert expired(store) == [WINTER]


def test_a_cycle_that_is_being_backfilled_is_neither_listed_nor_removed(store: ObjectStore) -> None:
    claim = claim_cycle(store, WINTER, owner="backfill")
    assert expired(store, now=datetime.now(UTC) + timedelta(minutes=1)) == []
    assert not remove_cycle(store, WINTER)
    assert store.exists(layout.member_manifest(WINTER, "run", 0))
    claim.release()
    assert remove_cycle(store, WINTER)
    assert not store.exists(layout.member_manifest(WINTER, "run", 0))


def test_age_counts_from_the_last_work_on_a_cycle(store: ObjectStore) -> None:
    claim_cycle(store, WINTER, owner="backfill", clock=lambda: NOW - timedelta(days=40)).release()
    heard = NOW - timedelta(days=20)
    claim_cycle(store, WINTER, owner="backfill", clock=lambda: heard).release()
    assert expired(store) == []
    assert expired(store, now=heard + KEEP + timedelta(seconds=1)) == [WINTER]


def test_an_interrupted_removal_is_finished_the_next_night(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write(layout.quarantine(WINTER) + "a.json", b"{}")
    delete = ObjectStore.delete

    def die_before(self: ObjectStore, prefix: str) -> None:
        if prefix == layout.quarantine(WINTER):
            raise KeyboardInterrupt
        delete(self, prefix)

    with monkeypatch.context() as patch:
        patch.setattr(ObjectStore, "delete", die_before)
        with pytest.raises(KeyboardInterrupt):
            remove_cycle(store, WINTER)
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    assert expired(store, now=tomorrow) == [WINTER]
    assert remove_cycle(store, WINTER)
    assert [key for key in store.list("") if not key.startswith("claims/")] == []


def test_a_removed_cycle_leaves_no_mark_of_inputs_that_are_gone(store: ObjectStore) -> None:
    inputs = [layout.initial_condition(WINTER), layout.initial_condition(WINTER, "other")]
    neighbour = layout.initial_condition(Cycle(model="m", init_time=WINTER.init_time + timedelta(hours=12)))
    for key in (*inputs, neighbour):
        store.write(f"{key}/zarr.json", b"{}")
        store.write(layout.completion_mark(key), b"{}")
    remove_cycle(store, WINTER)
    left = list(store.list("initial-conditions/"))
    assert sorted(left) == sorted([f"{neighbour}/zarr.json", layout.completion_mark(neighbour)])


def test_analyses_expire_but_for_those_a_running_cycle_needs(store: ObjectStore) -> None:
    needed = WINTER.init_time - timedelta(hours=6)
    earlier = WINTER.init_time - timedelta(days=13)
    recent = NOW - timedelta(days=3)
    for valid_time in (needed, earlier, recent):
        store.write(layout.fields("provider", valid_time, "t.zarr.json"), b"{}")
    folder = layout.fields_prefix("provider", f"{earlier:%Y%m%dT%HZ}")
    claim = claim_cycle(store, WINTER, owner="backfill")
    assert expired_fields(store, keep=KEEP, now=NOW, reach=REACH) == [folder]
    claim.release()
    assert expired_fields(store, keep=KEEP, now=NOW, reach=REACH) == [
        folder,
        layout.fields_prefix("provider", f"{needed:%Y%m%dT%HZ}"),
    ]


def test_claims_that_cannot_matter_are_not_read(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write(layout.fields("provider", WINTER.init_time, "t.zarr.json"), b"{}")
    store.write(f"{layout.claimed('m')}no-cycle/x", b"")
    for days in (-400, -1, 0, 13, 400):
        cycle = Cycle(model="m", init_time=WINTER.init_time + timedelta(days=days))
        claim_cycle(store, cycle, owner="backfill").release()
    asked: list[Cycle] = []
    monkeypatch.setattr(retention, "holder_of", lambda store, cycle: asked.append(cycle))
    assert len(expired_fields(store, keep=KEEP, now=NOW, reach=REACH)) == 1
    assert asked == [WINTER]


def test_the_sea_of_days_before_stays_for_a_cycle_under_way(store: ObjectStore) -> None:
    store.write(layout.fields("era5t", WINTER.init_time - timedelta(days=10), "sst.zarr.json"), b"{}")
    claim_cycle(store, WINTER, owner="backfill")
    assert expired_fields(store, keep=KEEP, now=NOW, reach=REACH) == []
