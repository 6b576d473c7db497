"""Trading memory for computation in training: what is computed again in the backward pass instead of kept.

The original GraphCast was trained at 0.25° on 32 GB devices by keeping the mesh's state every three
message-passing steps, and neither the encoder's nor the decoder's activations (Lam et al. 2023, supplement 4.6).
Each level here is a setting; none changes a gradient beyond rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import jax

Function = TypeVar("Function", bound=Callable[..., Any])
Carry = TypeVar("Carry")


@dataclass(frozen=True, kw_only=True)
class Rematerialisation:
    """What is not kept for the backward pass.

    Args:
        encoder, decoder: all activations inside the encoder and the decoder.
        message_steps: keep edges and nodes of the mesh only every so many message-passing steps; 0 keeps all.
        edge_chunks: what lies inside a chunk of edges or grid points; all edge updates and the points' MLPs run
            chunk by chunk.
        rollout_steps: everything but the states between the steps of a rollout.
    """

    encoder: bool = False
    decoder: bool = False
    message_steps: int = 0
    edge_chunks: bool = False
    rollout_steps: bool = False

    def __post_init__(self) -> None:
        if self.message_steps < 0:
            raise ValueError(f"message_steps: expected at least 0, got {self.message_steps}")


KEEP_ALL = Rematerialisation()
LEVELS = (
    KEEP_ALL,
    Rematerialisation(rollout_steps=True),
    Rematerialisation(rollout_steps=True, encoder=True, decoder=True),
    Rematerialisation(rollout_steps=True, encoder=True, decoder=True, message_steps=3),
    Rematerialisation(rollout_steps=True, encoder=True, decoder=True, message_steps=3, edge_chunks=True),
)
"""From everything kept to the least memory; each costs at most about one more forward pass than the one before."""


def recomputed(function: Function, *, when: bool) -> Function:
    """The function, keeping only its arguments for a backward pass if so wanted."""
    return cast(Function, jax.checkpoint(function)) if when else function


def in_groups(layers: Callable[[Carry, Any], Carry], carry: Carry, stacked: Any, *, kept_every: int) -> Carry:
    """Runs stacked layers, keeping for a backward pass only what goes from one group of them to the next.

    The groups are a loop, so that no compiler can compute several of them again at once, as XLA's for CPUs does with
    groups that stand one after the other.

    Args:
        layers: what some of the layers, stacked, make of the carry; the carry keeps its types and shapes.
        stacked: a pytree of arrays with a leading axis over the layers.
        kept_every: layers of a group; 0 keeps everything.
    """
    if not kept_every:
        return layers(carry, stacked)
    group = jax.checkpoint(layers)
    count = int(jax.tree.leaves(stacked)[0].shape[0])
    whole = count // kept_every

    def grouped(array: jax.Array) -> jax.Array:
        return array[: whole * kept_every].reshape(whole, kept_every, *array.shape[1:])

    def step(carry: Carry, some: Any) -> tuple[Carry, None]:
        return group(carry, some), None

    carry, _ = jax.lax.scan(step, carry, jax.tree.map(grouped, stacked))
    if count > whole * kept_every:
        carry = group(carry, jax.tree.map(lambda array: array[whole * kept_every :], stacked))
    return carry


def least_saving_that_fits(
    peak_bytes: Callable[[Rematerialisation], int], available_bytes: int
) -> Rematerialisation | None:
    """The first of ``LEVELS`` whose peak fits, None if none does.

    Args:
        peak_bytes: the memory plan: the peak with some settings, from a compiled program's memory analysis.
        available_bytes: of the device.
    """
    return next((level for level in LEVELS if peak_bytes(level) <= available_bytes), None)


def program_peak_bytes(program: jax.stages.Compiled) -> int:
    """What a compiled program needs on each device at its peak by its compiler's own account.

    Arguments, results and temporaries; what is donated counts once.

    Raises:
        NotImplementedError: this backend gives no account.
    """
    analysis = program.memory_analysis()
    if analysis is None:
        raise NotImplementedError("the compiler gives no account of memory on this backend")
    return int(
        analysis.argument_size_in_bytes
        + analysis.output_size_in_bytes
        + analysis.temp_size_in_bytes
        - analysis.alias_size_in_bytes
    )
