"""Compute members: resume each where it stopped, stream its steps, checkpoint it, mark it complete.

While the device computes a step, the one before it is written by a thread, and the next members' initial
states (and parameters, where each has its own) are prepared by another; the first ones of the next block can be
prepared while this one computes. A member's steps are never all in memory.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import xarray as xr

from infra.background_writer import BackgroundWriter, Backoff
from infra.devices import describe, local_devices
from infra.errors import CheckpointMismatchError, UnknownOptionError
from infra.manifests import MemberManifest, RunDescription
from infra.object_store import ObjectStore
from infra.resources import MemoryUse, memory_use
from infra.watchdog import Watchdog
from model.rollout.state import RolloutState
from tasks.member_record import MemberRecord
from tasks.open_work import OpenWork, find_open_work, grouped

if TYPE_CHECKING:
    from model.forecaster import Forecaster, HasParameters

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
    """

    checkpoint_every: int = 4
    anchor_every: int | None = None
    members_per_program: int = 1
    queue_depth: int = 2
    backoff: Backoff = field(default_factory=Backoff)

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
        found_whole: members of other blocks that were whole before this worker began, as far as it was told.
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
    found_whole: tuple[int, ...] = ()


ProgressCallback = Callable[[RolloutProgress], None]


MemberParameters = Callable[[int], Mapping[str, Mapping[str, Any]]]
"""A member's own network parameters, by module and name."""


@dataclass(frozen=True)
class _Ready:
    """Members that one program computes together, with what they need to begin."""

    group: tuple[OpenWork, ...]
    states: list[RolloutState]
    parameters: Mapping[str, Mapping[str, Any]] | None


