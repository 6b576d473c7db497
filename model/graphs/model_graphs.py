"""The three graphs of a model on a grid: grid to mesh, the multi-mesh, mesh to grid.

Edges are laid out by receiver so that their messages can be summed without scattering:

- mesh to grid: the three corners of the containing triangle, grid point by grid point;
- multi-mesh: level by level, coarsest first; within a level receiver by receiver with ``SLOTS`` edges each. The
  twelve corners of the icosahedron have five neighbours on every level, so their last slot is empty: it repeats
  the receiver as sender, has zero features and must not be summed;
- grid to mesh: ascending by receiver, any number each.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model.graphs.graph_features import edge_features, latitude_longitude, node_features
from model.graphs.grid_mesh_edges import containing_faces, edges_within_radius, grid_positions
from model.graphs.icosahedral_mesh import TriangularMesh, directed_edges, longest_edge, mesh_hierarchy

SLOTS = 6
"""Edges into a vertex from its neighbours on one level."""
CORNERS = 12
"""Vertices of the icosahedron, first among the vertices of every mesh, with one neighbour fewer."""


@dataclass(frozen=True, kw_only=True)
class EdgeSet:
    """Directed edges with spatial features.

    Args:
        senders, receivers: node numbers, int32, shape (edge,).
        features: length and relative position, float32, shape (edge, 4).
    """

    senders: np.ndarray
    receivers: np.ndarray
    features: np.ndarray

    def __post_init__(self) -> None:
        edges = self.senders.shape[0]
        if self.receivers.shape != (edges,) or self.features.shape != (edges, 4):
            raise ValueError(
                f"expected {edges} receivers and features ({edges}, 4), "
                f"got {self.receivers.shape} and {self.features.shape}"
            )


@dataclass(frozen=True, kw_only=True)
class GridMeshGraphs:
    """The two graphs between a grid and one mesh.

    Args:
        grid_features, mesh_features: of the nodes, float32, shape (node, 3).
        grid_to_mesh: edges of grid points to mesh vertices within a radius, ascending by receiver.
        mesh_to_grid: edges of triangle corners to the grid point inside, three for each grid point in order.
    """

    grid_features: np.ndarray
    mesh_features: np.ndarray
    grid_to_mesh: EdgeSet
    mesh_to_grid: EdgeSet


@dataclass(frozen=True, kw_only=True)
class ModelGraphs(GridMeshGraphs):
    """The graphs of GraphCast.

    Args:
        mesh: edges of the multi-mesh, laid out as the module says.
        level_sizes: number of vertices of each level, coarsest first.
    """

    mesh: EdgeSet
    level_sizes: tuple[int, ...]


def grid_mesh_graphs(
    *,
    latitude: np.ndarray,
    longitude: np.ndarray,
    mesh: TriangularMesh,
    radius_fraction: float,
    normalization: float | None = None,
) -> GridMeshGraphs:
    """The graphs between a grid and a mesh.

    Args:
        latitude, longitude: of the grid, degrees, shape (latitude,) and (longitude,).
        mesh: the finest mesh.
        radius_fraction: reach of the grid-to-mesh edges as a fraction of the longest edge of the mesh.
        normalization: divisor of the mesh-to-grid edge features; None for their longest edge.
    """
    latitude, longitude = latitude.astype(np.float32), longitude.astype(np.float32)
    grid_longitude, grid_latitude = (axis.reshape(-1) for axis in np.meshgrid(longitude, latitude))
    mesh_latitude, mesh_longitude = latitude_longitude(mesh.vertices)
    positions = grid_positions(latitude, longitude)
    grid_numbers, mesh_numbers = edges_within_radius(positions, mesh, longest_edge(mesh) * radius_fraction)
    order = np.argsort(mesh_numbers, kind="stable")
    grid_numbers, mesh_numbers = grid_numbers[order], mesh_numbers[order]
    corners = mesh.faces[containing_faces(positions, mesh)].reshape(-1)
    grid_points = np.repeat(np.arange(positions.shape[0], dtype=np.int32), 3)
    return GridMeshGraphs(
        grid_features=node_features(grid_latitude, grid_longitude),
        mesh_features=node_features(mesh_latitude, mesh_longitude),
        grid_to_mesh=EdgeSet(
            senders=grid_numbers,
            receivers=mesh_numbers,
            features=edge_features(
                sender_latitude=grid_latitude,
                sender_longitude=grid_longitude,
                receiver_latitude=mesh_latitude,
                receiver_longitude=mesh_longitude,
                senders=grid_numbers,
                receivers=mesh_numbers,
            ),
        ),
        mesh_to_grid=EdgeSet(
            senders=corners,
            receivers=grid_points,
            features=edge_features(
                sender_latitude=mesh_latitude,
                sender_longitude=mesh_longitude,
                receiver_latitude=grid_latitude,
                receiver_longitude=grid_longitude,
                senders=corners,
                receivers=grid_points,
                normalization=normalization,
            ),
        ),
    )


def multi_mesh_edges(meshes: tuple[TriangularMesh, ...]) -> EdgeSet:
    """The edges of all levels of a hierarchy, laid out as the module says.

    Args:
        meshes: as from ``mesh_hierarchy``, coarsest first.
    """
    senders, receivers, empty = [], [], []
    for mesh in meshes:
        size = mesh.vertices.shape[0]
        level_senders, level_receivers = directed_edges(mesh.faces)
        order = np.argsort(level_receivers, kind="stable")
        slot = np.arange(size, dtype=np.int32)[:, None].repeat(SLOTS, axis=1)
        filled = np.ones((size, SLOTS), dtype=bool)
        filled[:CORNERS, -1] = False
        slot[filled] = level_senders[order]
        senders.append(slot.reshape(-1))
        receivers.append(np.arange(size, dtype=np.int32).repeat(SLOTS))
        empty.append(~filled.reshape(-1))
    all_senders, all_receivers = np.concatenate(senders), np.concatenate(receivers)
    latitude, longitude = latitude_longitude(meshes[-1].vertices)
    features = edge_features(
        sender_latitude=latitude,
        sender_longitude=longitude,
        receiver_latitude=latitude,
        receiver_longitude=longitude,
        senders=all_senders,
        receivers=all_receivers,
    )
    features[np.concatenate(empty)] = 0
    return EdgeSet(senders=all_senders, receivers=all_receivers, features=features)


def model_graphs(
    *,
    latitude: np.ndarray,
    longitude: np.ndarray,
    mesh_size: int,
    radius_fraction: float,
    normalization: float | None = None,
) -> ModelGraphs:
    """All graphs of GraphCast for a grid; arguments as for ``grid_mesh_graphs`` and ``mesh_hierarchy``."""
    meshes = mesh_hierarchy(mesh_size)
    between = grid_mesh_graphs(
        latitude=latitude,
        longitude=longitude,
        mesh=meshes[-1],
        radius_fraction=radius_fraction,
        normalization=normalization,
    )
    return ModelGraphs(
        **vars(between),
        mesh=multi_mesh_edges(meshes),
        level_sizes=tuple(mesh.vertices.shape[0] for mesh in meshes),
    )
