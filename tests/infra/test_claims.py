"""A cycle started twice runs once, and a dead owner does not hold it for ever."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from infra import claims, layout
from infra.claims import Claim, CycleBusyError, claim_cycle, held, holder_of, last_heard_of
from infra.errors import TransientSourceError
from infra.object_store import ObjectStore
from model.cycle import Cycle

CYCLE = Cycle(model="tiny", init_time=datetime(2026, 1, 2, tzinfo=UTC))
LEASE = timedelta(minutes=10)


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 2, 8, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(root=str(tmp_path))


def claimed(store: ObjectStore, owner: str, clock: Clock) -> Claim:
    return claim_cycle(store, CYCLE, owner=owner, lease=LEASE, clock=clock)


def test_a_held_cycle_is_refused_by_name(store: ObjectStore) -> None:
    clock = Clock()
    claimed(store, "schedule", clock)
    with pytest.raises(CycleBusyError, match="held by schedule"):
        claimed(store, "by hand", clock)


def test_a_released_cycle_is_free(store: ObjectStore) -> None:
    clock = Clock()
    with held(claimed(store, "first", clock)):
        pass
    assert claimed(store, "second", clock).number == 1


def test_a_silent_owner_loses_the_cycle_when_its_lease_ends(store: ObjectStore) -> None:
    clock = Clock()
    claimed(store, "dead", clock)
    clock.now += LEASE - timedelta(seconds=1)
    with pytest.raises(CycleBusyError):
        claimed(store, "impatient", clock)
    clock.now += timedelta(seconds=1)
    assert claimed(store, "patient", clock).number == 1


def test_a_renewed_lease_lasts(store: ObjectStore) -> None:
    clock = Clock()
    held = claimed(store, "alive", clock)
    clock.now += LEASE
    held.renew()
    clock.now += LEASE / 2
    with pytest.raises(CycleBusyError, match="alive"):
        claimed(store, "other", clock)


def test_an_error_inside_gives_the_cycle_free(store: ObjectStore) -> None:
    clock = Clock()
    with pytest.raises(RuntimeError, match="inside"), held(claimed(store, "fails", clock)):
        raise RuntimeError("inside")
    assert claimed(store, "next", clock).number == 1


def test_of_many_at_once_one_wins(store: ObjectStore) -> None:
    clock = Clock()
    barrier = threading.Barrier(8)
    won: list[str] = []

    def contend(owner: str) -> None:
        barrier.wait()
        try:
            claimed(store, owner, clock)
            won.append(owner)
        except CycleBusyError:
            pass

    threads = [threading.Thread(target=contend, args=(f"run {i}",)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1


def test_a_killed_process_of_this_machine_does_not_hold_the_cycle(store: ObjectStore) -> None:
    script = (
        "import os, signal\n"
        "from datetime import UTC, datetime\n"
        "from infra.claims import claim_cycle\n"
        "from infra.object_store import ObjectStore\n"
        "from model.cycle import Cycle\n"
        "cycle = Cycle(model='tiny', init_time=datetime(2026, 1, 2, tzinfo=UTC))\n"
        f"claim_cycle(ObjectStore(root={store.root!r}), cycle, owner='killed')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert claim_cycle(store, CYCLE, owner="next").number == 1


@pytest.mark.parametrize("broken", [b"", b'{"owner": "al', b"[]", b'{"owner": "a", "time": "yesterday"}'])
@pytest.mark.parametrize("part", [layout.claim, layout.claim_heartbeat])
def test_a_damaged_claim_holds_the_cycle_for_a_lease_and_no_longer(
    store: ObjectStore, part: Callable[[Cycle, int], str], broken: bytes
) -> None:
    clock = Clock()
    claimed(store, "first", clock)
    store.write(part(CYCLE, 0), broken)
    clock.now = datetime.now(UTC)
    assert "cannot be read" in str(holder_of(store, CYCLE, lease=LEASE, clock=clock))
    assert last_heard_of(store, CYCLE) == store.modified(part(CYCLE, 0))
    with pytest.raises(CycleBusyError, match="cannot be read"):
        claimed(store, "impatient", clock)
    clock.now += LEASE
    assert claimed(store, "patient", clock).number == 1


@pytest.mark.parametrize("fault", [TransientSourceError("503"), OSError("the network is gone")])
def test_a_release_that_fails_hides_neither_result_nor_reason(
    store: ObjectStore, fault: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Claim) -> None:
        raise fault

    monkeypatch.setattr(Claim, "release", fail)
    clock = Clock()
    with held(claimed(store, "publishes", clock)):
        pass
    clock.now += LEASE
    with pytest.raises(ValueError, match="the reason"), held(claimed(store, "fails", clock)):
        raise ValueError("the reason")


def test_a_claim_whose_answer_was_lost_is_held(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    create = ObjectStore.create

    def lost(self: ObjectStore, key: str, data: bytes) -> bool:
        create(self, key, data)
        return create(self, key, data)  # as a client does that had no answer

    monkeypatch.setattr(ObjectStore, "create", lost)
    assert claimed(store, "mine", Clock()).number == 0


def test_of_two_claims_of_one_owner_the_later_is_no_lost_answer(store: ObjectStore) -> None:
    clock = Clock()
    claimed(store, "retention", clock)
    clock.now += timedelta(seconds=1)
    with pytest.raises(CycleBusyError):
        claimed(store, "retention", clock)


def test_the_claims_of_an_owner_can_be_left_out_of_the_last_work(store: ObjectStore) -> None:
    clock = Clock()
    claimed(store, "backfill", clock).release()
    worked = clock.now
    clock.now += timedelta(days=30)
    claimed(store, "retention", clock).release()
    assert last_heard_of(store, CYCLE) == clock.now
    assert last_heard_of(store, CYCLE, other_than="retention") == worked


@pytest.mark.parametrize("elsewhere", [{"namespace": "pid:[1]"}, {"boot": "another"}, {"host": "another"}])
def test_of_processes_in_other_containers_and_on_other_machines_nothing_is_known(
    store: ObjectStore, elsewhere: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, own = Clock(), claims._process_space()
    never = {"pid": 2**22 + 1, "created": 0.0}  # no system numbers processes so high
    document = {"owner": "other", "time": clock.now.isoformat(), "released": False}
    store.write(layout.claim(CYCLE, 0), json.dumps({**document, "process": own | never}).encode())
    assert holder_of(store, CYCLE, lease=LEASE, clock=clock) is None
    space = own | elsewhere | never
    store.write(layout.claim(CYCLE, 0), json.dumps({**document, "process": space}).encode())
    assert "other" in str(holder_of(store, CYCLE, lease=LEASE, clock=clock))


def test_a_stepped_clock_does_not_end_a_living_owner(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    began = psutil.Process().create_time()
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: began - 120.0)
    claimed(store, "alive", clock)
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: began)
    assert "alive" in str(holder_of(store, CYCLE, lease=LEASE, clock=clock))