@dataclass(kw_only=True)
class BlockRollout:
    """Members to be computed up to a number of steps, each from where it stopped.

    A complete member whose chunks are whole is left alone; damaged chunks of a complete member are computed
    again from the nearest checkpoint before them.

    Args:
        forecasters: the loaded model, once for each local device, in the order of ``local_devices()``.
        store: where the forecast store, checkpoints and manifests lie.
        description: of the run; its forecast store was laid out before.
        members: global member numbers.
        steps: model steps each member shall have.
        initial_state: the state of a member at step 0; called from a thread while the device works.
        statics: fields without a time dimension.
        parameters: each member's own parameters, made in a thread while the device works; None for the model's.
        options: how members are computed.
        progress: called after every step, from the thread that computed it.
        watchdog: told of every step, write and preparation; by default it watches nothing.

    Raises:
        CheckpointMismatchError: the model is not the run's.
        UnknownOptionError: members with parameters of their own cannot share a program.
    """

    forecasters: Sequence[Forecaster]
    store: ObjectStore
    description: RunDescription
    members: Sequence[int]
    steps: int
    initial_state: Callable[[Forecaster, int], RolloutState]
    statics: xr.Dataset
    parameters: MemberParameters | None = None
    options: RolloutOptions = field(default_factory=RolloutOptions)
    progress: ProgressCallback | None = None
    watchdog: Watchdog = field(default_factory=lambda: Watchdog(None))
    _first: list[_Ready] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        for forecaster in self.forecasters:
            if forecaster.sha256 != self.description.model_sha256:
                raise CheckpointMismatchError(
                    f"{self.description.cycle}: the run was planned with model "
                    f"{self.description.model_sha256[:12]}…, this worker has {forecaster.sha256[:12]}…"
                )
        if self.parameters is not None and self.options.members_per_program > 1:
            raise UnknownOptionError(
                "members with parameters of their own: expected members_per_program=1, "
                f"got {self.options.members_per_program}"
            )
        self._record = MemberRecord(
            store=self.store,
            description=self.description,
            task=self.forecasters[0].task,
            anchor_every=self.options.anchors,
        )
        self._groups: deque[tuple[OpenWork, ...]] = deque()
        self._seconds: list[float] = []
        self._lock = threading.Lock()
        self._compiling = threading.Lock()
        self._compiled: set[int] = set()
        self._failed = threading.Event()

    def prepare(self) -> None:
        """Find what is open and make the first members' states, without the device: another block may use it.

        Raises:
            CheckpointMismatchError: a rollout checkpoint belongs to another run.
        """
        if self._first is not None:
            return
        found = find_open_work(
            self.store, self.description, self.forecasters[0].task, members=self.members, steps=self.steps
        )
        self._record.manifests.update(found.complete)
        self._groups.extend(grouped(found.open, self.options.members_per_program))
        first = [self._groups.popleft() for _ in range(min(len(self.forecasters), len(self._groups)))]
        self._first = [self._make_ready(self.forecasters[i], group) for i, group in enumerate(first)]

    def run(self) -> tuple[MemberManifest, ...]:
        """Compute.

        Returns:
            The manifests of all members, in the order given.

        Raises:
            CheckpointMismatchError: a rollout checkpoint belongs to another run.
            TransientSourceError: the store kept failing; what is done so far is kept.
        """
        self.prepare()
        first, self._first = self._first or [], []
        devices = max(1, len(first))
        with (
            BackgroundWriter(
                depth=self.options.queue_depth * devices * self.options.members_per_program,
                backoff=self.options.backoff,
                guard=partial(self.watchdog.watching, "writing"),
            ) as self._writer,
            ThreadPoolExecutor(devices, "device") as pool,
            ThreadPoolExecutor(devices, "prepare") as self._preparing,
        ):
            running = [pool.submit(self._serve, index, ready) for index, ready in enumerate(first)]
            try:
                for outcome in running:
                    outcome.result()
                self._writer.flush()
            except BaseException:
                self._failed.set()
                raise
        return tuple(self._record.manifests[member] for member in self.members)

    def _serve(self, index: int, ready: _Ready) -> None:
        """Compute groups on one device until none is left, preparing one ahead."""
        try:
            upcoming: Future[_Ready] | None
            while not self._failed.is_set():
                upcoming = self._prepare_next(index)
                self._compute(index, ready)
                if upcoming is None:
                    return
                ready = upcoming.result()
        except BaseException:
            self._failed.set()
            raise

    def _prepare_next(self, index: int) -> Future[_Ready] | None:
        with self._lock:
            if not self._groups:
                return None
            group = self._groups.popleft()
        return self._preparing.submit(self._make_ready, self.forecasters[index], group)

    def _make_ready(self, forecaster: Forecaster, group: tuple[OpenWork, ...]) -> _Ready:
        with self.watchdog.watching(f"preparing member {group[0].member}"):
            states = [work.state or self.initial_state(forecaster, work.member) for work in group]
            parameters = self.parameters(group[0].member) if self.parameters is not None else None
        return _Ready(group, states, parameters)

    def _compute(self, index: int, ready: _Ready) -> None:
        group, states = ready.group, ready.states
        if ready.parameters is not None:
            cast("HasParameters", self.forecasters[index]).use_parameters(ready.parameters)
        for work in group:
            self._record.begin(work, self.forecasters[index].options)
        while states[0].step < group[0].stop and not self._failed.is_set():
            began = time.perf_counter()
            results = self._advance(index, states)
            states = [state for state, _ in results]
            for work, (state, fields) in zip(group, results):
                self._writer.submit(partial(self._record.write_step, state, fields))
                due = state.step % self.options.checkpoint_every == 0 or state.step == self.steps
                if due and not work.repair:
                    self._writer.submit(partial(self._record.write_checkpoint, work, state))
            with self._lock:
                self._seconds.append((time.perf_counter() - began) / len(group))
            self._report(index, states)
        if not self._failed.is_set():
            for work in group:
                self._writer.submit(partial(self._complete, index, work))

    def _advance(self, index: int, states: list[RolloutState]) -> list[tuple[RolloutState, xr.Dataset]]:
        """One step; devices take their first one after the other.

        Compiling takes much host memory, and what the first device compiled the next may find in the cache.
        """
        forecaster = self.forecasters[index]
        if index in self._compiled:
            with self.watchdog.watching(f"device {index}"):
                return forecaster.advance(states, self.statics)
        with self._compiling, self.watchdog.watching(f"device {index}", allowance=_COMPILE_ALLOWANCE):
            results = forecaster.advance(states, self.statics)
            self._compiled.add(index)
            return results

    def _complete(self, index: int, work: OpenWork) -> None:
        self._record.complete(
            work,
            device=_device_name(index),
            members_per_program=self.options.members_per_program,
            seconds_per_step=self._seconds_per_step(),
            memory=memory_use(local_devices()),
        )

    def _seconds_per_step(self) -> float:
        with self._lock:
            seconds = self._seconds[1:] or self._seconds
            return sum(seconds) / len(seconds) if seconds else 0.0

    def _report(self, index: int, states: Sequence[RolloutState]) -> None:
        if self.progress is None:
            return
        memory = memory_use(local_devices())
        for state in states:
            self.progress(
                RolloutProgress(
                    members=tuple(self.members),
                    members_done=len(self._record.manifests),
                    member=state.member,
                    step=state.step,
                    steps=self.steps,
                    computed_steps=len(self._seconds),
                    seconds_per_step=self._seconds_per_step(),
                    device=_device_name(index),
                    memory=memory,
                )
            )


def _device_name(index: int) -> str:
    return str(describe(local_devices()[index]))
