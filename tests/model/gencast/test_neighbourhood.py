"""The k-hop neighbourhood: against matrix powers, and on the icosahedral mesh against counting by hand."""

import numpy as np
import pytest
from scipy import sparse

from model.gencast.mesh_order import banded_mesh, mesh_neighbourhood
from model.gencast.neighbourhood import Neighbourhood, k_hop_neighbourhood
from model.graphs.icosahedral_mesh import directed_edges, mesh_hierarchy


def test_k_hops_equal_the_matrix_power() -> None:
    random = np.random.default_rng(0)
    upper = np.triu(random.random((40, 40)) < 0.05, 1)
    adjacency = upper | upper.T
    senders, receivers = np.nonzero(adjacency)
    for hops in range(5):
        pattern = k_hop_neighbourhood(senders=senders, receivers=receivers, num_nodes=40, hops=hops)
        power = np.linalg.matrix_power(np.eye(40) + adjacency, hops) > 0
        np.testing.assert_array_equal(pattern.matrix.toarray(), power)


def test_most_mesh_nodes_have_a_hexagon_of_neighbours() -> None:
    # k hops on a triangular lattice reach 1 + 6 + 12 + … + 6k = 3k(k + 1) + 1 nodes; around each of the
    # twelve corners a sixth is missing: 1 + 5k(k + 1)/2.
    pattern = mesh_neighbourhood(mesh_hierarchy(3)[-1], 2)
    counts = np.diff(pattern.matrix.indptr)
    assert set(counts[:12]) == {16}
    assert counts.max() == 19
    assert (counts == 19).mean() > 0.7


def test_banded_mesh_is_the_same_mesh_renumbered() -> None:
    mesh, banded = mesh_hierarchy(3)[-1], banded_mesh(3)
    np.testing.assert_array_equal(banded.vertices[banded.faces], mesh.vertices[mesh.faces])
    widths = [np.abs(np.subtract(*directed_edges(m.faces))).max() for m in (mesh, banded)]
    # Breadth-first levels of this mesh have at most 5·8 = 40 nodes; the unordered mesh spans nearly all 642.
    assert widths[0] > 500
    assert widths[1] < 2 * 40


def test_extent_of_the_band() -> None:
    matrix = sparse.csr_matrix(np.array([[1, 0, 1, 0], [0, 1, 0, 0], [1, 0, 1, 1], [0, 0, 1, 1]], dtype=bool))
    pattern = Neighbourhood(matrix=matrix)
    np.testing.assert_array_equal(pattern.first_columns, [0, 1, 0, 2])
    np.testing.assert_array_equal(pattern.last_columns, [2, 1, 3, 3])
    assert pattern.half_bandwidth == 2


def test_dense_part_outside_the_mesh_is_false() -> None:
    pattern = Neighbourhood(matrix=sparse.identity(5, dtype=bool, format="csr"))
    np.testing.assert_array_equal(
        pattern.dense(slice(-1, 2), slice(1, 7)),
        [[0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0]],
    )
    assert not pattern.dense(slice(7, 9), slice(0, 5)).any()


def test_bad_graphs_are_refused() -> None:
    with pytest.raises(ValueError, match="both directions"):
        k_hop_neighbourhood(senders=np.array([0]), receivers=np.array([1]), num_nodes=2, hops=1)
    with pytest.raises(ValueError, match="non-negative"):
        k_hop_neighbourhood(senders=np.array([]), receivers=np.array([]), num_nodes=2, hops=-1)
    with pytest.raises(ValueError, match="own neighbour"):
        Neighbourhood(matrix=sparse.csr_matrix((2, 2), dtype=bool))
    with pytest.raises(ValueError, match="square"):
        Neighbourhood(matrix=sparse.csr_matrix((2, 3), dtype=bool))
