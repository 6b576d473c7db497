"""Which cycles there are and in what state, for ``foldcast status``, the index page and retention."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from infra import layout
from infra.claims import holder_of
from infra.errors import PublicationError, StoreError
from infra.object_store import ObjectStore
from infra.publication import Manifest
from model.cycle import Cycle, parse_init_time

_LOOKS = 2
_NEWEST_CLAIMS = 8
State = Literal["published", "quarantined", "unfinished", "running"]


@dataclass(frozen=True, kw_only=True)
class CycleStatus:
    """One cycle as the store shows it.

    Args:
        cycle: which.
        state: ``"published"``, ``"quarantined"`` (failed its checks, never published), ``"unfinished"`` (runs
            exist, nothing published) or, as far as ``with_running`` has looked, ``"running"``.
        members: how many were published, or are complete so far.
        published_at: when, UTC; None if it is not.
        reasons: why it is quarantined, or who works on it.
        simulated: whether its weather is a nature run's: it has no latency.
    """

    cycle: Cycle
    state: State
    members: int
    published_at: datetime | None = None
    reasons: tuple[str, ...] = ()
    simulated: bool = False

    def age(self, now: datetime) -> timedelta:
        """Time since init_time."""
        return now - self.cycle.init_time

    @property
    def latency(self) -> timedelta | None:
        """From init_time to publication; None if it is not published, or its times are simulated."""
        return (
            None if self.published_at is None or self.simulated else self.published_at - self.cycle.init_time
        )


def stored_cycles(store: ObjectStore, model: str | None = None) -> Iterator[Cycle]:
    """All cycles of which there are products, published or not, by model and ascending init_time."""
    for name in [model] if model else store.folders(layout.cycles_prefix()):
        yield from _cycles(store, layout.cycles_prefix(name), name)


def published_cycles(store: ObjectStore, model: str | None = None) -> Iterator[Manifest]:
    """Manifests of all published cycles, by model and ascending init_time; what cannot be read is left out."""
    for cycle in stored_cycles(store, model):
        manifest = readable_manifest(store, cycle)
        if manifest is not None:
            yield manifest


def readable_manifest(store: ObjectStore, cycle: Cycle) -> Manifest | None:
    """A cycle's manifest; None if it is not published, or its manifest is damaged or of another format.

    Raises:
        TransientSourceError: the store failed in a way that may pass.
    """
    for _ in range(_LOOKS):  # what came damaged over the network is whole the next time
        try:
            return Manifest.from_json(store.read(layout.cycle_manifest(cycle)))
        except StoreError:
            return None
        except PublicationError:
            continue
    return None


def list_cycles(
    store: ObjectStore, model: str | None = None, *, published: Iterable[CycleStatus] | None = None
) -> list[CycleStatus]:
    """All cycles that were ever begun and not yet removed, by model, newest first.

    Args:
        store: where.
        model: only this model's; None: all.
        published: what is known to be published; None reads all manifests.
    """
    if published is None:
        published = (
            CycleStatus(
                cycle=manifest.cycle,
                state="published",
                members=len(manifest.members),
                published_at=manifest.published_at,
                simulated=manifest.simulated,
            )
            for manifest in published_cycles(store, model)
        )
    found = {status.cycle: status for status in published}
    for name in [model] if model else store.folders("quarantine/"):
        for cycle in _cycles(store, f"quarantine/{name}/", name):
            if cycle not in found:
                found[cycle] = CycleStatus(
                    cycle=cycle, state="quarantined", members=0, reasons=_reasons(store, cycle)
                )
    for name in [model] if model else store.folders("runs/"):
        for cycle in _cycles(store, f"runs/{name}/", name):
            if cycle not in found:
                members = {
                    key.rsplit("/", 1)[-1]
                    for run in store.folders(f"runs/{cycle}/")
                    for key in store.list(f"{layout.run_prefix(cycle, run)}members/")
                }
                found[cycle] = CycleStatus(cycle=cycle, state="unfinished", members=len(members))
    return _in_order(found.values())


def with_running(
    store: ObjectStore, listed: Iterable[CycleStatus], model: str | None = None
) -> list[CycleStatus]:
    """What ``list_cycles`` found, with the cycles that somebody works on now and that are not published.

    A cycle that was just begun has nothing but a claim. Claims stay for good: of those without anything else only
    the newest few of a model are looked at.
    """
    found = {status.cycle: status for status in listed}
    open_cycles = [status for status in found.values() if status.state != "published"]
    for name in [model] if model else store.folders(layout.claimed()):
        begun = [cycle for cycle in _cycles(store, layout.claimed(name), name) if cycle not in found]
        open_cycles += [
            CycleStatus(cycle=cycle, state="unfinished", members=0) for cycle in begun[-_NEWEST_CLAIMS:]
        ]
    for status in open_cycles:
        holder = holder_of(store, status.cycle)
        if holder is not None:
            found[status.cycle] = replace(status, state="running", reasons=(f"held by {holder}",))
    return _in_order(found.values())


def _in_order(statuses: Iterable[CycleStatus]) -> list[CycleStatus]:
    by_time = sorted(statuses, key=lambda status: status.cycle.init_time, reverse=True)
    return sorted(by_time, key=lambda status: status.cycle.model)


def _cycles(store: ObjectStore, prefix: str, model: str) -> Iterator[Cycle]:
    for folder in store.folders(prefix):
        try:
            yield Cycle(model=model, init_time=parse_init_time(folder))
        except ValueError:
            continue  # not a cycle's folder


def _reasons(store: ObjectStore, cycle: Cycle) -> tuple[str, ...]:
    """Why the inputs or the products of a cycle were rejected."""
    reasons: list[str] = []
    prefix = layout.quarantine(cycle)
    for key in store.list(prefix):
        name = key.removeprefix(prefix)
        if name == "initial-condition/reason.txt":
            reasons += store.read(key).decode().splitlines()[1:]
        elif name.endswith(".json") and "/" not in name:
            reasons += json.loads(store.read(key)).get("reasons", [])
    return tuple(reasons)
