"""The finest mesh with its nodes renumbered so that neighbours have close numbers."""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy import sparse

from model.gencast.neighbourhood import Neighbourhood, k_hop_neighbourhood
from model.graphs.icosahedral_mesh import TriangularMesh, directed_edges, mesh_hierarchy


def banded_mesh(refinements: int) -> TriangularMesh:
    """The icosahedron refined that often, nodes in reverse Cuthill-McKee order.

    The order is part of how checkpoints were trained only in so far as it bounds the band; the network itself
    does not see node numbers.
    """
    mesh = mesh_hierarchy(refinements)[-1]
    return renumbered(mesh, mesh_order(mesh))


def mesh_order(mesh: TriangularMesh) -> np.ndarray:
    """The nodes of a mesh in reverse Cuthill-McKee order, (node,)."""
    senders, receivers = directed_edges(mesh.faces)
    size = mesh.vertices.shape[0]
    adjacency = sparse.csr_matrix((np.ones(senders.size), (senders, receivers)), shape=(size, size))
    return sparse.csgraph.reverse_cuthill_mckee(adjacency, symmetric_mode=True)


def renumbered(mesh: TriangularMesh, order: np.ndarray) -> TriangularMesh:
    """The mesh whose node at place i of the order is number i."""
    number = np.empty_like(order)
    number[order] = np.arange(order.size, dtype=order.dtype)
    return dataclasses.replace(mesh, vertices=mesh.vertices[order], faces=number[mesh.faces].astype(np.int32))


def mesh_neighbourhood(mesh: TriangularMesh, hops: int) -> Neighbourhood:
    """The nodes at most ``hops`` edges apart."""
    senders, receivers = directed_edges(mesh.faces)
    neighbourhood = k_hop_neighbourhood(
        senders=senders, receivers=receivers, num_nodes=mesh.vertices.shape[0], hops=hops
    )
    return dataclasses.replace(neighbourhood, positions=mesh.vertices)
