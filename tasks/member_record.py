"""What is kept of members while they are computed: their steps, rollout checkpoints, and the mark of completion.

Its methods are called by one thread, in the order in which a member's steps were computed, so that nothing
stands in the store before what it builds on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import xarray as xr

from infra import layout, rollout_checkpoints
from infra.forecast_store import ForecastWriter, expected_chunks
from infra.manifests import MemberManifest, RunDescription
from infra.object_store import ObjectStore
from infra.resources import MemoryUse
from infra.rollout_checkpoints import RolloutCheckpoint
from model.rollout.state import RolloutState
from model.task import TaskConfig
from tasks.open_work import OpenWork


@dataclass(frozen=True, kw_only=True)
class MemberRecord:
    """Writes members' steps, checkpoints and manifests.

    Args:
        store: where.
        description: of the run, whose forecast store was laid out before.
        task: of the model.
        anchor_every: rollout checkpoints at multiples of this step stay until publication.
        manifests: of the members that are complete, by number.
    """

    store: ObjectStore
    description: RunDescription
    task: TaskConfig
    anchor_every: int
    manifests: dict[int, MemberManifest] = field(default_factory=dict)
    _chunks: dict[int, dict[str, str]] = field(default_factory=dict, repr=False)

    def begin(self, work: OpenWork) -> None:
        """Take up a member where others left it."""
        self._chunks[work.member] = dict(work.chunks)

    def write_step(self, state: RolloutState, fields: xr.Dataset) -> None:
        """The fields of the step that led to a state."""
        written = self._fields.write_step(state.member, state.step - 1, fields)
        self._chunks[state.member].update(written)

    def write_checkpoint(self, work: OpenWork, state: RolloutState) -> None:
        """A state to continue from; older ones go."""
        cycle, run = self.description.cycle, self.description.run
        checkpoint = RolloutCheckpoint(
            state=state, chunks=self._chunks[state.member], started_at_steps=work.started_at_steps
        )
        rollout_checkpoints.save(
            self.store, cycle, checkpoint, run=run, fingerprint=self.description.fingerprint
        )
        rollout_checkpoints.prune(
            self.store, cycle, run=run, member=state.member, anchor_every=self.anchor_every
        )

    def complete(
        self,
        work: OpenWork,
        *,
        device: str,
        members_per_program: int,
        options: Mapping[str, Any],
        seconds_per_step: float,
        memory: MemoryUse,
    ) -> None:
        """Mark a member complete, with what computed it.

        Args:
            work: what was open.
            device: in words.
            members_per_program: members computed by one program.
            options: as the model resolved them.
            seconds_per_step: mean wall time.
            memory: of this worker.
        """
        chunks = self._chunks.pop(work.member)
        expected = expected_chunks(self.task, work.member, range(work.steps))
        manifest = MemberManifest(
            member=work.member,
            run=self.description.run,
            steps=work.steps,
            chunks={chunk: chunks[chunk] for chunk in expected},
            device=device,
            members_per_program=members_per_program,
            options=options,
            seconds_per_step=seconds_per_step,
            started_at_steps=work.started_at_steps,
            peak_host_bytes=memory.peak_host_bytes,
            peak_device_bytes=memory.peak_device_bytes,
        )
        manifest.save(self.store, self.description.cycle)
        self.manifests[work.member] = manifest

    @cached_property
    def _fields(self) -> ForecastWriter:
        key = layout.forecast_store(self.description.cycle, self.description.run)
        return ForecastWriter(store=self.store, key=key, variables=self.task.target_variables)
