"""Random keys: a member's numbers depend on (seed, init_time, member) and on nothing else.

Keys are raw threefry key data, uint32 of shape (2,), so that they can be stored and compared.
"""

from __future__ import annotations

from datetime import datetime

import jax
import numpy as np

from model.errors import UnknownOptionError


def base_key(seed: int, init_time: datetime, mode: str = "operational") -> np.ndarray:
    """The base key of a cycle, uint32 (2,).

    Args:
        seed: the configured seed, 0 to 2³² − 1.
        init_time: start of the forecast, time-zone aware.
        mode: ``"operational"`` folds the whole hours since 1970 of init_time into ``PRNGKey(seed)``;
            ``"reference"`` takes ``PRNGKey(seed)`` itself, DeepMind's published recipe. Hours before 1970 are
            negative and taken modulo 2³².

    Raises:
        UnknownOptionError: no such mode, or a seed out of its range, which would be another's.
    """
    if not 0 <= seed < 2**32:
        raise UnknownOptionError(f"seed: expected 0 to {2**32 - 1}, got {seed}")
    key = jax.random.PRNGKey(seed, impl="threefry2x32")
    if mode == "operational":
        key = jax.random.fold_in(key, np.uint32(int(init_time.timestamp() // 3600) % 2**32))
    elif mode != "reference":
        raise UnknownOptionError(f"rng: expected 'operational' or 'reference', got {mode!r}")
    return np.asarray(key, dtype=np.uint32)


def member_key(base: np.ndarray, member: int) -> np.ndarray:
    """The first key of a member, uint32 (2,), from its global number."""
    return np.asarray(jax.random.fold_in(base, member), dtype=np.uint32)
