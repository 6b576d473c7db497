"""Which mesh nodes attend to which: the k-hop neighbourhood of the mesh graph.

GenCast's transformer lets a mesh node attend to the nodes at most ``k`` edges away (Price et al. 2023,
arXiv:2312.15796, appendix on the architecture). The mesh is numbered so that neighbours have close numbers
(reverse Cuthill-McKee), which makes the neighbourhood matrix banded.
"""

import dataclasses

import numpy as np
from scipy import sparse


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Neighbourhood:
    """A symmetric pattern of attention between the nodes of one mesh.

    Args:
      matrix: boolean CSR matrix (node, node), True where the row's node attends to the column's. Every node
        attends to itself.
      positions: of the nodes, (node, 3), where they are known; only for grouping nodes that lie close together.
    """

    matrix: sparse.csr_matrix
    positions: np.ndarray | None = None

    def __post_init__(self) -> None:
        rows, columns = self.matrix.shape
        if rows != columns:
            raise ValueError(f"expected a square neighbourhood matrix, got shape {self.matrix.shape}")
        if not np.all(self.matrix.diagonal()):
            raise ValueError("expected every node to be its own neighbour; the diagonal has zeros")

    @property
    def num_nodes(self) -> int:
        return int(self.matrix.shape[0])

    @property
    def half_bandwidth(self) -> int:
        """Largest |row − column| of a True entry."""
        return int(max(np.max(self.rows - self.first_columns), np.max(self.last_columns - self.rows)))

    @property
    def rows(self) -> np.ndarray:
        return np.arange(self.num_nodes)

    @property
    def first_columns(self) -> np.ndarray:
        """Lowest-numbered neighbour of each node, (node,)."""
        return np.minimum.reduceat(self.matrix.indices, self.matrix.indptr[:-1])

    @property
    def last_columns(self) -> np.ndarray:
        """Highest-numbered neighbour of each node, (node,)."""
        return np.maximum.reduceat(self.matrix.indices, self.matrix.indptr[:-1])

    def dense(self, rows: slice, columns: slice) -> np.ndarray:
        """The given part of the pattern, bool (rows, columns); positions outside the mesh are False."""
        part = np.zeros((rows.stop - rows.start, columns.stop - columns.start), dtype=bool)
        inside_rows = slice(max(rows.start, 0), min(rows.stop, self.num_nodes))
        inside_columns = slice(max(columns.start, 0), min(columns.stop, self.num_nodes))
        if inside_rows.start < inside_rows.stop and inside_columns.start < inside_columns.stop:
            part[
                inside_rows.start - rows.start : inside_rows.stop - rows.start,
                inside_columns.start - columns.start : inside_columns.stop - columns.start,
            ] = self.matrix[inside_rows, inside_columns].toarray()
        return part


def k_hop_neighbourhood(
    *, senders: np.ndarray, receivers: np.ndarray, num_nodes: int, hops: int
) -> Neighbourhood:
    """The nodes at most `hops` edges apart in an undirected graph.

    Args:
      senders, receivers: the graph's directed edges as node numbers, both directions present, (edge,).
      num_nodes: number of nodes.
      hops: greatest number of edges between two neighbours, at least 0.

    Raises:
      ValueError: `hops` is negative or the edges are not symmetric.
    """
    if hops < 0:
        raise ValueError(f"expected a non-negative number of hops, got {hops}")
    ones = np.ones(len(senders), dtype=np.int32)
    adjacency = sparse.csr_matrix((ones, (senders, receivers)), shape=(num_nodes, num_nodes))
    adjacency.data[:] = 1
    if (adjacency != adjacency.T).nnz:
        raise ValueError("expected every edge in both directions, got a directed graph")
    # A neighbour of a node at distance d is at distance d − 1, d or d + 1: the next shell is what the last
    # shell touches, less the last two shells. This does a twentieth of the work of a matrix power.
    before = sparse.csr_matrix((num_nodes, num_nodes), dtype=np.int32)
    shell = sparse.identity(num_nodes, dtype=np.int32, format="csr")
    within = shell
    for _ in range(hops):
        touched = shell @ adjacency
        touched.data[:] = 1
        following = touched - touched.multiply(shell) - touched.multiply(before)
        following.eliminate_zeros()
        before, shell = shell, following.tocsr()
        within = within + shell
    matrix = within.astype(bool).tocsr()
    matrix.sort_indices()
    return Neighbourhood(matrix=matrix)
