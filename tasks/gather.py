"""Admit an ensemble: every member complete, unique and verified against its checksums."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

from infra import layout
from infra.errors import IncompleteCycleError
from infra.forecast_store import verify_member
from infra.manifests import MemberManifest, RunDescription, load_member_manifest
from infra.object_store import ObjectStore
from model.cycle import Cycle
from model.task import TaskConfig

_PARALLEL_READS = 8


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """What was found of the members asked for.

    Args:
        manifests: of the members that are whole, in order.
        problems: what is wrong with each of the others.
    """

    manifests: tuple[MemberManifest, ...]
    problems: dict[int, str] = field(default_factory=dict)

    @property
    def members(self) -> tuple[int, ...]:
        """Global numbers of the members that are whole."""
        return tuple(manifest.member for manifest in self.manifests)


def gather_members(
    store: ObjectStore, cycle: Cycle, *, run: str, task: TaskConfig, members: Sequence[int], steps: int
) -> Gathered:
    """Read every chunk of every member back and compare it with the member's manifest."""
    forecast = layout.forecast_store(cycle, run)

    def examine(member: int) -> MemberManifest | str:
        try:
            manifest = load_member_manifest(store, cycle, run, member)
            if manifest is None:
                return "it has no manifest: it was not completed"
            if manifest.steps < steps:
                return f"expected {steps} steps, it has {manifest.steps}"
            verify_member(store, forecast, task, member=member, steps=steps, checksums=manifest.chunks)
        except IncompleteCycleError as error:
            return str(error)
        return manifest

    with ThreadPoolExecutor(_PARALLEL_READS, "verify") as pool:
        found = dict(zip(members, pool.map(examine, members), strict=True))
    return Gathered(
        manifests=tuple(m for m in found.values() if isinstance(m, MemberManifest)),
        problems={member: outcome for member, outcome in found.items() if isinstance(outcome, str)},
    )


def require_enough(gathered: Gathered, cycle: Cycle, *, members: int, require: Literal["all"] | int) -> None:
    """Hold an ensemble against the policy for partial ones.

    Raises:
        IncompleteCycleError: too few members are whole; the message says what is wrong with the others.
    """
    least = members if require == "all" else min(require, members)
    if len(gathered.manifests) >= least:
        return
    shown = "; ".join(
        f"member {member}: {problem}" for member, problem in list(gathered.problems.items())[:3]
    )
    raise IncompleteCycleError(
        f"{cycle}: expected {'all' if require == 'all' else f'at least {least}'} of {members} members, "
        f"{len(gathered.manifests)} are whole; {shown}"
    )


def save_ensemble_manifest(
    store: ObjectStore, description: RunDescription, gathered: Gathered, *, steps: int
) -> None:
    """Write down what was gathered: members, devices, times, peaks of memory, what is missing."""
    document: dict[str, Any] = {
        "format": 1,
        "cycle": str(description.cycle),
        "run": description.run,
        "steps": steps,
        "members": gathered.members,
        "missing": {str(member): problem for member, problem in gathered.problems.items()},
        "mixed_options": [m.member for m in gathered.manifests if _is_mixed(m)],
        "perturbation": dict(description.perturbation),
        "devices": _by_device(gathered.manifests),
        "peak_host_bytes": max((m.peak_host_bytes for m in gathered.manifests), default=0),
        "peak_device_bytes": max((m.peak_device_bytes or 0 for m in gathered.manifests), default=0),
        "members_per_program": sorted({m.members_per_program for m in gathered.manifests}),
    }
    key = layout.ensemble_manifest(description.cycle, description.run)
    store.write(key, json.dumps(document, indent=1, sort_keys=True).encode())


def _is_mixed(manifest: MemberManifest) -> bool:
    """Whether workers with unlike options (kind of device, and what follows from it) computed a member."""
    return any(options != manifest.contributors[0] for options in manifest.contributors[1:])


def _by_device(manifests: Sequence[MemberManifest]) -> dict[str, dict[str, Any]]:
    devices: dict[str, list[MemberManifest]] = {}
    for manifest in manifests:
        devices.setdefault(manifest.device, []).append(manifest)
    return {
        device: {
            "members": [m.member for m in found],
            "seconds_per_step": sum(m.seconds_per_step for m in found) / len(found),
        }
        for device, found in sorted(devices.items())
    }
