"""What is written down about a run: what decides its values, and that a member is whole.

All documents are JSON with a ``format`` number; a document of a later format is refused, not guessed at.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from infra import layout
from infra.errors import CheckpointMismatchError, IncompleteCycleError, StoreError
from infra.object_store import ObjectStore
from model.cycle import Cycle, parse_init_time

_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class RunDescription:
    """What decides a value of a run; the number of members and steps is not among it, nor the kind of device.

    Args:
        cycle: model name and init_time.
        model_sha256: of the params file.
        statistics_sha256: of the normalisation statistics.
        initial_condition: key of the stored initial condition.
        initial_condition_sha256: of its contents.
        seed: configured seed.
        rng: ``"operational"`` or ``"reference"``.
        precision: compute type as configured.
        attention: attention implementation as configured.
        perturbation: how members' initial conditions differ; empty if they do not.
        code_version: version of Foldcast.
        compiler_version: versions of JAX and jaxlib; not those of plugins for GPUs and TPUs.
    """

    cycle: Cycle
    model_sha256: str
    statistics_sha256: str
    initial_condition: str
    initial_condition_sha256: str
    seed: int
    rng: str
    precision: str
    attention: str
    perturbation: Mapping[str, Any] = field(default_factory=dict)
    code_version: str
    compiler_version: str

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over all fields, in hex: rollout checkpoints carry it."""
        return hashlib.sha256(_dump(self._document())).hexdigest()

    @property
    def run(self) -> str:
        """The run's short name: the first 12 characters of the fingerprint."""
        return self.fingerprint[:12]

    def _document(self) -> dict[str, Any]:
        document = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "cycle"}
        return {
            "format": _FORMAT,
            "model": self.cycle.model,
            "init_time": self.cycle.identifier,
            **document,
            "perturbation": dict(self.perturbation),
        }

    def save(self, store: ObjectStore) -> None:
        """Write the description to its place."""
        store.write(layout.run_description(self.cycle, self.run), _dump(self._document()))


def load_run_description(store: ObjectStore, cycle: Cycle, run: str) -> RunDescription:
    """The description of a run.

    Raises:
        StoreError: there is none.
        CheckpointMismatchError: it is not that of this run.
    """
    key = layout.run_description(cycle, run)
    document = _parse(store, key)
    try:
        description = RunDescription(
            cycle=Cycle(model=document.pop("model"), init_time=parse_init_time(document.pop("init_time"))),
            **document,
        )
    except (TypeError, ValueError, KeyError) as error:
        raise CheckpointMismatchError(f"{store.url(key)}: not a run description: {error}") from error
    if description.run != run or description.cycle != cycle:
        raise CheckpointMismatchError(
            f"{store.url(key)}: expected run {run} of {cycle}, found {description.run} of {description.cycle}"
        )
    return description


@dataclass(frozen=True, kw_only=True)
class MemberManifest:
    """A member is whole: every chunk of its steps was written.

    Args:
        member: global member number.
        run: short name of the run.
        steps: number of steps.
        chunks: sha256 of the stored bytes by chunk key, relative to the forecast store.
        device: what computed it last, in words.
        members_per_program: members computed by one compiled program (a larger one may change rounding).
        options: precision, attention and so on, as the model of the last worker resolved them.
        contributors: the same of every worker that contributed, in order.
        seconds_per_step: mean wall time of the steps of the last worker.
        started_at_steps: the step at which each worker that contributed to it started; the first is 0.
        peak_host_bytes: peak resident memory of the last worker.
        peak_device_bytes: peak memory of its device; None where the device does not tell.
    """

    member: int
    run: str
    steps: int
    chunks: Mapping[str, str]
    device: str
    members_per_program: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)
    contributors: tuple[Mapping[str, Any], ...] = ()
    seconds_per_step: float = 0.0
    started_at_steps: tuple[int, ...] = (0,)
    peak_host_bytes: int = 0
    peak_device_bytes: int | None = None

    def save(self, store: ObjectStore, cycle: Cycle) -> None:
        """Write the manifest: from now on the member counts as complete."""
        document = {"format": _FORMAT, "cycle": str(cycle), **asdict(self)}
        store.write(layout.member_manifest(cycle, self.run, self.member), _dump(document))


def load_member_manifest(store: ObjectStore, cycle: Cycle, run: str, member: int) -> MemberManifest | None:
    """A member's manifest; None if the member is not complete.

    Raises:
        IncompleteCycleError: there is a manifest, but not one of this member and run.
    """
    key = layout.member_manifest(cycle, run, member)
    if not store.exists(key):
        return None
    document = _parse(store, key)
    written_for = document.pop("cycle", None)
    try:
        started = tuple(document.pop("started_at_steps"))
        contributors = tuple(document.pop("contributors", ()))
        manifest = MemberManifest(**document, started_at_steps=started, contributors=contributors)
    except (TypeError, KeyError) as error:
        raise IncompleteCycleError(f"{store.url(key)}: not a member manifest: {error}") from error
    if (manifest.member, manifest.run, written_for) != (member, run, str(cycle)):
        raise IncompleteCycleError(
            f"{store.url(key)}: expected member {member} of run {run} of {cycle}, "
            f"found member {manifest.member} of run {manifest.run} of {written_for}"
        )
    return manifest


def _dump(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, indent=1).encode()


def _parse(store: ObjectStore, key: str) -> dict[str, Any]:
    try:
        document = json.loads(store.read(key))
    except ValueError as error:
        raise StoreError(f"{store.url(key)}: not JSON: {error}") from error
    if not isinstance(document, dict) or document.pop("format", None) != _FORMAT:
        raise StoreError(f"{store.url(key)}: expected a document of format {_FORMAT}")
    return document
