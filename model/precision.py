"""The number type a network computes in.

Weights, features and activations are in this type; normalisations, sums of messages and everything outside the
network (normalised fields, differences to the last frame) stay in float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from model.errors import UnknownOptionError

PRECISIONS = ("auto", "float32", "bfloat16", "float16")


def resolve_precision(precision: str, *, platform: str, compute_capability: float | None = None) -> str:
    """The precision to use: the one named, or for ``"auto"`` what the device is good at.

    Args:
        precision: one of ``PRECISIONS``.
        platform: JAX's name of the device's platform, ``"cpu"``, ``"gpu"`` or ``"tpu"``.
        compute_capability: of an NVIDIA GPU; those below 8.0 have no native bfloat16.

    Raises:
        UnknownOptionError: no such precision.
    """
    if precision not in PRECISIONS:
        raise UnknownOptionError(f"precision: expected one of {', '.join(PRECISIONS)}, got {precision!r}")
    if precision != "auto":
        return precision
    if platform == "cpu":
        return "float32"
    if platform in ("gpu", "cuda") and compute_capability is not None and compute_capability < 8.0:
        return "float16"
    return "bfloat16"


def cast_parameters(
    params: Mapping[str, Mapping[str, Any]], precision: str
) -> dict[str, dict[str, jax.Array]]:
    """Parameters in the precision's type."""
    return {
        module: {name: jnp.asarray(array, precision) for name, array in parameters.items()}
        for module, parameters in params.items()
    }


def accumulation_type(dtype: Any) -> jnp.dtype:
    """What sums and normalisations of numbers of a type are computed in: float32, or float64 for float64."""
    return jnp.promote_types(jnp.float32, dtype)
