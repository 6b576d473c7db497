"""Work on many nodes or edges a chunk at a time, so that what lies between two products stays in the cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from model.graphs.model_graphs import SLOTS, EdgeSet
from model.precision import accumulation_type

Arrays = TypeVar("Arrays")
Result = TypeVar("Result")


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class ReceiverChunks:
    """Edges ascending by receiver, in chunks of equal size.

    Args:
        senders: int32, shape (chunk, edge).
        receivers: counted from the chunk's first, −1 for padding, int32, shape (chunk, edge).
        first_receivers: int32, shape (chunk,).
        features: shape (chunk, edge, 4), 0 for padding.
        span: no chunk reaches more receivers than this.
    """

    senders: jax.Array
    receivers: jax.Array
    first_receivers: jax.Array
    features: jax.Array
    span: int = field(metadata={"static": True})


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class SlotChunks:
    """The edges of the multi-mesh: rows of ``SLOTS`` edges into one receiver, in chunks of equal size.

    Args:
        senders: int32, shape (chunk, row, slot).
        receivers: of each row, int32, shape (chunk, row); padding rows at the end belong to vertex 0.
        features: shape (chunk, row, slot, 4), 0 for padding.
    """

    senders: jax.Array
    receivers: jax.Array
    features: jax.Array


def chunk_by_receiver(edges: EdgeSet, *, nodes: int, size: int, dtype: jnp.dtype) -> ReceiverChunks:
    """Cut edges ascending by receiver into chunks of at most ``size``."""
    count = edges.receivers.size
    chunks = -(-count // size)
    size = -(-count // chunks)
    padding = chunks * size - count
    receivers = np.pad(edges.receivers, (0, padding), mode="edge").reshape(chunks, size)
    span = min(int((receivers[:, -1] - receivers[:, 0]).max()) + 1, nodes)
    first = np.minimum(receivers[:, 0], nodes - span)
    relative = receivers - first[:, None]
    relative.reshape(-1)[count:] = -1
    features = np.pad(edges.features, ((0, padding), (0, 0))).reshape(chunks, size, -1)
    return ReceiverChunks(
        senders=jnp.asarray(np.pad(edges.senders, (0, padding)).reshape(chunks, size), jnp.int32),
        receivers=jnp.asarray(relative, jnp.int32),
        first_receivers=jnp.asarray(first, jnp.int32),
        features=jnp.asarray(features, dtype),
        span=span,
    )


def chunk_slots(edges: EdgeSet, *, size: int, dtype: jnp.dtype) -> SlotChunks:
    """Cut the edges of a multi-mesh into chunks of at most ``size`` edges."""
    rows = edges.receivers.size // SLOTS
    chunks = -(-edges.receivers.size // size)
    per_chunk = -(-rows // chunks)
    padding = chunks * per_chunk - rows

    def cut(array: np.ndarray) -> np.ndarray:
        padded = np.pad(array, [(0, padding), *[(0, 0)] * (array.ndim - 1)])
        return padded.reshape(chunks, per_chunk, *array.shape[1:])

    return SlotChunks(
        senders=jnp.asarray(cut(edges.senders.reshape(rows, SLOTS)), jnp.int32),
        receivers=jnp.asarray(cut(edges.receivers[::SLOTS]), jnp.int32),
        features=jnp.asarray(cut(edges.features.reshape(rows, SLOTS, -1)), dtype),
    )


def map_chunks(function: Callable[[Arrays], Result], arrays: Arrays, *, size: int) -> Result:
    """Apply a function that treats the entries of the leading axis apart to chunks of at most ``size``.

    Args:
        function: from arrays to arrays, all with the same leading axis.
        arrays: a pytree.
    """
    count = jax.tree.leaves(arrays)[0].shape[0]
    fewest = -(-count // size)
    if fewest <= 1:
        return function(arrays)
    # Rather a few more chunks than a remainder, which is a second program.
    chunks = next((n for n in range(fewest, fewest + fewest // 4 + 1) if count % n == 0), fewest)
    even = count // chunks
    remainder = count - even * chunks

    def cut(array: jax.Array) -> jax.Array:
        return array[: even * chunks].reshape(chunks, even, *array.shape[1:])

    mapped = jax.lax.map(function, jax.tree.map(cut, arrays))
    mapped = jax.tree.map(lambda a: a.reshape(chunks * even, *a.shape[2:]), mapped)
    if not remainder:
        return mapped
    rest = function(jax.tree.map(lambda a: a[even * chunks :], arrays))
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), mapped, rest)


def sum_chunks_by_receiver(
    function: Callable[[Arrays, jax.Array, jax.Array], jax.Array],
    arrays: Arrays,
    chunks: ReceiverChunks,
    *,
    nodes: int,
    features: int,
    recompute: bool = False,
) -> jax.Array:
    """Sum of the messages into each node, float32 or float64, shape (node, feature), a chunk of edges at a time.

    Few nodes receive a chunk, so its messages are summed by a product with ones and zeros, not scattered.

    Args:
        function: from a chunk of ``arrays``, its senders and its receivers' numbers, to messages (edge, feature).
        arrays: a pytree of arrays by chunk.
        nodes, features: sizes of the result.
        recompute: in a backward pass what lies inside a chunk instead of keeping it.
    """
    dtype = accumulation_type(chunks.features.dtype)

    def sums(chunk: tuple[Arrays, jax.Array, jax.Array, jax.Array]) -> jax.Array:
        part, senders, receivers, first = chunk
        messages = function(part, senders, first + jnp.maximum(receivers, 0)).astype(dtype)
        belongs = (receivers == jnp.arange(chunks.span)[:, None]).astype(dtype)
        return jnp.matmul(belongs, messages, precision=jax.lax.Precision.HIGHEST)

    of_chunk = jax.checkpoint(sums) if recompute else sums

    def add(
        total: jax.Array, chunk: tuple[Arrays, jax.Array, jax.Array, jax.Array]
    ) -> tuple[jax.Array, None]:
        first = chunk[3]
        here = jax.lax.dynamic_slice_in_dim(total, first, chunks.span) + of_chunk(chunk)
        return jax.lax.dynamic_update_slice_in_dim(total, here, first, 0), None

    total = jnp.zeros((nodes, features), dtype)
    parts = (arrays, chunks.senders, chunks.receivers, chunks.first_receivers)
    if chunks.senders.shape[0] == 1:
        return add(total, jax.tree.map(lambda array: array[0], parts))[0]
    return jax.lax.scan(add, total, parts)[0]


def for_each_chunk(function: Callable[[Arrays], Result], arrays: Arrays) -> Result:
    """Apply a function to each entry of the leading axis, which counts chunks; without a loop if there is one."""
    if jax.tree.leaves(arrays)[0].shape[0] == 1:
        result = function(jax.tree.map(lambda array: array[0], arrays))
        return jax.tree.map(lambda array: array[None], result)
    return jax.lax.map(function, arrays)
