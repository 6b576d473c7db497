"""Edges by coordinates along few directions: the same network to rounding."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np

from model.gencast.edge_directions import EdgeDirections, edge_directions
from model.gencast.gencast import gencast_graphs, gencast_network, gencast_structure
from tests.model.gencast.test_denoiser import CONDITIONING, GRID, TARGETS, TASK, config, random_parameters

LATENT = 128


def wide_config() -> object:
    settings = config()
    architecture = settings.denoiser_architecture_config
    transformer = dataclasses.replace(architecture.sparse_transformer_config, d_model=LATENT)
    return dataclasses.replace(
        settings,
        denoiser_architecture_config=dataclasses.replace(
            architecture, latent_size=LATENT, sparse_transformer_config=transformer
        ),
    )


def embedding_layers(width: int, scale: float) -> dict[str, dict[str, np.ndarray]]:
    random = np.random.default_rng(0)
    return {
        "edges_mlp/~/linear_0": {"w": random.normal(size=(4, width)) * scale, "b": random.normal(size=width)},
        "edges_mlp/~/linear_1": {"w": random.normal(size=(width, width)), "b": random.normal(size=width)},
    }


def edge_features(count: int, seed: int) -> np.ndarray:
    """Length and position of points on a sphere of radius 10 seen from one of them."""
    east, north = np.random.default_rng(seed).uniform(-1, 1, size=(2, count))
    up = np.sqrt(100 - east**2 - north**2) - 10
    return np.stack([np.sqrt(up**2 + east**2 + north**2), up, east, north], axis=-1)


def test_directions_are_orthonormal_and_span_the_embeddings() -> None:
    params = embedding_layers(LATENT, 0.3)
    features = edge_features(2100, seed=1).reshape(700, 3, 4)
    directions = edge_directions(params, "edges", features, hidden_layers=1)
    assert directions is not None
    assert directions.shape[0] <= LATENT // 2
    np.testing.assert_allclose(directions @ directions.T, np.eye(len(directions)), atol=1e-6)
    # The embedding written out anew, of edges that were not looked at.
    first, second = params["edges_mlp/~/linear_0"], params["edges_mlp/~/linear_1"]
    x = edge_features(100, seed=2) @ first["w"] + first["b"]
    x = x / (1 + np.exp(-x)) @ second["w"] + second["b"]
    x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(x @ directions.T @ directions, x, atol=1e-5)


def test_embeddings_that_span_more_are_left_alone() -> None:
    # Weights so large that the embedding jumps from edge to edge.
    features = edge_features(700, seed=1)
    assert edge_directions(embedding_layers(LATENT, 100.0), "edges", features, hidden_layers=1) is None


def test_the_network_is_the_same_to_rounding() -> None:
    settings = wide_config()
    network = gencast_network(settings, TASK)
    graphs = gencast_graphs(settings, GRID)
    params = random_parameters(network.parameter_shapes())
    for name, layer in params.items():
        # On so coarse a mesh edges are long: only a smooth embedding of them spans few directions.
        if "encoder_edges" in name and name.endswith("linear_0"):
            layer["w"] *= 0.1
    structure = gencast_structure(network, graphs)
    denoiser = network.denoiser
    directions = denoiser.edge_directions(params, graphs)
    assert directions.to_mesh is not None
    assert directions.to_grid is not None
    random = np.random.default_rng(2)
    points = GRID.shape[0] * GRID.shape[1]
    conditioning = random.normal(size=(points, CONDITIONING)).astype(np.float32)
    noisy = random.normal(size=(points, TARGETS)).astype(np.float32)

    @jax.jit
    def evaluate(directions: EdgeDirections) -> jax.Array:
        embedding = denoiser.embed_structure(params, structure, directions)
        conditioned = denoiser.condition(params, embedding, conditioning)
        return denoiser.evaluate(params, structure, embedding, conditioned, noisy, np.float32(0.7))

    with_features, with_coordinates = evaluate(EdgeDirections()), evaluate(directions)
    np.testing.assert_allclose(with_coordinates, with_features, atol=1e-5)
    assert not np.array_equal(with_coordinates, with_features)
