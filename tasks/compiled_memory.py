"""What a model's compiled program needs of a device, remembered so that the next start need not compile to know."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from infra.version import code_version
from infra.whole_files import write_whole
from model.forecaster import Forecaster, NetworkForecaster


def program_name(what: Mapping[str, Any]) -> str:
    """A name for one compiled program: of what decides it, of JAX, and of Foldcast.

    Args:
        what: the model's checksum, grid, options and device kind, as JSON types.
    """
    whole = {**what, "jax": jax.__version__, "code_version": code_version()}
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:24]


def recalled_memory(cache: Path, name: str) -> int | None:
    """Bytes on the device that a program was found to need; None if it was not compiled on this machine yet."""
    try:
        return int(json.loads(_file(cache, name).read_text())["device_bytes"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def compiled_memory(forecaster: Forecaster, cache: Path, name: str) -> int | None:
    """Bytes on the device that the model's program needs, compiled now if it was not; None if it cannot tell.

    Parameters, what follows from them and the grid, weather, outputs and temporaries, by XLA's own analysis.
    """
    if not isinstance(forecaster, NetworkForecaster):
        return None
    parts = forecaster.compiled_memory()
    total = sum(parts.values())
    write_whole(_file(cache, name), json.dumps({"device_bytes": total, **parts}).encode())
    return total


def _file(cache: Path, name: str) -> Path:
    return cache / "memory" / f"{name}.json"
