"""GraphCast's graphs as arrays on a device, and what the network makes of them alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax

from model.graphs.chunks import ReceiverChunks


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Structure:
    """The graphs as arrays on a device: who sends to whom, and spatial features.

    Args:
        grid_features, mesh_features: shape (node, 3).
        grid_to_mesh: edges in chunks by receiver.
        mesh: edges of the multi-mesh in chunks of rows, or what another processor needs.
        mesh_to_grid_senders: corners of the triangle around each grid point, int32, shape (grid, 3).
        mesh_to_grid_features: shape (grid, 3, 4).
    """

    grid_features: jax.Array
    mesh_features: jax.Array
    grid_to_mesh: ReceiverChunks
    mesh: Any
    mesh_to_grid_senders: jax.Array
    mesh_to_grid_features: jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class StructureEmbedding:
    """What the network makes of the structure alone, in the layout of ``Structure``.

    Args:
        grid_features: spatial features of the grid points, shape (grid, 3).
        grid_to_mesh: edges' and receivers' part of the first layer of the edge update, with its bias; None if edges
            are embedded chunk by chunk in the forward pass, as ``recompute.edge_chunks`` says.
        grid_to_mesh_receivers: the receivers' part alone, with the bias, shape (mesh, latent), in that case.
        mesh_nodes: embedded mesh vertices, shape (mesh, latent).
        mesh_nodes_update: their part of the first layer of the node update, with its bias.
        mesh_edges: embedded edges of the multi-mesh; None if the processor has none.
        mesh_to_grid: edges' part of the first layer of the edge update, with its bias, or None likewise.
        processor: parameters of the processor's steps, by name, each stacked over the steps.
    """

    grid_features: jax.Array
    grid_to_mesh: jax.Array | None
    grid_to_mesh_receivers: jax.Array | None
    mesh_nodes: jax.Array
    mesh_nodes_update: jax.Array
    mesh_edges: jax.Array | None
    mesh_to_grid: jax.Array | None
    processor: dict[str, dict[str, jax.Array]]
