"""The graphs between grid and mesh, laid out for the denoiser."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from model.gencast.attention import Attention
from model.graphs.chunks import ReceiverChunks, chunk_by_receiver
from model.graphs.model_graphs import GridMeshGraphs

EDGES_PER_CHUNK = 2048
"""Edges whose messages are in memory at once: a few MB at latent size 512, which fit a processor's cache."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class DenoiserStructure:
    """What the denoiser knows of grid and mesh, as arrays on a device.

    Args:
        grid_features, mesh_features: shape (node, 3).
        grid_to_mesh: edges to the mesh.
        grid_to_mesh_counts: edges into each mesh node, float32, shape (mesh, 1).
        mesh_to_grid_senders: the corners of the triangle around each grid point, int32, shape (grid, 3).
        mesh_to_grid_features: shape (grid, 3, 4).
        attention_masks: as the attention wants them.
    """

    grid_features: jax.Array
    mesh_features: jax.Array
    grid_to_mesh: ReceiverChunks
    grid_to_mesh_counts: jax.Array
    mesh_to_grid_senders: jax.Array
    mesh_to_grid_features: jax.Array
    attention_masks: Any


def denoiser_structure(
    graphs: GridMeshGraphs, attention: Attention, *, dtype: jnp.dtype = jnp.float32
) -> DenoiserStructure:
    """The graphs as arrays, features in ``dtype``."""
    nodes = graphs.mesh_features.shape[0]
    counts = np.bincount(graphs.grid_to_mesh.receivers, minlength=nodes)
    return DenoiserStructure(
        grid_features=jnp.asarray(graphs.grid_features, dtype),
        mesh_features=jnp.asarray(graphs.mesh_features, dtype),
        grid_to_mesh=chunk_by_receiver(graphs.grid_to_mesh, nodes=nodes, size=EDGES_PER_CHUNK, dtype=dtype),
        grid_to_mesh_counts=jnp.asarray(counts[:, None], jnp.float32),
        mesh_to_grid_senders=jnp.asarray(graphs.mesh_to_grid.senders.reshape(-1, 3)),
        mesh_to_grid_features=jnp.asarray(graphs.mesh_to_grid.features.reshape(-1, 3, 4), dtype),
        attention_masks=jax.tree.map(jnp.asarray, attention.masks()),
    )
