"""The layers message passing is made of, as pure functions of parameters under Haiku's names.

Parameters are a flat mapping as Haiku makes it, ``{"<module path>": {"w": …, "b": …}}``. A first linear layer
over a concatenation is the sum of one product for each part, so each part is multiplied where it is smallest:
features of nodes before they are gathered to edges, features that do not change once and for all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from model.precision import accumulation_type

Layer = Mapping[str, jax.Array | np.ndarray]
"""One module's parameters by name: on the host, as a file holds them, or on a device."""

Parameters = Mapping[str, Layer]
"""By module path."""

_LAYER_NORM_EPSILON = 1e-5
"""Haiku's default."""


def linear(params: Parameters, name: str, x: jax.Array) -> jax.Array:
    """``x @ w + b``."""
    layer = params[name]
    return x @ layer["w"] + layer["b"]


def first_layer_parts(params: Parameters, mlp: str, sizes: Sequence[int]) -> list[jax.Array]:
    """The weights of an MLP's first layer split by the parts of its concatenated input.

    Args:
        mlp: the MLP's module path.
        sizes: number of features of each part, in order.
    """
    weights = params[f"{mlp}/~/linear_0"]["w"]
    bounds = [sum(sizes[:i]) for i in range(1, len(sizes))]
    return jnp.split(weights, bounds, axis=0)


def mlp_after_first_layer(params: Parameters, mlp: str, x: jax.Array, *, hidden_layers: int) -> jax.Array:
    """The rest of an MLP, given what its first linear layer gave, bias included."""
    for layer in range(1, hidden_layers + 1):
        x = linear(params, f"{mlp}/~/linear_{layer}", jax.nn.swish(x))
    return x


def multi_layer_perceptron(params: Parameters, mlp: str, x: jax.Array, *, hidden_layers: int) -> jax.Array:
    """Linear layers with swish between them."""
    return mlp_after_first_layer(
        params, mlp, linear(params, f"{mlp}/~/linear_0", x), hidden_layers=hidden_layers
    )


def normalize_features(x: jax.Array) -> jax.Array:
    """Zero mean and unit variance over the last axis, computed and returned in float32 (float64 of float64)."""
    x = x.astype(accumulation_type(x.dtype))
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred * centred).mean(axis=-1, keepdims=True)
    return centred * jax.lax.rsqrt(variance + _LAYER_NORM_EPSILON)


def layer_norm(params: Parameters, name: str, x: jax.Array) -> jax.Array:
    """Layer normalisation over the last axis (Ba et al. 2016); float32 inside, the type of ``x`` outside."""
    layer = params[name]
    return (normalize_features(x) * layer["scale"] + layer["offset"]).astype(x.dtype)
