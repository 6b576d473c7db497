"""The graphs between grid and mesh, laid out for the denoiser."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from model.gencast.attention import Attention
from model.graphs.model_graphs import EdgeSet, GridMeshGraphs

EDGES_PER_CHUNK = 2048
"""Edges whose messages are in memory at once: a few MB at latent size 512, which fit a processor's cache."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class ReceiverChunks:
    """Edges ascending by receiver, in chunks of equal size that reach few receivers each.

    Args:
        senders: int32, shape (chunk, edge).
        receivers: counted from the chunk's first, −1 for the padding of the last chunk, int32, (chunk, edge).
        first_receivers: int32, shape (chunk,).
        features: shape (chunk, edge, 4), 0 for padding.
        counts: edges into each node, float32, shape (node, 1).
        span: at least the number of receivers any chunk reaches.
    """

    senders: jax.Array
    receivers: jax.Array
    first_receivers: jax.Array
    features: jax.Array
    counts: jax.Array
    span: int = field(metadata={"static": True})


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class DenoiserStructure:
    """What the denoiser knows of grid and mesh, as arrays on a device.

    Args:
        grid_features, mesh_features: shape (node, 3).
        grid_to_mesh: edges to the mesh.
        mesh_to_grid_senders: the corners of the triangle around each grid point, int32, shape (grid, 3).
        mesh_to_grid_features: shape (grid, 3, 4).
        attention_masks: as the attention wants them.
    """

    grid_features: jax.Array
    mesh_features: jax.Array
    grid_to_mesh: ReceiverChunks
    mesh_to_grid_senders: jax.Array
    mesh_to_grid_features: jax.Array
    attention_masks: Any


def denoiser_structure(
    graphs: GridMeshGraphs, attention: Attention, *, dtype: jnp.dtype = jnp.float32
) -> DenoiserStructure:
    """The graphs as arrays, features in ``dtype``."""
    return DenoiserStructure(
        grid_features=jnp.asarray(graphs.grid_features, dtype),
        mesh_features=jnp.asarray(graphs.mesh_features, dtype),
        grid_to_mesh=_chunk_by_receiver(
            graphs.grid_to_mesh, nodes=graphs.mesh_features.shape[0], dtype=dtype
        ),
        mesh_to_grid_senders=jnp.asarray(graphs.mesh_to_grid.senders.reshape(-1, 3)),
        mesh_to_grid_features=jnp.asarray(graphs.mesh_to_grid.features.reshape(-1, 3, 4), dtype),
        attention_masks=jax.tree.map(jnp.asarray, attention.masks()),
    )


def _chunk_by_receiver(edges: EdgeSet, *, nodes: int, dtype: jnp.dtype) -> ReceiverChunks:
    count = edges.receivers.size
    chunks = -(-count // EDGES_PER_CHUNK)
    size = -(-count // chunks)
    padding = chunks * size - count
    senders = np.pad(edges.senders, (0, padding)).reshape(chunks, size)
    receivers = np.pad(edges.receivers, (0, padding), mode="edge").reshape(chunks, size)
    span = min(int((receivers[:, -1] - receivers[:, 0]).max()) + 1, nodes)
    first = np.minimum(receivers[:, 0], nodes - span)
    relative = receivers - first[:, None]
    relative[-1, size - padding :] = -1
    features = np.pad(edges.features, ((0, padding), (0, 0))).reshape(chunks, size, -1)
    return ReceiverChunks(
        senders=jnp.asarray(senders, jnp.int32),
        receivers=jnp.asarray(relative, jnp.int32),
        first_receivers=jnp.asarray(first, jnp.int32),
        features=jnp.asarray(features, dtype),
        counts=jnp.asarray(np.bincount(edges.receivers, minlength=nodes)[:, None], jnp.float32),
        span=span,
    )


def largest_chunk(count: int, limit: int) -> int:
    """The largest divisor of ``count`` up to ``limit``, ``count`` if that is below a tenth of ``limit``."""
    for size in range(min(limit, count), 0, -1):
        if count % size == 0:
            return size if 10 * size >= min(limit, count) else count
    return count
