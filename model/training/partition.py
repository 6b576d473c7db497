"""One large sample over several devices: each has its part of the grid points and of the vertices of the mesh.

An edge from the grid to the mesh lies with its grid point, every other edge with its receiver. So the encoder's
messages are added up where they are made, and the sums brought together at the vertices' owners (reduce-scatter);
before each message-passing step and before the decoder the vertices' share of the senders is gathered. What is
large, features of grid points and edges, is never copied.

Vertices are dealt out in turn, as those of coarse levels, which have the lowest numbers, have the most edges.
All functions of the network run inside ``jax.shard_map``; see ``model.training.parallel``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from model.errors import UnknownOptionError
from model.graphcast import GraphCastNetwork, Structure, StructureEmbedding
from model.graphcast_config import SPARSE_TRANSFORMER
from model.graphs.chunks import ReceiverChunks, SlotChunks, sum_chunks_by_receiver
from model.graphs.graph_network import Parameters
from model.graphs.model_graphs import CORNERS, SLOTS, EdgeSet, ModelGraphs
from model.training.family_losses import Batch, GraphCastLoss
from model.training.parallel import SAMPLE

EDGES_PER_CHUNK = 6144


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class OwnedRows(SlotChunks):
    """The multi-mesh's edges into the vertices of one device; receivers by their number on it.

    Args:
        filled: whether a slot has an edge, shape (chunk, row, slot).
    """

    filled: jax.Array


@dataclass(frozen=True, kw_only=True)
class PartitionedGraphCast(GraphCastNetwork):
    """GraphCast on the part of one device.

    Args:
        vertices: of each device, including those that only fill up.
    """

    vertices: int

    def embed_structure(self, params: Parameters, structure: Structure) -> StructureEmbedding:
        """As the whole network's; of the vertices only those of the device are kept."""
        whole = super().embed_structure(params, structure)
        first = jax.lax.axis_index(SAMPLE) * self.vertices

        def own(nodes: jax.Array) -> jax.Array:
            return jax.lax.dynamic_slice_in_dim(nodes, first, self.vertices)

        return dataclasses.replace(
            whole, mesh_nodes=own(whole.mesh_nodes), mesh_nodes_update=own(whole.mesh_nodes_update)
        )

    def _sum_at_mesh(
        self, messages: Callable[..., jax.Array], edges: jax.Array, structure: Structure
    ) -> jax.Array:
        sums = sum_chunks_by_receiver(
            messages,
            edges,
            structure.grid_to_mesh,
            nodes=structure.mesh_features.shape[0],
            features=self.config.latent_size,
            recompute=self.recompute.edge_chunks,
        )
        return jax.lax.psum_scatter(sums, SAMPLE, tiled=True)

    def _everywhere(self, mesh: jax.Array) -> jax.Array:
        return jax.lax.all_gather(mesh, SAMPLE, tiled=True)

    def _rows(self, structure: Any) -> tuple[jax.Array, ...]:
        return structure.senders, structure.receivers, ~structure.filled

    def _sum_rows(self, rows: jax.Array, structure: SlotChunks) -> jax.Array:
        total = jnp.zeros((self.vertices, rows.shape[-1]), rows.dtype)
        return total.at[structure.receivers.reshape(-1)].add(rows)


