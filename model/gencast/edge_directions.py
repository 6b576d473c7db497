"""Embedded edges by their coordinates along the few directions that they span.

What the network makes of an edge is a smooth function of the edge's length and relative position alone, so the
embeddings of hundreds of thousands of edges lie, to rounding, in a space of far fewer dimensions than there are
features. There an edge is a few coordinates, and the linear layer that follows has as many rows: for every noise
level it is first multiplied with the directions, which is small work, and then with the coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import numpy as np

from model.graphs.graph_network import Parameters

Directions = jax.Array | np.ndarray | None

_LAYER_NORM_EPSILON = 1e-5
_RANK_STEP = 32
_EDGES_LOOKED_AT = 1500
_TOLERANCE = 1e-6
"""Of an embedded edge, whose features have unit variance: the rounding of float32."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class EdgeDirections:
    """Orthonormal directions by kind of edge, float32, shape (rank, latent); None for all features as they are.

    Args:
        to_mesh: of the grid-to-mesh edges.
        to_grid: of the mesh-to-grid edges.
    """

    to_mesh: Directions = None
    to_grid: Directions = None


def edge_directions(
    params: Parameters, name: str, features: np.ndarray, *, hidden_layers: int
) -> np.ndarray | None:
    """The directions that the normalised embeddings of edges span.

    Found from every other one of a few thousand edges, and tried on all of these.

    Args:
        name: module path of the embedding without ``_mlp``.
        features: of the edges, shape (…, 4).

    Returns:
        Orthonormal, float32, shape (rank, latent), rank at most half of latent; None if that many are too few.
    """
    flat = features.reshape(-1, features.shape[-1])
    embedded = _embed(params, name, flat[:: max(1, len(flat) // _EDGES_LOOKED_AT)], hidden_layers)
    _, _, directions = np.linalg.svd(embedded[::2], full_matrices=False)
    for rank in range(_RANK_STEP, directions.shape[1] // 2 + 1, _RANK_STEP):
        some = directions[:rank]
        if abs(embedded @ some.T @ some - embedded).max() <= _TOLERANCE:
            return some.astype(np.float32)
    return None


def _embed(params: Parameters, name: str, features: np.ndarray, hidden_layers: int) -> np.ndarray:
    """The MLP and its normalisation in float64, without the noise that rounding would add in all directions."""
    x = features.astype(np.float64)
    for layer in range(hidden_layers + 1):
        weights = params[f"{name}_mlp/~/linear_{layer}"]
        x = x if layer == 0 else x / (1 + np.exp(-x))
        x = x @ np.asarray(weights["w"], np.float64) + np.asarray(weights["b"], np.float64)
    x = x - x.mean(axis=-1, keepdims=True)
    return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + _LAYER_NORM_EPSILON)
