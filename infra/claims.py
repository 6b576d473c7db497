"""Who works on a cycle: a lease in the object store, so that a cycle started twice runs once.

Claims of a cycle are numbered. Claim *n* is a conditional put, so of all contenders exactly one holds it. It
ends when it is released, when its heartbeat is older than the lease, or when its process was on this machine
and is gone; then claim *n* + 1 may be made. No claim is ever deleted or taken over in place, hence there is
no moment at which two hold the same one.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil

from infra import layout
from infra.errors import FoldcastError
from infra.object_store import ObjectStore
from model.cycle import Cycle

_LOG = logging.getLogger(__name__)

DEFAULT_LEASE = timedelta(minutes=10)
_RENEWALS_PER_LEASE = 5
_CLOCK_STEP_SECONDS = 3600.0

Clock = Callable[[], datetime]


class CycleBusyError(FoldcastError):
    """Another run holds the cycle; the message names it."""


def utc_now() -> datetime:
    """The time by this machine's clock, in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A held claim.

    Args:
        store: where claims lie.
        cycle: what is claimed.
        number: position in the cycle's sequence of claims.
        owner: who holds it, for people: a flow-run name or a process.
        lease: after this long without a renewal others may claim.
        clock: the current time in UTC.
    """

    store: ObjectStore
    cycle: Cycle
    number: int
    owner: str
    lease: timedelta
    clock: Clock

    def renew(self) -> None:
        """Write a heartbeat."""
        self._write(released=False)

    def release(self) -> None:
        """Give the cycle free."""
        self._write(released=True)

    def _write(self, *, released: bool) -> None:
        document = _document(self.owner, self.clock(), released=released)
        self.store.write(layout.claim_heartbeat(self.cycle, self.number), document)


@contextmanager
def held(claim: Claim) -> Iterator[Claim]:
    """Keep a claim renewed while the block runs, and release it at the end, however it ends."""
    stop = threading.Event()

    def keep() -> None:
        while not stop.wait((claim.lease / _RENEWALS_PER_LEASE).total_seconds()):
            try:
                claim.renew()
            except Exception as error:  # the next heartbeat within the lease makes it good
                _LOG.warning("%s: claim not renewed: %s", claim.cycle, error)

    thread = threading.Thread(target=keep, name=f"claim {claim.cycle}", daemon=True)
    thread.start()
    try:
        yield claim
    finally:
        stop.set()
        thread.join()
        try:
            claim.release()
        except Exception as error:  # the lease ends it, and what the block raised matters more
            _LOG.warning("%s: claim not released: %s", claim.cycle, error)


def claim_cycle(
    store: ObjectStore,
    cycle: Cycle,
    *,
    owner: str,
    lease: timedelta = DEFAULT_LEASE,
    clock: Clock = utc_now,
) -> Claim:
    """Claim a cycle for one run.

    The machines' clocks must agree to well within the lease.

    Raises:
        CycleBusyError: another run holds it and its lease has not ended.
    """
    number = len(_claims(store, cycle))
    holder = _holder(store, cycle, number - 1, lease=lease, clock=clock)
    if holder is not None:
        raise CycleBusyError(f"cycle {cycle}: held by {holder}")
    claim = Claim(store=store, cycle=cycle, number=number, owner=owner, lease=lease, clock=clock)
    document, key = _document(owner, clock(), released=False), layout.claim(cycle, number)
    if not store.create(key, document) and store.read(key) != document:  # else only the answer had been lost
        raise CycleBusyError(f"cycle {cycle}: another run claimed it at the same moment")
    return claim


def holder_of(
    store: ObjectStore, cycle: Cycle, *, lease: timedelta = DEFAULT_LEASE, clock: Clock = utc_now
) -> str | None:
    """Who holds the cycle and when that run was last heard of; None if it is free."""
    return _holder(store, cycle, len(_claims(store, cycle)) - 1, lease=lease, clock=clock)


def last_heard_of(store: ObjectStore, cycle: Cycle, *, other_than: str | None = None) -> datetime | None:
    """When somebody last worked on the cycle; None if nobody ever did.

    Args:
        store: where claims lie.
        cycle: which.
        other_than: an owner whose claims do not count.
    """
    for number in reversed(range(len(_claims(store, cycle)))):
        state = _state(store, cycle, number)
        if state.owner != other_than:
            return state.time
    return None


def _holder(store: ObjectStore, cycle: Cycle, number: int, *, lease: timedelta, clock: Clock) -> str | None:
    if number < 0:
        return None
    state = _state(store, cycle, number)
    if state.released or clock() - state.time >= lease or _is_gone(state.process):
        return None
    return f"{state.owner}, last heard of at {state.time:%H:%M:%S}Z"


def _claims(store: ObjectStore, cycle: Cycle) -> list[str]:
    return [key for key in store.list(layout.claims_prefix(cycle)) if key.endswith(".claim.json")]


@dataclass(frozen=True, kw_only=True)
class _State:
    """What a claim or its latest heartbeat says."""

    owner: str
    time: datetime
    released: bool
    process: dict[str, Any]


def _state(store: ObjectStore, cycle: Cycle, number: int) -> _State:
    """The latest word on a claim; a damaged one holds the cycle for a lease from when it was written."""
    heartbeat = layout.claim_heartbeat(cycle, number)
    key = heartbeat if store.exists(heartbeat) else layout.claim(cycle, number)
    try:
        document = json.loads(store.read(key))
        return _State(**{**document, "time": datetime.fromisoformat(document["time"])})
    except (ValueError, KeyError, TypeError) as error:
        _LOG.warning("%s: expected a claim, got %r", store.url(key), error)
        return _State(
            owner="a run whose claim cannot be read", time=store.modified(key), released=False, process={}
        )


def _document(owner: str, time: datetime, *, released: bool) -> bytes:
    process = {**_process_space(), "pid": os.getpid(), "created": psutil.Process().create_time()}
    state = {"owner": owner, "time": time.isoformat(), "released": released, "process": process}
    return json.dumps(state).encode()


def _process_space() -> dict[str, str]:
    """Within which a process number means one process: a machine, since it was started, and a container."""
    space = {"host": socket.gethostname()}
    with suppress(OSError):
        space["boot"] = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        space["namespace"] = os.readlink("/proc/self/ns/pid")
    return space


def _is_gone(process: dict[str, Any]) -> bool:
    """Whether a process was beside this one and has ended; of others nothing is known.

    Stepping the clock moves the time at which a process seems to have begun. A number that was taken again within
    that margin only makes the claim last until its lease ends.
    """
    own = _process_space()
    if {name: process.get(name) for name in own} != own:
        return False
    try:
        return abs(psutil.Process(process["pid"]).create_time() - process["created"]) > _CLOCK_STEP_SECONDS
    except psutil.NoSuchProcess:
        return True
