import numpy as np
import pytest

from model.graphs.icosahedral_mesh import mesh_hierarchy
from model.graphs.model_graphs import CORNERS, SLOTS, EdgeSet, model_graphs, multi_mesh_edges
from model.grid import Grid


@pytest.fixture(scope="module")
def graphs():
    grid = Grid(resolution=15.0)
    return model_graphs(latitude=grid.latitude, longitude=grid.longitude, mesh_size=2, radius_fraction=0.6)


def test_each_grid_point_hears_three_distinct_vertices_in_order(graphs) -> None:
    points = 13 * 24
    np.testing.assert_array_equal(graphs.mesh_to_grid.receivers, np.repeat(np.arange(points), 3))
    senders = np.sort(graphs.mesh_to_grid.senders.reshape(points, 3), axis=1)
    assert (np.diff(senders, axis=1) > 0).all()


def test_every_vertex_hears_grid_points_ascending_by_receiver(graphs) -> None:
    receivers = graphs.grid_to_mesh.receivers
    assert (np.diff(receivers) >= 0).all()
    assert set(receivers.tolist()) == set(range(graphs.level_sizes[-1]))


def test_slots_hold_the_edges_of_all_levels() -> None:
    meshes = mesh_hierarchy(2)
    edges = multi_mesh_edges(meshes)
    start = 0
    for mesh in meshes:
        size = mesh.vertices.shape[0]
        rows = slice(start, start + size * SLOTS)
        receivers = edges.receivers[rows].reshape(size, SLOTS)
        senders = edges.senders[rows].reshape(size, SLOTS)
        np.testing.assert_array_equal(receivers, np.arange(size)[:, None].repeat(SLOTS, axis=1))
        empty = senders == receivers
        assert empty.sum() == CORNERS
        assert empty[:CORNERS, -1].all()
        expected = {frozenset(pair) for f in mesh.faces.tolist() for pair in zip(f, f[1:] + f[:1])}
        got = {frozenset(pair) for pair in zip(receivers[~empty].tolist(), senders[~empty].tolist())}
        assert got == expected
        np.testing.assert_array_equal(edges.features[rows].reshape(size, SLOTS, 4)[empty], 0)
        start += size * SLOTS
    assert start == edges.senders.size


def test_edge_features_are_at_most_one_long_and_consistent(graphs) -> None:
    for edges in (graphs.grid_to_mesh, graphs.mesh, graphs.mesh_to_grid):
        length = edges.features[:, 0]
        np.testing.assert_allclose(np.linalg.norm(edges.features[:, 1:], axis=1), length, atol=1e-6)
        assert length.max() == pytest.approx(1.0)


def test_edge_set_refuses_unequal_lengths() -> None:
    with pytest.raises(ValueError, match="expected 2 receivers"):
        EdgeSet(senders=np.zeros(2, int), receivers=np.zeros(3, int), features=np.zeros((2, 4)))
