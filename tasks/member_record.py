"""What is kept of members while they are computed: their steps, rollout checkpoints, and the mark of completion.

Its methods are called by one thread, in the order in which a member's steps were computed, so that nothing
stands in the store before what it builds on.
"""

from __future__ import annotations

import logging
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

_LOG = logging.getLogger(__name__)


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
    _contributors: dict[int, tuple[Mapping[str, Any], ...]] = field(default_factory=dict, repr=False)

    def begin(self, work: OpenWork, options: Mapping[str, Any]) -> None:
        """Take up a member where others left it, with the model's options as this worker resolved them."""
        self._chunks[work.member] = dict(work.chunks)
        self._contributors[work.member] = (*work.contributors, dict(options))
        if work.contributors and dict(work.contributors[-1]) != dict(options):
            _LOG.warning(
                "%s, member %d goes on at step %d with other options (rounding may differ): %s, before it was %s",
                self.description.cycle,
                work.member,
                work.start,
                dict(options),
                dict(work.contributors[-1]),
            )

    def write_step(self, state: RolloutState, fields: xr.Dataset) -> None:
        """The fields of the step that led to a state."""
        written = self._fields.write_step(state.member, state.step - 1, fields)
        self._chunks[state.member].update(written)

    def write_checkpoint(self, work: OpenWork, state: RolloutState) -> None:
        """A state to continue from; older ones go."""
        cycle, run = self.description.cycle, self.description.run
        checkpoint = RolloutCheckpoint(
            state=state,
            chunks=self._chunks[state.member],
            started_at_steps=work.started_at_steps,
            options=self._contributors[state.member],
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
        seconds_per_step: float,
        memory: MemoryUse,
    ) -> None:
        """Mark a member complete, with what computed it.

        Args:
            work: what was open.
            device: in words.
            members_per_program: members computed by one program.
            seconds_per_step: mean wall time.
            memory: of this worker.
        """
        chunks, contributors = self._chunks.pop(work.member), self._contributors.pop(work.member)
        expected = expected_chunks(self.task, work.member, range(work.steps))
        manifest = MemberManifest(
            member=work.member,
            run=self.description.run,
            steps=work.steps,
            chunks={chunk: chunks[chunk] for chunk in expected},
            device=device,
            members_per_program=members_per_program,
            options=contributors[-1],
            contributors=contributors,
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
