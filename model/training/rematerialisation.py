"""Trading memory for computation in training: what is computed again in the backward pass instead of kept.

The original GraphCast was trained at 0.25° on 32 GB devices by keeping the mesh's state every three
message-passing steps, and neither the encoder's nor the decoder's activations (Lam et al. 2023, supplement 4.6).
Each level here is a setting; none changes a gradient beyond rounding.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import jax

from model.graphcast import GraphCastNetwork
from model.graphs.graph_network import Parameters

_PROCESSOR = "mesh_gnn/~_networks_builder/processor_nodes"


@dataclass(frozen=True, kw_only=True)
class Rematerialisation:
    """What is not kept for the backward pass.

    Args:
        encoder, decoder: all activations inside the encoder and the decoder.
        message_steps: keep edges and nodes of the mesh only every so many message-passing steps; 0 keeps all.
        perceptrons: activations inside every MLP behind its first layer, edge updates above all.
        rollout_steps: everything but the states between the steps of a rollout.
    """

    encoder: bool = False
    decoder: bool = False
    message_steps: int = 0
    perceptrons: bool = False
    rollout_steps: bool = False

    def __post_init__(self) -> None:
        if self.message_steps < 0:
            raise ValueError(f"message_steps: expected at least 0, got {self.message_steps}")


LEVELS = (
    Rematerialisation(),
    Rematerialisation(rollout_steps=True),
    Rematerialisation(rollout_steps=True, encoder=True, decoder=True),
    Rematerialisation(rollout_steps=True, encoder=True, decoder=True, message_steps=3),
    Rematerialisation(rollout_steps=True, encoder=True, decoder=True, message_steps=3, perceptrons=True),
)
"""From everything kept to the least memory; each costs at most about one more forward pass than the one before."""


@dataclass(frozen=True, kw_only=True)
class RematerialisedGraphCast(GraphCastNetwork):
    """The same network, keeping less.

    Args:
        keep_less: what is not kept; its ``rollout_steps`` is the loss's affair.
    """

    keep_less: Rematerialisation

    @classmethod
    def of(cls, network: GraphCastNetwork, keep_less: Rematerialisation) -> RematerialisedGraphCast:
        """That network with these settings."""
        shape = {field.name: getattr(network, field.name) for field in fields(GraphCastNetwork)}
        return cls(**shape, keep_less=keep_less)

    def _encode(self, *arguments: Any) -> tuple[jax.Array, jax.Array]:
        encode = super()._encode
        return (jax.checkpoint(encode) if self.keep_less.encoder else encode)(*arguments)

    def _decode(self, *arguments: Any) -> jax.Array:
        decode = super()._decode
        return (jax.checkpoint(decode) if self.keep_less.decoder else decode)(*arguments)

    def _process(self, steps: Parameters, structure: Any, edges: jax.Array, mesh: jax.Array) -> jax.Array:
        every = self.keep_less.message_steps
        if not every:
            return super()._process(steps, structure, edges, mesh)
        group = jax.checkpoint(self._message_steps)
        for first in range(0, self.config.gnn_msg_steps, every):
            some = jax.tree.map(lambda stacked, first=first: stacked[first : first + every], steps)
            edges, mesh = group(some, structure, edges, mesh)
        return mesh

    def _block_after_first_layer(self, params: Parameters, name: str, x: jax.Array) -> jax.Array:
        rest = functools.partial(super()._block_after_first_layer, name=name)
        if not self.keep_less.perceptrons:
            return rest(params, x=x)
        return jax.checkpoint(lambda params, x: rest(params, x=x))(params, x)


def least_saving_that_fits(
    peak_bytes: Callable[[Rematerialisation], int], available_bytes: int
) -> Rematerialisation | None:
    """The first of ``LEVELS`` whose peak fits, None if none does.

    Args:
        peak_bytes: the memory plan: the peak with some settings, from a compiled program's memory analysis.
        available_bytes: of the device.
    """
    return next((level for level in LEVELS if peak_bytes(level) <= available_bytes), None)


def compiled_peak_bytes(function: Callable[..., Any], *arguments: Any) -> int:
    """What a program needs at its peak by its compiler's own account: arguments, results, temporaries.

    Args:
        function: to be compiled for the default device, not run.
        arguments: arrays or their ``jax.ShapeDtypeStruct``.
    """
    analysis = jax.jit(function).lower(*arguments).compile().memory_analysis()
    return int(
        analysis.argument_size_in_bytes
        + analysis.output_size_in_bytes
        + analysis.temp_size_in_bytes
        - analysis.alias_size_in_bytes
    )
