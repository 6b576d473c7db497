"""The noise level as a vector, and the scales and offsets that follow from it."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from model.gencast.configs import NoiseEncoderConfig
from model.graphs.graph_network import Layer, Parameters, linear
from model.precision import accumulation_type

NOISE_ENCODER = "fourier_features_mlp/~/mlp/~/linear"

ScaleOffset = tuple[jax.Array, jax.Array]


def encode_noise_level(params: Parameters, config: NoiseEncoderConfig, noise_level: jax.Array) -> jax.Array:
    """Fourier features of a noise level through an MLP with GELU.

    Args:
        noise_level: a positive scalar.

    Returns:
        Shape (``config.output_sizes[-1]``,).
    """
    value = jnp.log(noise_level) if config.apply_log_first else noise_level
    frequencies = 2 * np.pi * np.arange(1, config.num_frequencies + 1) / config.base_period
    angles = value * jnp.asarray(frequencies, value.dtype)
    x = jnp.concatenate([jnp.cos(angles), jnp.sin(angles)])
    for layer in range(len(config.output_sizes)):
        x = linear(params, f"{NOISE_ENCODER}_{layer}", x if layer == 0 else jax.nn.gelu(x))
    return x


def noise_encoder_shapes(config: NoiseEncoderConfig) -> Iterator[tuple[str, int, int]]:
    """Name, inputs and outputs of each linear layer."""
    sizes = (2 * config.num_frequencies, *config.output_sizes)
    for layer in range(len(config.output_sizes)):
        yield f"{NOISE_ENCODER}_{layer}", sizes[layer], sizes[layer + 1]


def scale_and_offset(layer: Layer, encoding: jax.Array) -> ScaleOffset:
    """What replaces a layer norm's learned scale and offset: 1 + W₁c and W₂c, float32 (float64 of float64).

    Args:
        layer: ``w`` of shape (encoding, 2·features) and ``b``.
        encoding: of the noise level, shape (encoding,).
    """
    dtype = accumulation_type(layer["w"].dtype)
    both = encoding.astype(dtype) @ layer["w"].astype(dtype) + layer["b"].astype(dtype)
    scale_minus_one, offset = jnp.split(both, 2)
    return scale_minus_one + 1, offset
