"""The devices of this process: which there are, what they are called, how much they hold.

A device computes one member at a time (or ``members_per_program`` of them). The model is loaded once on each
local device; whichever is free takes the next members, so that unlike devices are loaded by their speed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax


@dataclass(frozen=True, kw_only=True)
class Device:
    """A device in words and numbers.

    Args:
        platform: ``"cpu"``, ``"gpu"`` or ``"tpu"``.
        kind: as the maker calls it.
        number: JAX's number of it.
        memory_bytes: of its own; None where it shares the host's or does not say.
        compute_capability: of an NVIDIA device.
    """

    platform: str
    kind: str
    number: int = 0
    memory_bytes: int | None = None
    compute_capability: float | None = None

    def __str__(self) -> str:
        return f"{self.platform}:{self.number} {self.kind}"


def local_devices(at_most: int | None = None) -> tuple[Any, ...]:
    """JAX's handles of the devices that this process may use, in JAX's order."""
    return tuple(jax.local_devices()[:at_most])


def describe(device: Any) -> Device:
    """A JAX device in words and numbers."""
    statistics = device.memory_stats() or {}
    capability = getattr(device, "compute_capability", None)
    return Device(
        platform=device.platform,
        kind=device.device_kind,
        number=device.id,
        memory_bytes=statistics.get("bytes_limit"),
        compute_capability=float(capability) if capability else None,
    )


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a worker has.

    Args:
        platform: ``"cpu"``, ``"gpu"`` or ``"tpu"``.
        device_kind: as the maker calls it.
        devices: local devices, each of which computes members of its own.
        device_bytes: memory of the smallest; None where it is the host's.
        host_bytes: host memory that is free for this process.
        store_bytes: free space of the store; None where it has no limit of its own.
        compute_capability: of an NVIDIA device.
    """

    platform: str
    device_kind: str
    devices: int
    device_bytes: int | None
    host_bytes: int
    store_bytes: int | None = None
    compute_capability: float | None = None


def machine_of(devices: Sequence[Device], *, host_bytes: int, store_bytes: int | None) -> Machine:
    """Devices of one kind, with the host's memory and the store's space."""
    return Machine(
        platform=devices[0].platform,
        device_kind=devices[0].kind,
        devices=len(devices),
        device_bytes=min((d.memory_bytes for d in devices if d.memory_bytes is not None), default=None),
        host_bytes=host_bytes,
        store_bytes=store_bytes,
        compute_capability=devices[0].compute_capability,
    )