@dataclass(frozen=True, kw_only=True)
class _Points:
    """Grid points in a row, where a grid is asked for its shape."""

    shape: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class PartitionedGraphCastLoss(GraphCastLoss):
    """GraphCast's loss on several devices: on each the sum over its grid points, which add up to the whole.

    Args:
        area: weight of each grid point, shape (part, point), 0 for those that fill up.
    """

    area: jax.Array

    @classmethod
    def of(cls, loss: GraphCastLoss, graphs: ModelGraphs, parts: int) -> Self:
        """That loss in parts.

        Raises:
            UnknownOptionError: the processor is one that cannot be partitioned.
        """
        network = loss.network
        if network.config.processor_kind == SPARSE_TRANSFORMER:
            raise UnknownOptionError(
                "processor: expected message passing to divide a sample over devices, got a sparse transformer"
            )
        count = graphs.grid_features.shape[0]
        points = -(-count // parts)
        shape = {f.name: getattr(network, f.name) for f in dataclasses.fields(GraphCastNetwork)}
        area = _fill(np.asarray(loss.weights.area), parts * points, mode="constant") * (points / count)
        rest = {f.name: getattr(loss, f.name) for f in dataclasses.fields(GraphCastLoss)}
        step = dataclasses.replace(loss.model_step, grid=_Points(shape=(1, points)))  # type: ignore[arg-type]
        structure = partition_structure(graphs, parts, dtype=jnp.dtype(loss.precision))
        return cls(
            **rest
            | {
                "network": PartitionedGraphCast(**shape, vertices=-(-graphs.mesh_features.shape[0] // parts)),
                "structure": structure,
                "model_step": step,
                "statics": {name: _divide(np.asarray(field), parts) for name, field in loss.statics.items()},
                "area": jnp.asarray(area.reshape(parts, points)),
            }
        )

    @property
    def arrays(self) -> Any:
        """Graphs, statics and weights, all with a leading axis over the parts."""
        return self.structure, dict(self.statics), self.area

    def with_arrays(self, arrays: Any) -> Self:
        """The same for the part these arrays are."""
        weights = dataclasses.replace(self.weights, area=arrays[2])
        return dataclasses.replace(
            self, structure=arrays[0], statics=arrays[1], area=arrays[2], weights=weights
        )

    def prepare(self, batch: Batch) -> Batch:
        """Fields (…, latitude, longitude) as (…, 1, grid point), filled up to equal parts; or their shapes."""
        points = self.area.size

        def flat(array: Any) -> Any:
            if isinstance(array, jax.ShapeDtypeStruct):
                return jax.ShapeDtypeStruct((*array.shape[:-2], 1, points), array.dtype)
            return _fill(array.reshape(*array.shape[:-2], 1, -1), points)

        return jax.tree.map(flat, batch)


def partition_structure(graphs: ModelGraphs, parts: int, *, dtype: jnp.dtype = jnp.float32) -> Structure:
    """The graphs in equal parts, stacked on a leading axis; every part has the features of the whole mesh."""
    grid, mesh = graphs.grid_features.shape[0], graphs.mesh_features.shape[0]
    points, vertices = -(-grid // parts), -(-mesh // parts)
    # Vertex v is number v // parts of device v % parts.
    order = np.arange(parts * vertices).reshape(vertices, parts).T.reshape(-1)
    number = np.empty(parts * vertices, np.int32)
    number[order] = np.arange(parts * vertices)
    mesh_features = _fill(graphs.mesh_features.T, parts * vertices).T[order]
    corners = number[graphs.mesh_to_grid.senders].reshape(-1, 3)
    features = graphs.mesh_to_grid.features.reshape(-1, 3, 4)
    return Structure(
        grid_features=jnp.asarray(_divide_rows(graphs.grid_features, parts), dtype),
        mesh_features=jnp.asarray(np.broadcast_to(mesh_features, (parts, *mesh_features.shape)), dtype),
        grid_to_mesh=_by_sender(graphs.grid_to_mesh, number, parts, points, dtype),
        mesh=_by_receiver(graphs.mesh, number, parts, vertices, dtype),
        mesh_to_grid_senders=jnp.asarray(_divide_rows(corners, parts), jnp.int32),
        mesh_to_grid_features=jnp.asarray(_divide_rows(features, parts), dtype),
    )


def _by_sender(
    edges: EdgeSet, number: np.ndarray, parts: int, points: int, dtype: jnp.dtype
) -> ReceiverChunks:
    """Edges from the grid, each with its sender's part, ascending by the new number of the receiver."""
    receivers = number[edges.receivers]
    owners = edges.senders // points
    chosen = [np.flatnonzero(owners == part) for part in range(parts)]
    chosen = [edge[np.argsort(receivers[edge], kind="stable")] for edge in chosen]
    most = max(edge.size for edge in chosen)
    chunks = max(-(-most // EDGES_PER_CHUNK), 1)
    size = -(-most // chunks)
    padded = np.stack([_fill(edge, chunks * size) for edge in chosen]).reshape(parts, chunks, size)
    real = np.stack([np.arange(chunks * size) < edge.size for edge in chosen]).reshape(padded.shape)
    by_chunk = receivers[padded]
    span = int((by_chunk.max(axis=-1) - by_chunk.min(axis=-1)).max()) + 1
    first = np.minimum(by_chunk.min(axis=-1), number.size - span)
    return ReceiverChunks(
        senders=jnp.asarray(edges.senders[padded] % points, jnp.int32),
        receivers=jnp.asarray(np.where(real, by_chunk - first[..., None], -1), jnp.int32),
        first_receivers=jnp.asarray(first, jnp.int32),
        features=jnp.asarray(edges.features[padded] * real[..., None], dtype),
        span=span,
    )


def _by_receiver(
    edges: EdgeSet, number: np.ndarray, parts: int, vertices: int, dtype: jnp.dtype
) -> OwnedRows:
    """Rows of the multi-mesh, each with its receiver's part."""
    receivers = edges.receivers[::SLOTS]
    senders = number[edges.senders].reshape(-1, SLOTS)
    features = edges.features.reshape(-1, SLOTS, 4)
    filled = ~((receivers < CORNERS)[:, None] & (np.arange(SLOTS) == SLOTS - 1))
    owners = number[receivers] // vertices
    chosen = [np.flatnonzero(owners == part) for part in range(parts)]
    most = max(row.size for row in chosen)
    chunks = -(-most * SLOTS // EDGES_PER_CHUNK)
    size = -(-most // chunks)
    padded = np.stack([_fill(row, chunks * size) for row in chosen]).reshape(parts, chunks, size)
    real = np.stack([np.arange(chunks * size) < row.size for row in chosen]).reshape(padded.shape)
    return OwnedRows(
        senders=jnp.asarray(senders[padded], jnp.int32),
        receivers=jnp.asarray(number[receivers[padded]] % vertices, jnp.int32),
        features=jnp.asarray(features[padded] * real[..., None, None], dtype),
        filled=jnp.asarray(filled[padded] & real[..., None]),
    )


def _fill(array: np.ndarray, size: int, *, mode: Any = "edge") -> np.ndarray:
    """The last axis made as long, by repeating its last entry or with zeros."""
    return np.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, size - array.shape[-1])], mode=mode)


def _divide_rows(array: np.ndarray, parts: int) -> np.ndarray:
    """The first axis in equal parts, filled up by repeating its last entry."""
    size = -(-array.shape[0] // parts)
    padded = np.moveaxis(_fill(np.moveaxis(array, 0, -1), parts * size), -1, 0)
    return padded.reshape(parts, size, *array.shape[1:])


def _divide(field: np.ndarray, parts: int) -> jax.Array:
    """(latitude, longitude) to (part, 1, point)."""
    return jnp.asarray(_divide_rows(field.reshape(-1), parts)[:, None])
