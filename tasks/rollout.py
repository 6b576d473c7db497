"""Compute members: resume each where it stopped, stream its steps, checkpoint it, mark it complete.

While the device computes a step, the one before it is written by a thread, and the next members' initial
states are prepared by another. A member's steps are never all in memory.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import jax
import xarray as xr

from infra import layout, rollout_checkpoints
from infra.background_writer import BackgroundWriter, Backoff
from infra.errors import CheckpointMismatchError
from infra.forecast_store import ForecastWriter, expected_chunks
from infra.manifests import MemberManifest, RunDescription
from infra.object_store import ObjectStore
from infra.resources import MemoryUse, memory_use
from infra.rollout_checkpoints import RolloutCheckpoint
from infra.watchdog import Watchdog
from model.rollout.state import RolloutState
from tasks.open_work import OpenWork, find_open_work, grouped

if TYPE_CHECKING:
    from model.forecaster import Forecaster

LoadedModels = Sequence["Forecaster"]
"""The model on each local device."""

_COMPILE_ALLOWANCE = 4.0


@dataclass(frozen=True, kw_only=True)
class RolloutOptions:
    """How members are computed; nothing here changes a value.

    Args:
        checkpoint_every: steps between rollout checkpoints; the last step always has one.
        anchor_every: checkpoints at multiples of this stay until publication; default: every fourth.
        members_per_program: members advanced by one compiled program.
        queue_depth: steps that may wait to be written.
        backoff: how transient failures of the store are retried.
        step_limit_seconds: the process ends when no step is done within this; None: never.
    """

    checkpoint_every: int = 4
    anchor_every: int | None = None
    members_per_program: int = 1
    queue_depth: int = 2
    backoff: Backoff = field(default_factory=Backoff)
    step_limit_seconds: float | None = None

    def __post_init__(self) -> None:
        if min(self.checkpoint_every, self.members_per_program, self.queue_depth) < 1:
            raise ValueError(f"expected positive numbers, got {self}")

    @property
    def anchors(self) -> int:
        """Steps between the checkpoints that stay until publication."""
        return self.anchor_every or 4 * self.checkpoint_every


@dataclass(frozen=True, kw_only=True)
class RolloutProgress:
    """How far the members of one worker are.

    Args:
        members: global numbers of the worker's members.
        members_done: how many of them are complete.
        member: the member whose step was just computed.
        step: steps of it that are done.
        steps: steps it will have.
        computed_steps: steps this worker has computed, over all members.
        seconds_per_step: mean wall time of this worker's steps, the first excepted.
        device: what computes, in words.
        memory: host and device memory now and at its peak.
    """

    members: tuple[int, ...]
    members_done: int
    member: int
    step: int
    steps: int
    computed_steps: int
    seconds_per_step: float
    device: str
    memory: MemoryUse


ProgressCallback = Callable[[RolloutProgress], None]


def compute_members(
    forecasters: Sequence[Forecaster],
    *,
    store: ObjectStore,
    description: RunDescription,
    members: Sequence[int],
    steps: int,
    initial_state: Callable[[Forecaster, int], RolloutState],
    statics: xr.Dataset,
    options: RolloutOptions | None = None,
    progress: ProgressCallback | None = None,
) -> tuple[MemberManifest, ...]:
    """Compute members up to a number of steps, each from where it stopped.

    A complete member whose chunks are whole is left alone; damaged chunks of a complete member are computed
    again from the nearest checkpoint before them.

    Args:
        forecasters: the loaded model, once for each local device, in the order of ``jax.local_devices()``.
        store: where the forecast store, checkpoints and manifests lie.
        description: of the run; its forecast store was laid out before.
        members: global member numbers.
        steps: model steps each member shall have.
        initial_state: the state of a member at step 0; called from a thread while the device works.
        statics: fields without a time dimension.
        options: how members are computed.
        progress: called after every step, from the thread that computed it.

    Returns:
        The manifests of all members, in the order given.

    Raises:
        CheckpointMismatchError: the model is not the run's, or a checkpoint belongs to another run.
        TransientSourceError: the store kept failing; what is done so far is kept.
    """
    options = options or RolloutOptions()
    for forecaster in forecasters:
        if forecaster.sha256 != description.model_sha256:
            raise CheckpointMismatchError(
                f"{description.cycle}: the run was planned with model {description.model_sha256[:12]}…, "
                f"this worker has {forecaster.sha256[:12]}…"
            )
    with Watchdog(options.step_limit_seconds) as watchdog:
        computation = _Computation(
            forecasters=forecasters,
            store=store,
            description=description,
            members=tuple(members),
            steps=steps,
            initial_state=initial_state,
            statics=statics,
            options=options,
            progress=progress,
            watchdog=watchdog,
        )
        return computation.run()


class _Computation:
    """One call of ``compute_members``."""

    def __init__(
        self,
        *,
        forecasters: Sequence[Forecaster],
        store: ObjectStore,
        description: RunDescription,
        members: tuple[int, ...],
        steps: int,
        initial_state: Callable[[Forecaster, int], RolloutState],
        statics: xr.Dataset,
        options: RolloutOptions,
        progress: ProgressCallback | None,
        watchdog: Watchdog,
    ) -> None:
        self._forecasters = forecasters
        self._store = store
        self._description = description
        self._members = members
        self._steps = steps
        self._initial_state = initial_state
        self._statics = statics
        self._options = options
        self._progress = progress
        self._watchdog = watchdog
        self._task = forecasters[0].task
        self._forecast_key = layout.forecast_store(description.cycle, description.run)
        self._fields = ForecastWriter(
            store=store, key=self._forecast_key, variables=self._task.target_variables
        )
        self._manifests: dict[int, MemberManifest] = {}
        self._chunks: dict[int, dict[str, str]] = {}
        self._seconds: list[float] = []
        self._lock = threading.Lock()
        self._compiling = threading.Lock()
        self._compiled: set[int] = set()
        self._failed = threading.Event()

    def run(self) -> tuple[MemberManifest, ...]:
        found = find_open_work(
            self._store, self._description, self._task, members=self._members, steps=self._steps
        )
        self._manifests.update(found.complete)
        groups = deque(grouped(found.open, self._options.members_per_program))
        devices = self._forecasters[: len(groups)]
        with (
            BackgroundWriter(
                depth=self._options.queue_depth * max(1, len(devices)) * self._options.members_per_program,
                backoff=self._options.backoff,
                guard=partial(self._watchdog.watching, "writing"),
            ) as writer,
            ThreadPoolExecutor(max(1, len(devices)), "device") as pool,
            ThreadPoolExecutor(max(1, len(devices)), "prepare") as preparing,
        ):
            running = [
                pool.submit(self._serve, index, forecaster, groups, writer, preparing)
                for index, forecaster in enumerate(devices)
            ]
            try:
                for outcome in running:
                    outcome.result()
                writer.flush()
            except BaseException:
                self._failed.set()
                raise
        return tuple(self._manifests[member] for member in self._members)

    def _serve(
        self,
        index: int,
        forecaster: Forecaster,
        groups: deque[tuple[OpenWork, ...]],
        writer: BackgroundWriter,
        preparing: ThreadPoolExecutor,
    ) -> None:
        """Compute groups on one device until none is left, preparing one ahead."""
        try:
            upcoming = self._prepare_next(forecaster, groups, preparing)
            while upcoming is not None and not self._failed.is_set():
                group, states = upcoming[0], upcoming[1].result()
                upcoming = self._prepare_next(forecaster, groups, preparing)
                self._compute(index, group, states, writer)
        except BaseException:
            self._failed.set()
            raise

    def _prepare_next(
        self, forecaster: Forecaster, groups: deque[tuple[OpenWork, ...]], preparing: ThreadPoolExecutor
    ) -> tuple[tuple[OpenWork, ...], Future[list[RolloutState]]] | None:
        with self._lock:
            if not groups:
                return None
            group = groups.popleft()
        return group, preparing.submit(self._states, forecaster, group)

    def _states(self, forecaster: Forecaster, group: tuple[OpenWork, ...]) -> list[RolloutState]:
        return [work.state if work.state else self._initial_state(forecaster, work.member) for work in group]

    def _compute(
        self,
        index: int,
        group: tuple[OpenWork, ...],
        states: list[RolloutState],
        writer: BackgroundWriter,
    ) -> None:
        for work in group:
            self._chunks[work.member] = dict(work.chunks)
        while states[0].step < group[0].stop and not self._failed.is_set():
            began = time.perf_counter()
            results = self._advance(index, states)
            states = [state for state, _ in results]
            for work, (state, fields) in zip(group, results):
                writer.submit(partial(self._write_step, state, fields))
                due = state.step % self._options.checkpoint_every == 0 or state.step == self._steps
                if due and not work.repair:
                    writer.submit(partial(self._write_checkpoint, work, state))
            with self._lock:
                self._seconds.append((time.perf_counter() - began) / len(group))
            self._report(index, states)
        if not self._failed.is_set():
            for work in group:
                writer.submit(partial(self._complete, index, work))

    def _advance(self, index: int, states: list[RolloutState]) -> list[tuple[RolloutState, xr.Dataset]]:
        """One step; devices take their first one after the other.

        Compiling takes much host memory, and what the first device compiled the next may find in the cache.
        """
        forecaster = self._forecasters[index]
        if index in self._compiled:
            with self._watchdog.watching(f"device {index}"):
                return forecaster.advance(states, self._statics)
        with self._compiling, self._watchdog.watching(f"device {index}", allowance=_COMPILE_ALLOWANCE):
            results = forecaster.advance(states, self._statics)
            self._compiled.add(index)
            return results

    def _write_step(self, state: RolloutState, fields: xr.Dataset) -> None:
        written = self._fields.write_step(state.member, state.step - 1, fields)
        self._chunks[state.member].update(written)

    def _write_checkpoint(self, work: OpenWork, state: RolloutState) -> None:
        where = {"run": self._description.run, "member": state.member}
        rollout_checkpoints.save(
            self._store,
            self._description.cycle,
            RolloutCheckpoint(
                state=state,
                chunks=self._chunks[state.member],
                started_at_steps=work.started_at_steps,
            ),
            run=self._description.run,
            fingerprint=self._description.fingerprint,
        )
        rollout_checkpoints.prune(
            self._store, self._description.cycle, **where, anchor_every=self._options.anchors
        )

    def _complete(self, index: int, work: OpenWork) -> None:
        chunks = self._chunks.pop(work.member)
        expected = expected_chunks(self._task, work.member, range(work.steps))
        memory = memory_use(jax.local_devices())
        manifest = MemberManifest(
            member=work.member,
            run=self._description.run,
            steps=work.steps,
            chunks={chunk: chunks[chunk] for chunk in expected},
            device=_device_name(index),
            members_per_program=self._options.members_per_program,
            options=self._forecasters[index].options,
            seconds_per_step=self._seconds_per_step(),
            started_at_steps=work.started_at_steps,
            peak_host_bytes=memory.peak_host_bytes,
            peak_device_bytes=memory.peak_device_bytes,
        )
        manifest.save(self._store, self._description.cycle)
        self._manifests[work.member] = manifest

    def _seconds_per_step(self) -> float:
        with self._lock:
            seconds = self._seconds[1:] or self._seconds
            return sum(seconds) / len(seconds) if seconds else 0.0

    def _report(self, index: int, states: Sequence[RolloutState]) -> None:
        if self._progress is None:
            return
        memory = memory_use(jax.local_devices())
        for state in states:
            self._progress(
                RolloutProgress(
                    members=self._members,
                    members_done=len(self._manifests),
                    member=state.member,
                    step=state.step,
                    steps=self._steps,
                    computed_steps=len(self._seconds),
                    seconds_per_step=self._seconds_per_step(),
                    device=_device_name(index),
                    memory=memory,
                )
            )


def _device_name(index: int) -> str:
    device = jax.local_devices()[index]
    return f"{device.platform}:{device.id} {device.device_kind}"
