"""What memory this process may have, and how much of it and of its devices' it uses."""

from __future__ import annotations

import resource
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

_CONTROL_GROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


@dataclass(frozen=True, kw_only=True)
class MemoryUse:
    """Memory of this process and its device at one moment.

    Args:
        host_bytes: resident memory now.
        peak_host_bytes: largest resident memory since the process began.
        device_bytes: memory in use on the fullest local device; None where devices do not tell (CPU).
        peak_device_bytes: its peak.
    """

    host_bytes: int
    peak_host_bytes: int
    device_bytes: int | None = None
    peak_device_bytes: int | None = None


def memory_use(devices: Sequence[Any] = ()) -> MemoryUse:
    """Memory in use now.

    Args:
        devices: JAX devices to ask.
    """
    statistics = [device.memory_stats() for device in devices]
    known = [s for s in statistics if s]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    resident = psutil.Process().memory_info().rss
    return MemoryUse(
        host_bytes=resident,
        peak_host_bytes=max(peak, resident),  # the kernel counts the two in different ways
        device_bytes=max((s["bytes_in_use"] for s in known), default=None),
        peak_device_bytes=max((s["peak_bytes_in_use"] for s in known), default=None),
    )


def host_memory_limit(limits: tuple[Path, ...] = _CONTROL_GROUP_LIMITS) -> int:
    """Bytes of memory this process may use: the machine's, or its container's where that is less."""
    total = psutil.virtual_memory().total
    for path in limits:
        try:
            text = path.read_text().strip()
        except OSError:
            continue
        if text.isdigit():
            total = min(total, int(text))
    return total


def host_memory_available() -> int:
    """Bytes that may be allocated now without swapping."""
    memory = psutil.virtual_memory()
    return min(memory.available, host_memory_limit())


def size_text(count: int) -> str:
    """A number of bytes as people read it, in binary units, e.g. ``3.4 MiB``."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"
