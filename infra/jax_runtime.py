"""What JAX is told about this machine. Nothing here happens at import."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax


@dataclass(frozen=True, kw_only=True)
class Device:
    """A device in words and numbers.

    Args:
        platform: ``"cpu"``, ``"gpu"`` or ``"tpu"``.
        kind: as the maker calls it.
        memory_bytes: of its own; None where it shares the host's or does not say.
    """

    platform: str
    kind: str
    memory_bytes: int | None


def enable_compilation_cache(folder: Path) -> None:
    """Keep compiled programs in a folder, so that a second start does not compile again.

    Args:
        folder: made when needed; may be shared by processes.
    """
    jax.config.update("jax_compilation_cache_dir", str(folder.expanduser()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def describe(device: Any) -> Device:
    """A JAX device in words and numbers."""
    statistics = device.memory_stats() or {}
    return Device(
        platform=device.platform, kind=device.device_kind, memory_bytes=statistics.get("bytes_limit")
    )
