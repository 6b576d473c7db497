"""Which grid points and mesh vertices are joined: the radius query and the containing triangle.

Grid points are numbered row by row, latitude first: ``latitude_index * longitudes + longitude_index``.
"""

from __future__ import annotations

from itertools import chain

import numpy as np
from scipy.spatial import cKDTree

from model.graphs.icosahedral_mesh import TriangularMesh
from model.graphs.tie_breaking import BoundingBoxTree, bitonic_order

_CHUNK = 1 << 16
_FLAT = 1e-13
"""Scalar products below this count as zero."""
_ROUNDING = 1e-14
"""Squared distances closer than this to each other may be equal but for rounding."""
_TIE = 1e-8
"""Of triangles with squared distances beyond this, but closer to each other, the better oriented is taken."""


def grid_positions(latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    """Positions of the grid points on the unit sphere, shape (latitude·longitude, 3).

    Args:
        latitude: degrees north, shape (latitude,).
        longitude: degrees east, shape (longitude,).
    """
    azimuth, polar_angle = np.meshgrid(np.deg2rad(longitude), np.deg2rad(90 - latitude))
    positions = [
        np.cos(azimuth) * np.sin(polar_angle),
        np.sin(azimuth) * np.sin(polar_angle),
        np.cos(polar_angle),
    ]
    return np.stack(positions, axis=-1).reshape(-1, 3)


def edges_within_radius(
    positions: np.ndarray, mesh: TriangularMesh, radius: float | np.floating
) -> tuple[np.ndarray, np.ndarray]:
    """Grid points and mesh vertices no further apart than ``radius``, as a chord of the unit sphere.

    Args:
        positions: of the grid points, shape (grid, 3).

    Returns:
        Grid and mesh numbers of each edge, int32, grid points ascending.
    """
    tree = cKDTree(mesh.vertices)
    grid_numbers, mesh_numbers = [], []
    for start in range(0, positions.shape[0], _CHUNK):
        chunk = positions[start : start + _CHUNK]
        neighbours = tree.query_ball_point(chunk, r=radius)
        counts = np.fromiter(map(len, neighbours), dtype=np.int64, count=len(neighbours))
        grid_numbers.append(np.repeat(np.arange(start, start + chunk.shape[0], dtype=np.int32), counts))
        mesh_numbers.append(np.fromiter(chain.from_iterable(neighbours), dtype=np.int32, count=counts.sum()))
    return np.concatenate(grid_numbers), np.concatenate(mesh_numbers)


def containing_faces(positions: np.ndarray, mesh: TriangularMesh) -> np.ndarray:
    """The face of the mesh nearest to each point of the sphere, int32, shape (point,).

    The triangles of the mesh are acute, so the nearest vertex of a point belongs to its nearest face, and only
    the five or six faces around that vertex are looked at. Points over an edge are as near to one face as to the
    other; see ``_choose_face`` and ``model.graphs.tie_breaking``.
    """
    faces_around = _faces_around_vertices(mesh)
    corners = mesh.vertices.astype(np.float64)[mesh.faces]
    vertices = cKDTree(mesh.vertices)
    nearest = np.empty(positions.shape[0], dtype=np.int32)
    reach = np.empty(positions.shape[0])
    tied = np.zeros(positions.shape[0], dtype=bool)
    for start in range(0, positions.shape[0], _CHUNK):
        here = slice(start, start + _CHUNK)
        points = positions[here].astype(np.float64)
        reach[here], vertex = vertices.query(points)
        faces = faces_around[vertex]
        repeated = np.repeat(points, faces.shape[1], axis=0)
        offsets = repeated - closest_points_on_triangles(repeated, corners[faces.reshape(-1)])
        distances = _dot(offsets, offsets).reshape(faces.shape)
        nearest[here] = faces[np.arange(faces.shape[0]), distances.argmin(axis=1)]
        close = np.sort(np.where(faces == nearest[here, None], np.inf, distances), axis=1)[:, 0]
        tied[here] = close - distances.min(axis=1) < _ROUNDING
    _settle_ties(nearest, np.flatnonzero(tied), positions, reach, corners)
    return nearest


def _settle_ties(
    nearest: np.ndarray, tied: np.ndarray, positions: np.ndarray, reach: np.ndarray, corners: np.ndarray
) -> None:
    """Put the right face into ``nearest`` for the points ``tied``.

    Of the two nearest faces the one that faces the point more directly is taken, unless the point is so near to
    the surface that its direction means nothing; then, and when both face it alike, the first of the two in the
    order of ``model.graphs.tie_breaking``.
    """
    if not tied.size:
        return
    tree = BoundingBoxTree(corners.min(axis=1), corners.max(axis=1))
    for number in tied:
        point = positions[number].astype(np.float64)
        margin = reach[number] + _TIE
        faces = np.array(tree.overlapping(point - margin, point + margin))
        offsets = point - closest_points_on_triangles(np.tile(point, (faces.size, 1)), corners[faces])
        distances = _dot(offsets, offsets)
        best = bitonic_order(distances)[:2]
        choice = best[0]
        if np.ptp(distances[best]) < _TIE and (distances[best] > _TIE).all():
            a, b, c = (corners[faces[best], corner] for corner in range(3))
            normals = np.cross(b - a, c - b)
            normals /= np.linalg.norm(normals, axis=1, keepdims=True)
            directions = offsets[best] / np.sqrt(distances[best])[:, None]
            choice = best[_dot(normals, directions).argmax()]
        nearest[number] = faces[choice]


def closest_points_on_triangles(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """The point of each triangle nearest to the point beside it, shape (n, 3).

    By the Voronoi regions of a triangle's corners, edges and interior (Ericson 2005, *Real-Time Collision
    Detection*, 5.1.5).

    Args:
        points: float64, shape (n, 3).
        triangles: corners a, b, c, float64, shape (n, 3, 3).
    """
    a, b, c = triangles[:, 0], triangles[:, 1], triangles[:, 2]
    ab, ac = b - a, c - a
    along_ab_from_a, along_ac_from_a = _dot(ab, points - a), _dot(ac, points - a)
    along_ab_from_b, along_ac_from_b = _dot(ab, points - b), _dot(ac, points - b)
    along_ab_from_c, along_ac_from_c = _dot(ab, points - c), _dot(ac, points - c)
    area_a = along_ab_from_b * along_ac_from_c - along_ab_from_c * along_ac_from_b
    area_b = along_ab_from_c * along_ac_from_a - along_ab_from_a * along_ac_from_c
    area_c = along_ab_from_a * along_ac_from_b - along_ab_from_b * along_ac_from_a
    beyond_b = along_ac_from_b - along_ab_from_b
    beyond_c = along_ab_from_c - along_ac_from_c

    with np.errstate(divide="ignore", invalid="ignore"):
        on_ab = a + (along_ab_from_a / (along_ab_from_a - along_ab_from_b))[:, None] * ab
        on_ac = a + (along_ac_from_a / (along_ac_from_a - along_ac_from_c))[:, None] * ac
        on_bc = b + (beyond_b / (beyond_b + beyond_c))[:, None] * (c - b)
        scale = 1.0 / (area_a + area_b + area_c)
        inside = a + ab * (area_b * scale)[:, None] + ac * (area_c * scale)[:, None]
    regions = [
        (along_ab_from_a < _FLAT) & (along_ac_from_a < _FLAT),
        (along_ab_from_b > -_FLAT) & (along_ac_from_b <= along_ab_from_b),
        (area_c < _FLAT) & (along_ab_from_a > -_FLAT) & (along_ab_from_b < _FLAT),
        (along_ac_from_c > -_FLAT) & (along_ab_from_c <= along_ac_from_c),
        (area_b < _FLAT) & (along_ac_from_a > -_FLAT) & (along_ac_from_c < _FLAT),
        (area_a < _FLAT) & (beyond_b > -_FLAT) & (beyond_c > -_FLAT),
    ]
    return np.select([region[:, None] for region in regions], [a, b, on_ab, c, on_ac, on_bc], default=inside)


def _dot(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return (left * right).sum(axis=1)


def _faces_around_vertices(mesh: TriangularMesh) -> np.ndarray:
    """Faces that meet at each vertex, ascending, shape (vertex, 6); a fivefold vertex repeats its last."""
    vertex = mesh.faces.reshape(-1)
    order = np.argsort(vertex, kind="stable")
    counts = np.bincount(vertex, minlength=mesh.vertices.shape[0])
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    slots = np.minimum(np.arange(counts.max()), counts[:, None] - 1)
    return (order // 3)[starts[:, None] + slots]
