import numpy as np
import pytest

from model.graphs.icosahedral_mesh import (
    TriangularMesh,
    directed_edges,
    icosahedron,
    longest_edge,
    mesh_hierarchy,
)


@pytest.mark.parametrize("refinements", range(5))
def test_counts_follow_from_eulers_formula(refinements: int) -> None:
    mesh = mesh_hierarchy(refinements)[-1]
    vertices, faces = mesh.vertices.shape[0], mesh.faces.shape[0]
    edges = faces * 3 // 2
    assert (vertices, faces) == (10 * 4**refinements + 2, 20 * 4**refinements)
    assert vertices - edges + faces == 2


def test_vertices_lie_on_the_unit_sphere_and_coarser_ones_come_first() -> None:
    coarse, fine = mesh_hierarchy(3)[-2:]
    np.testing.assert_allclose(np.linalg.norm(fine.vertices, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(fine.vertices[: coarse.vertices.shape[0]], coarse.vertices)
    assert np.unique(fine.vertices.round(5), axis=0).shape == fine.vertices.shape


def test_faces_are_counter_clockwise_from_outside() -> None:
    mesh = mesh_hierarchy(2)[-1]
    a, b, c = (mesh.vertices[mesh.faces[:, corner]].astype(float) for corner in range(3))
    assert (np.einsum("ij,ij->i", np.cross(b - a, c - b), a) > 0).all()


def test_every_edge_appears_once_in_both_directions() -> None:
    senders, receivers = directed_edges(mesh_hierarchy(2)[-1].faces)
    forward = set(zip(senders.tolist(), receivers.tolist()))
    assert len(forward) == senders.size
    assert forward == {(b, a) for a, b in forward}


def test_two_faces_of_the_icosahedron_are_level() -> None:
    mesh = icosahedron()
    heights = mesh.vertices[mesh.faces][:, :, 2]
    assert np.isclose(heights, heights[:, :1], atol=1e-6).all(axis=1).sum() == 2


def test_edge_of_the_icosahedron_has_its_known_length() -> None:
    # 1 / sin(2π / 5), the edge of the icosahedron inscribed in the unit sphere.
    assert longest_edge(icosahedron()) == pytest.approx(1 / np.sin(2 * np.pi / 5), rel=1e-6)


def test_refuses_negative_refinements_and_wrong_shapes() -> None:
    with pytest.raises(ValueError, match="at least 0, got -1"):
        mesh_hierarchy(-1)
    with pytest.raises(ValueError, match=r"vertices: expected shape \(n, 3\)"):
        TriangularMesh(vertices=np.zeros((3, 2)), faces=np.zeros((1, 3)))
