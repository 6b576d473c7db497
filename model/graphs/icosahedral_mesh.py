"""Refinements of the icosahedron on the unit sphere, and the multi-mesh made of all of them.

A mesh of refinement r has 10·4ʳ + 2 vertices and 20·4ʳ faces; the vertices of a coarser mesh come first among
those of a finer one, so one array of vertices serves the whole hierarchy (Lam et al. 2023, *Science* 382,
supplement 3.2).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

_GOLDEN_RATIO = (1 + np.sqrt(5)) / 2

# Counter-clockwise seen from outside. The order of faces and of the vertices in each is that under which the
# published checkpoints were trained: it fixes how refined vertices are numbered, and which of two triangles
# owns a grid point on their common edge.
_ICOSAHEDRON_FACES = (
    "0 1 2, 0 6 1, 8 0 2, 8 4 0, 3 8 2, 3 2 7, 7 2 1, 0 4 6, 4 11 6, 6 11 5, "
    "1 5 7, 4 10 11, 4 8 10, 10 8 3, 10 3 9, 11 10 9, 11 9 5, 5 9 7, 9 3 7, 1 6 5"
)


@dataclass(frozen=True, kw_only=True)
class TriangularMesh:
    """A triangulation of the unit sphere.

    Args:
        vertices: positions of unit length, float32, shape (vertex, 3).
        faces: vertex numbers, counter-clockwise from outside, int32, shape (face, 3).
    """

    vertices: np.ndarray
    faces: np.ndarray

    def __post_init__(self) -> None:
        for name, array in (("vertices", self.vertices), ("faces", self.faces)):
            if array.ndim != 2 or array.shape[1] != 3:
                raise ValueError(f"{name}: expected shape (n, 3), got {array.shape}")


def icosahedron() -> TriangularMesh:
    """The regular icosahedron inscribed in the unit sphere, one pair of faces normal to the polar axis."""
    corners = [
        corner
        for short, long in itertools.product((1.0, -1.0), (_GOLDEN_RATIO, -_GOLDEN_RATIO))
        for corner in ((short, long, 0.0), (0.0, short, long), (long, 0.0, short))
    ]
    vertices = np.array(corners, dtype=np.float32)
    vertices /= np.linalg.norm([1.0, _GOLDEN_RATIO])
    # Built so, an edge lies on top. Tilting by half the supplement of the dihedral angle brings up a face.
    dihedral_angle = 2 * np.arcsin(_GOLDEN_RATIO / np.sqrt(3))
    tilt = Rotation.from_euler("y", (np.pi - dihedral_angle) / 2).as_matrix()
    faces = np.array([face.split() for face in _ICOSAHEDRON_FACES.split(", ")], dtype=np.int32)
    return TriangularMesh(vertices=(vertices @ tilt).astype(np.float32), faces=faces)


def refine(mesh: TriangularMesh) -> TriangularMesh:
    """Split every face into four at the middles of its edges, pushed out to the sphere.

    New vertices are numbered as their edges are first met, face by face, edges in the order 01, 12, 20. The
    four faces of a face are those at its corners 0, 1, 2 and the middle one.
    """
    corner = mesh.faces
    edges = np.sort(np.stack([corner, np.roll(corner, -1, axis=1)], axis=-1).reshape(-1, 2), axis=1)
    unique_edges, first_met, number = np.unique(edges, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first_met)
    rank = np.empty_like(order)
    rank[order] = np.arange(order.size)
    parents = unique_edges[order]
    middles = (mesh.vertices[parents[:, 0]] + mesh.vertices[parents[:, 1]]) / np.float32(2)
    squares = (middles * middles).sum(axis=1, dtype=np.float64).astype(np.float32)
    middles /= np.sqrt(squares)[:, None]
    middle = (mesh.vertices.shape[0] + rank[number.reshape(-1)]).reshape(-1, 3).astype(np.int32)
    children = np.stack(
        [
            np.stack([corner[:, 0], middle[:, 0], middle[:, 2]], axis=1),
            np.stack([middle[:, 0], corner[:, 1], middle[:, 1]], axis=1),
            np.stack([middle[:, 2], middle[:, 1], corner[:, 2]], axis=1),
            np.stack([middle[:, 0], middle[:, 1], middle[:, 2]], axis=1),
        ],
        axis=1,
    )
    return TriangularMesh(vertices=np.concatenate([mesh.vertices, middles]), faces=children.reshape(-1, 3))


def mesh_hierarchy(refinements: int) -> tuple[TriangularMesh, ...]:
    """The icosahedron and its refinements, coarsest first: ``refinements + 1`` meshes.

    Raises:
        ValueError: negative refinements.
    """
    if refinements < 0:
        raise ValueError(f"refinements: expected at least 0, got {refinements}")
    meshes = [icosahedron()]
    for _ in range(refinements):
        meshes.append(refine(meshes[-1]))
    return tuple(meshes)


def directed_edges(faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Senders and receivers of the edges of a closed, consistently oriented surface, each (3·face,).

    Each face gives its edges 0→1, 1→2, 2→0; the neighbour across an edge gives the opposite direction, so
    every edge appears once in both directions.
    """
    return faces.T.reshape(-1), np.roll(faces, -1, axis=1).T.reshape(-1)


def longest_edge(mesh: TriangularMesh) -> np.float32:
    """Length of the longest edge as a chord of the unit sphere."""
    senders, receivers = directed_edges(mesh.faces)
    return np.linalg.norm(mesh.vertices[senders] - mesh.vertices[receivers], axis=-1).max()
