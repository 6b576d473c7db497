"""Progressive scaling: a wider or deeper GraphCast that starts as exactly the function of a smaller one.

*Deeper.* Message-passing steps that are added come last and change nothing at first: the layer normalisations that
their updates end in have scale and offset 0. Their scales learn from the first update on.

*Wider.* A latent size k times as large holds every feature k times (after Chen et al. 2016, *Net2Net*), which leaves
means and variances, and so layer normalisations, as they were. What reads the features divides each weight among
the copies in random shares that sum to 1: the outputs stay, but the copies' gradients differ, so they part company.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from model.channels import count_channels, forcing_blocks, input_blocks, target_blocks
from model.checkpoint_file import CheckpointFile
from model.errors import UnknownOptionError
from model.graphcast import GraphCastNetwork
from model.graphcast_config import MESSAGE_PASSING, ModelConfig

_GROWING = ("latent_size", "gnn_msg_steps")
_SPREAD = 0.2
"""Shares of a weight's copies lie within this of equal ones, relatively."""


def grow(small: CheckpointFile, config: ModelConfig, *, seed: int) -> CheckpointFile:
    """A checkpoint of a larger configuration with the same outputs, to rounding.

    Args:
        small: of the GraphCast family with plain message passing.
        config: the same but for a latent size that is a multiple and no fewer message-passing steps.
        seed: of fresh parameters and of the shares.

    Raises:
        UnknownOptionError: it cannot be grown into that.
    """
    old = small.config
    if not isinstance(old, ModelConfig) or old.processor_kind != MESSAGE_PASSING:
        raise UnknownOptionError("growing: expected a GraphCast with message passing to start from")
    expected = replace(config, **{name: getattr(old, name) for name in _GROWING})
    differing = [name for name in vars(old) if getattr(expected, name) != getattr(old, name)]
    if differing:
        raise UnknownOptionError(
            "growing: expected the same model but for "
            f"{' and '.join(_GROWING)}, got another {', '.join(differing)}"
        )
    copies, rest = divmod(config.latent_size, old.latent_size)
    if rest or not copies or config.gnn_msg_steps < old.gnn_msg_steps:
        raise UnknownOptionError(
            f"growing: expected a multiple of the latent size {old.latent_size} and at least {old.gnn_msg_steps} "
            f"message-passing steps, got {config.latent_size} and {config.gnn_msg_steps}"
        )
    random = np.random.default_rng(seed)
    network = GraphCastNetwork(
        config=config,
        inputs=count_channels(input_blocks(small.task)) + count_channels(forcing_blocks(small.task)),
        outputs=count_channels(target_blocks(small.task)),
    )
    params = {
        module: _fresh(shapes, random)
        if module not in small.params
        else {
            name: _widened(np.asarray(small.params[module][name]), shape, old.latent_size, random)
            for name, shape in shapes.items()
        }
        for module, shapes in network.parameter_shapes().items()
    }
    return replace(small, params=params, config=config)


def _widened(
    array: np.ndarray, shape: tuple[int, ...], latent: int, random: np.random.Generator
) -> np.ndarray:
    """Parameters of one layer with each latent feature ``copies`` times, in and out.

    Latents lie side by side in the input of a layer that takes several; each is repeated in its place.
    """
    if array.shape[-1] != shape[-1]:
        array = np.tile(array, shape[-1] // array.shape[-1])
    if array.shape == shape:
        return array
    parts, copies = array.shape[0] // latent, shape[0] // array.shape[0]
    blocks = array.reshape(parts, latent, -1)
    shares = 1 + _SPREAD * random.uniform(-1, 1, (parts, copies, *blocks.shape[1:]))
    shares /= shares.sum(axis=1, keepdims=True)
    return (blocks[:, None] * shares).reshape(shape).astype(array.dtype)


def _fresh(shapes: Mapping[str, tuple[int, ...]], random: np.random.Generator) -> dict[str, np.ndarray]:
    """A layer of an added step; normalisations are 0."""
    return {
        name: (
            np.clip(random.standard_normal(shape), -2, 2) / np.sqrt(shape[0])
            if name == "w"
            else np.zeros(shape)
        ).astype(np.float32)
        for name, shape in shapes.items()
    }
