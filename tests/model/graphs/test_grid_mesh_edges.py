import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from model.graphs.grid_mesh_edges import (
    closest_points_on_triangles,
    containing_faces,
    edges_within_radius,
    grid_positions,
)
from model.graphs.icosahedral_mesh import longest_edge, mesh_hierarchy
from model.grid import Grid

MESH = mesh_hierarchy(2)[-1]


def positions(resolution: float, shift: int = 0) -> np.ndarray:
    grid = Grid(resolution=resolution)
    return grid_positions(grid.latitude, np.roll(grid.longitude, shift))


def test_grid_positions_of_known_points() -> None:
    got = grid_positions(np.array([-90.0, 0.0]), np.array([0.0, 90.0]))
    np.testing.assert_allclose(got, [[0, 0, -1], [0, 0, -1], [1, 0, 0], [0, 1, 0]], atol=1e-12)


def test_radius_query_finds_what_all_distances_say() -> None:
    points, radius = positions(15.0), 0.6 * longest_edge(MESH)
    grid_numbers, mesh_numbers = edges_within_radius(points, MESH, radius)
    distances = np.linalg.norm(points[:, None].astype(float) - MESH.vertices[None], axis=-1)
    assert set(zip(grid_numbers.tolist(), mesh_numbers.tolist())) == set(
        map(tuple, np.argwhere(distances <= radius).tolist())
    )
    assert (np.diff(grid_numbers) >= 0).all()


def test_containing_face_is_the_nearest_of_all_faces() -> None:
    points = positions(15.0).astype(float)
    corners = MESH.vertices.astype(float)[MESH.faces]
    got = containing_faces(points, MESH)
    for point, face in zip(points, got):
        nearest = closest_points_on_triangles(np.tile(point, (len(corners), 1)), corners)
        distances = np.linalg.norm(point - nearest, axis=1)
        assert distances[face] <= distances.min() + 1e-12


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 23))
def test_rotating_longitude_by_whole_cells_with_its_inputs_keeps_the_connectivity(shift: int) -> None:
    radius = 0.6 * longest_edge(MESH)
    here, there = positions(15.0), positions(15.0, shift)
    counts = np.bincount(edges_within_radius(here, MESH, radius)[1], minlength=len(MESH.vertices))
    rotated = np.bincount(edges_within_radius(there, MESH, radius)[1], minlength=len(MESH.vertices))
    np.testing.assert_array_equal(counts, rotated)
    assert counts.min() >= 1, "every mesh vertex receives"
    order = np.roll(np.arange(here.shape[0]).reshape(13, 24), shift, axis=1).reshape(-1)
    np.testing.assert_array_equal(containing_faces(here, MESH)[order], containing_faces(there, MESH))


def test_points_over_an_edge_go_to_the_triangle_the_published_checkpoints_were_trained_with() -> None:
    # Faces of a bounding-volume search over the same mesh (DeepMind's implementation v0.2) for points exactly
    # over an edge: (latitude, longitude) → face of the mesh of refinement 2.
    expected = {(10.0, 0.0): 70, (30.0, 0.0): 73, (40.0, 0.0): 74}
    for (latitude, longitude), face in expected.items():
        point = grid_positions(np.float32([latitude]), np.float32([longitude]))
        assert containing_faces(point, MESH)[0] == face


def test_closest_points_on_a_known_triangle() -> None:
    triangle = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
    cases = {
        (0.25, 0.25, 1): (0.25, 0.25, 0),
        (-1, -1, 0): (0, 0, 0),
        (2, -1, 0): (1, 0, 0),
        (-1, 2, 0): (0, 1, 0),
        (0.5, -1, 0): (0.5, 0, 0),
        (-1, 0.5, 0): (0, 0.5, 0),
        (1, 1, 3): (0.5, 0.5, 0),
    }
    points = np.array(list(cases), dtype=float)
    got = closest_points_on_triangles(points, np.tile(triangle, (len(points), 1, 1)))
    np.testing.assert_allclose(got, np.array(list(cases.values()), dtype=float), atol=1e-12)
