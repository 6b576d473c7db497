"""What is still to be computed of some members: from which state, and up to which step."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from infra import layout, rollout_checkpoints
from infra.forecast_store import chunk_step, damaged_chunks, expected_chunks
from infra.manifests import MemberManifest, RunDescription, load_member_manifest
from infra.object_store import ObjectStore
from infra.rollout_checkpoints import RolloutCheckpoint
from model.rollout.state import RolloutState
from model.task import TaskConfig

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class OpenWork:
    """A member's open steps: from ``start`` up to, not including, ``stop``.

    Args:
        member: global member number.
        state: where it goes on; None at the beginning.
        stop: the step after the last one to compute.
        steps: how many steps the member will have then.
        chunks: sha256 by chunk key of what is written already.
        started_at_steps: the step at which each worker started, this one included.
        contributors: the options of each earlier worker.
        repair: whether a complete member's damaged chunks are computed again.
    """

    member: int
    state: RolloutState | None = None
    stop: int
    steps: int
    chunks: Mapping[str, str] = field(default_factory=dict)
    started_at_steps: tuple[int, ...] = (0,)
    contributors: tuple[Mapping[str, Any], ...] = ()
    repair: bool = False

    @property
    def start(self) -> int:
        """The first step to compute."""
        return self.state.step if self.state else 0


@dataclass(frozen=True, kw_only=True)
class FoundWork:
    """Members by whether there is anything to do.

    Args:
        complete: manifests of members whose chunks are all whole.
        open: the others' work.
    """

    complete: dict[int, MemberManifest]
    open: tuple[OpenWork, ...]


def find_open_work(
    store: ObjectStore, description: RunDescription, task: TaskConfig, *, members: Sequence[int], steps: int
) -> FoundWork:
    """Look at manifests, chunks and rollout checkpoints of members that shall have a number of steps.

    Raises:
        CheckpointMismatchError: a rollout checkpoint belongs to another run.
    """
    complete: dict[int, MemberManifest] = {}
    open_work: list[OpenWork] = []
    for member in members:
        manifest = load_member_manifest(store, description.cycle, description.run, member)
        if manifest is None:
            open_work.append(_unfinished(store, description, member, steps))
            continue
        damaged = _damaged_steps(store, description, task, manifest, steps)
        if not damaged and manifest.steps >= steps:
            complete[member] = manifest
        else:
            open_work.append(_finished_before(store, description, manifest, damaged, steps))
    return FoundWork(complete=complete, open=tuple(open_work))


def grouped(open_work: Sequence[OpenWork], size: int) -> list[tuple[OpenWork, ...]]:
    """Groups of at most ``size`` members that start and stop at the same steps."""
    by_span: dict[tuple[int, int], list[OpenWork]] = {}
    for work in open_work:
        by_span.setdefault((work.start, work.stop), []).append(work)
    return [
        tuple(works[first : first + size])
        for works in by_span.values()
        for first in range(0, len(works), size)
    ]


def _unfinished(store: ObjectStore, description: RunDescription, member: int, steps: int) -> OpenWork:
    checkpoint = _checkpoint(store, description, member, steps)
    if checkpoint is None:
        return OpenWork(member=member, stop=steps, steps=steps)
    return OpenWork(
        member=member,
        state=checkpoint.state,
        stop=steps,
        steps=steps,
        chunks=checkpoint.chunks,
        started_at_steps=(*checkpoint.started_at_steps, checkpoint.state.step),
        contributors=checkpoint.options,
    )


def _finished_before(
    store: ObjectStore,
    description: RunDescription,
    manifest: MemberManifest,
    damaged: Sequence[int],
    steps: int,
) -> OpenWork:
    """A member that had all its steps, but chunks are damaged or more steps are asked for.

    An extension that was interrupted has left checkpoints of its own beyond the manifest's steps.
    """
    repair = manifest.steps >= steps
    checkpoint = _checkpoint(store, description, manifest.member, damaged[0] if damaged else steps)
    start = checkpoint.state.step if checkpoint else 0
    extended = checkpoint is not None and start > manifest.steps
    source = checkpoint if checkpoint is not None and extended else manifest
    return OpenWork(
        member=manifest.member,
        state=checkpoint.state if checkpoint else None,
        stop=damaged[-1] + 1 if repair else steps,
        steps=max(manifest.steps, steps),
        chunks={**manifest.chunks, **source.chunks},
        started_at_steps=(*source.started_at_steps, start),
        contributors=checkpoint.options if checkpoint is not None and extended else manifest.contributors,
        repair=repair,
    )


def _damaged_steps(
    store: ObjectStore, description: RunDescription, task: TaskConfig, manifest: MemberManifest, steps: int
) -> list[int]:
    expected = expected_chunks(task, manifest.member, range(min(manifest.steps, steps)))
    listed = {chunk: manifest.chunks.get(chunk, "not listed") for chunk in expected}
    wrong = damaged_chunks(store, layout.forecast_store(description.cycle, description.run), listed)
    for chunk, problem in wrong.items():
        _LOG.warning("%s, member %d: %s: %s", description.cycle, manifest.member, chunk, problem)
    return sorted({chunk_step(chunk) for chunk in wrong})


def _checkpoint(
    store: ObjectStore, description: RunDescription, member: int, at_most: int
) -> RolloutCheckpoint | None:
    return rollout_checkpoints.load_newest(
        store,
        description.cycle,
        run=description.run,
        member=member,
        fingerprint=description.fingerprint,
        at_most=at_most,
    )
