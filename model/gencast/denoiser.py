"""GenCast's network: from noisy targets and the weather before them to targets without noise.

An encoder takes the grid to the mesh, a transformer works on the mesh, a decoder goes back (Price et al.
2023, arXiv:2312.15796). The noise level enters through the scale and offset of every layer normalisation.

Work is arranged by what it depends on, each part done once:

- on checkpoint and grid (``embed_structure``): the embeddings of edges and mesh nodes up to their
  normalisation, those of edges by their coordinates along the directions that they span;
- on the weather before (``condition``): its part of the grid points' first layer, the same for the 39
  evaluations that make a sample;
- on noisy targets and noise level (``evaluate``): the rest. A first linear layer over a concatenation is the
  sum of the products of its parts, each taken where it is smallest; the scale and offset of a normalisation
  before a linear layer go into its weights, those of messages are applied after their sum.

Edges and grid points are processed in chunks that stay in a processor's cache. All functions are pure;
parameters carry the published, that is Haiku's, names and shapes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from model.gencast.attention import Attention
from model.gencast.configs import DenoiserArchitectureConfig, NoiseEncoderConfig
from model.gencast.denoiser_parameters import (
    GRID_TO_MESH,
    MESH_TO_GRID,
    DenoiserChannels,
)
from model.gencast.edge_directions import Directions, EdgeDirections, edge_directions
from model.gencast.noise_encoder import ScaleOffset, encode_noise_level, scale_and_offset
from model.gencast.sparse_transformer import (
    conditioned_norm,
    stack_blocks,
    transform,
    transformer_path,
)
from model.gencast.structure import DenoiserStructure
from model.graphs.chunks import map_chunks, sum_chunks_by_receiver
from model.graphs.graph_network import (
    Parameters,
    first_layer_parts,
    mlp_after_first_layer,
    multi_layer_perceptron,
    normalize_features,
)
from model.graphs.model_graphs import EdgeSet, GridMeshGraphs
from model.precision import accumulation_type
from model.training.rematerialisation import KEEP_ALL, Rematerialisation, recomputed

_GRID_POINTS_PER_CHUNK = 2048

_ENCODE_GRID = f"{GRID_TO_MESH}/encoder_nodes_grid_nodes"
_ENCODE_MESH = f"{GRID_TO_MESH}/encoder_nodes_mesh_nodes"
_ENCODE_EDGES_IN = f"{GRID_TO_MESH}/encoder_edges_grid2mesh"
_EDGES_IN = f"{GRID_TO_MESH}/processor_edges_0_grid2mesh"
_GRID_IN = f"{GRID_TO_MESH}/processor_nodes_0_grid_nodes"
_MESH_IN = f"{GRID_TO_MESH}/processor_nodes_0_mesh_nodes"
_ENCODE_EDGES_OUT = f"{MESH_TO_GRID}/encoder_edges_mesh2grid"
_EDGES_OUT = f"{MESH_TO_GRID}/processor_edges_0_mesh2grid"
_GRID_OUT = f"{MESH_TO_GRID}/processor_nodes_0_grid_nodes"
_DECODE = f"{MESH_TO_GRID}/decoder_nodes_grid_nodes_mlp"


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class StructureEmbedding:
    """What depends on parameters and grid alone.

    Args:
        grid: the grid points' spatial part of their first layer, with its bias, shape (grid, latent).
        mesh: normalised embedding of the mesh nodes, before scale and offset, shape (mesh, latent).
        edges_in: the same of the grid-to-mesh edges, shape (chunk, edge, latent), or (…, rank) with directions.
        edges_out: the same of the mesh-to-grid edges, shape (grid, 3, latent or rank).
        directions: in which the edges have coordinates.
        blocks: the transformer's parameters, stacked.
    """

    grid: jax.Array
    mesh: jax.Array
    edges_in: jax.Array
    edges_out: jax.Array
    directions: EdgeDirections
    blocks: Parameters


@dataclass(frozen=True, kw_only=True)
class Denoiser:
    """The shape of one network; its methods are pure functions.

    Args:
        config, noise_encoder: of the checkpoint.
        channels: what goes in and comes out.
        attention: on the mesh.
        recompute: what is not kept for a backward pass; the blocks of the transformer are its message steps.
    """

    config: DenoiserArchitectureConfig
    noise_encoder: NoiseEncoderConfig
    channels: DenoiserChannels
    attention: Attention
    recompute: Rematerialisation = KEEP_ALL

    def edge_directions(self, params: Parameters, graphs: GridMeshGraphs) -> EdgeDirections:
        """The directions that embedded edges span, for ``embed_structure``; host work, seconds."""

        def of(name: str, edges: EdgeSet) -> np.ndarray | None:
            return edge_directions(params, name, edges.features, hidden_layers=self.config.hidden_layers)

        return EdgeDirections(
            to_mesh=of(_ENCODE_EDGES_IN, graphs.grid_to_mesh),
            to_grid=of(_ENCODE_EDGES_OUT, graphs.mesh_to_grid),
        )

    def embed_structure(
        self, params: Parameters, structure: DenoiserStructure, directions: EdgeDirections | None = None
    ) -> StructureEmbedding:
        """What depends on parameters and grid alone, in the type of the parameters.

        Args:
            directions: from ``edge_directions`` of the same parameters; None keeps all features of the edges.
        """
        directions = directions or EdgeDirections()
        first = params[f"{_ENCODE_GRID}_mlp/~/linear_0"]
        mesh_first = params[f"{_ENCODE_MESH}_mlp/~/linear_0"]
        spatial = self.channels.spatial_rows
        mesh = structure.mesh_features @ mesh_first["w"][spatial] + mesh_first["b"]
        return StructureEmbedding(
            grid=structure.grid_features @ first["w"][spatial] + first["b"],
            mesh=self._normalized_rest(params, _ENCODE_MESH, mesh),
            edges_in=self._embed_edges(
                params, _ENCODE_EDGES_IN, structure.grid_to_mesh.features, directions.to_mesh
            ),
            edges_out=self._embed_edges(
                params, _ENCODE_EDGES_OUT, structure.mesh_to_grid_features, directions.to_grid
            ),
            directions=directions,
            blocks=stack_blocks(params, self.config.sparse_transformer_config),
        )

    def parameters_besides(self, params: Parameters) -> Parameters:
        """What ``condition`` and ``evaluate`` need besides the embedding, which holds the transformer's blocks."""
        blocks = f"{transformer_path(self.config.sparse_transformer_config)}/block_"
        return {path: layer for path, layer in params.items() if not path.startswith(blocks)}

    def condition(self, params: Parameters, embedding: StructureEmbedding, features: jax.Array) -> jax.Array:
        """What depends on the weather before: the grid points' first layer but for the noisy targets.

        Args:
            features: normalised inputs, then forcings, shape (grid, conditioning channels).

        Returns:
            Shape (grid, latent).
        """
        weights = params[f"{_ENCODE_GRID}_mlp/~/linear_0"]["w"][self.channels.conditioning_rows]
        return embedding.grid + features @ weights

    def evaluate(
        self,
        params: Parameters,
        structure: DenoiserStructure,
        embedding: StructureEmbedding,
        conditioned: jax.Array,
        noisy_targets: jax.Array,
        noise_level: jax.Array,
    ) -> jax.Array:
        """The denoised targets D(x; σ) = c_skip x + c_out F(c_in x; σ).

        Preconditioned as in Karras et al. 2022, eq. 7, with σ_data = 1.

        Args:
            conditioned: from ``condition``.
            noisy_targets: normalised residuals with noise, float32, shape (grid, targets).
            noise_level: σ, a float32 scalar.

        Returns:
            float32, shape (grid, targets).
        """
        shrink = jax.lax.rsqrt(noise_level**2 + 1)
        encoding = encode_noise_level(params, self.noise_encoder, noise_level)
        raw = self.network(
            params,
            structure,
            embedding,
            conditioned,
            (noisy_targets * shrink).astype(conditioned.dtype),
            encoding,
        )
        return raw.astype(accumulation_type(raw.dtype)) * (noise_level * shrink) + noisy_targets * shrink**2

    def network(
        self,
        params: Parameters,
        structure: DenoiserStructure,
        embedding: StructureEmbedding,
        conditioned: jax.Array,
        scaled_targets: jax.Array,
        encoding: jax.Array,
    ) -> jax.Array:
        """F: the network without its preconditioning."""

        encode = recomputed(self._encode, when=self.recompute.encoder)
        decode = recomputed(self._decode, when=self.recompute.decoder)
        mesh, grid = encode(params, structure, embedding, conditioned, scaled_targets, encoding)
        mesh = transform(
            params,
            embedding.blocks,
            self.config.sparse_transformer_config,
            attention=self.attention,
            masks=structure.attention_masks,
            encoding=encoding,
            nodes=mesh,
            blocks_kept=self.recompute.message_steps,
        )
        return decode(params, structure, embedding, mesh, grid, encoding)

    def _encode(
        self,
        params: Parameters,
        structure: DenoiserStructure,
        embedding: StructureEmbedding,
        conditioned: jax.Array,
        scaled_targets: jax.Array,
        encoding: jax.Array,
    ) -> tuple[jax.Array, jax.Array]:
        """Mesh nodes and grid points after the grid-to-mesh step, (node, latent)."""
        condition = _conditions(params, encoding)
        sent, grid = self._encode_grid(params, condition, conditioned, scaled_targets)
        mesh = conditioned_norm_given(embedding.mesh, condition(_ENCODE_MESH))
        received = self._send_to_mesh(params, condition, structure, embedding, sent, mesh)
        inputs = jnp.concatenate([mesh, received], axis=-1)
        mesh = mesh + self._block(params, condition, _MESH_IN, inputs).astype(mesh.dtype)
        return mesh, grid

    def _encode_grid(
        self,
        params: Parameters,
        condition: Callable[[str], ScaleOffset],
        conditioned: jax.Array,
        scaled_targets: jax.Array,
    ) -> tuple[jax.Array, jax.Array]:
        """Grid points as senders (their part of the edges' first layer), and updated, both (grid, latent)."""
        of_targets = params[f"{_ENCODE_GRID}_mlp/~/linear_0"]["w"][self.channels.target_rows]
        _, of_sender, _ = first_layer_parts(params, f"{_EDGES_IN}_mlp", [self.config.latent_size] * 3)

        def chunk(points: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            known, targets = points
            grid = self._after_first_layer(params, condition, _ENCODE_GRID, known + targets @ of_targets)
            return grid @ of_sender, grid + self._block(params, condition, _GRID_IN, grid)

        chunk = recomputed(chunk, when=self.recompute.edge_chunks)
        return map_chunks(chunk, (conditioned, scaled_targets), size=_GRID_POINTS_PER_CHUNK)

    def _send_to_mesh(
        self,
        params: Parameters,
        condition: Callable[[str], ScaleOffset],
        structure: DenoiserStructure,
        embedding: StructureEmbedding,
        sent: jax.Array,
        mesh: jax.Array,
    ) -> jax.Array:
        """Sum of the messages into each mesh node, (mesh, latent).

        In float32 where the network computes in float16: near the poles thousands of grid points send to one node.
        """
        of_edge, _, of_receiver = first_layer_parts(params, f"{_EDGES_IN}_mlp", [self.config.latent_size] * 3)
        of_edge, offset = fold_condition(
            of_edge, condition(_ENCODE_EDGES_IN), directions=embedding.directions.to_mesh
        )
        of_mesh = mesh @ of_receiver + params[f"{_EDGES_IN}_mlp/~/linear_0"]["b"] + offset

        def messages(edge: jax.Array, senders: jax.Array, receivers: jax.Array) -> jax.Array:
            first = edge @ of_edge + sent[senders] + of_mesh[receivers]
            return self._normalized_rest(params, _EDGES_IN, first)

        total = sum_chunks_by_receiver(
            messages,
            embedding.edges_in,
            structure.grid_to_mesh,
            nodes=mesh.shape[0],
            features=mesh.shape[1],
            recompute=self.recompute.edge_chunks,
        )
        scale, offset = condition(_EDGES_IN)
        total = total * scale + structure.grid_to_mesh_counts * offset
        if self.config.grid2mesh_aggregate_normalization:
            total = total / self.config.grid2mesh_aggregate_normalization
        return total if mesh.dtype == jnp.float16 else total.astype(mesh.dtype)

    def _decode(
        self,
        params: Parameters,
        structure: DenoiserStructure,
        embedding: StructureEmbedding,
        mesh: jax.Array,
        grid: jax.Array,
        encoding: jax.Array,
    ) -> jax.Array:
        """The grid points' outputs, (grid, targets)."""
        condition = _conditions(params, encoding)
        latent = self.config.latent_size
        of_edge, of_sender, of_receiver = first_layer_parts(params, f"{_EDGES_OUT}_mlp", [latent] * 3)
        of_edge, offset = fold_condition(
            of_edge, condition(_ENCODE_EDGES_OUT), directions=embedding.directions.to_grid
        )
        of_mesh = mesh @ of_sender
        bias = params[f"{_EDGES_OUT}_mlp/~/linear_0"]["b"] + offset
        scale, message_offset = condition(_EDGES_OUT)

        def chunk(points: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
            senders, edge, point = points
            first = (edge.reshape(-1, edge.shape[-1]) @ of_edge).reshape(*senders.shape, latent)
            first = first + of_mesh[senders]
            first = first + (point @ of_receiver + bias)[:, None]
            messages = self._normalized_rest(params, _EDGES_OUT, first.reshape(-1, latent))
            total = messages.astype(accumulation_type(messages.dtype)).reshape(first.shape).sum(axis=1)
            received = (total * scale + 3 * message_offset).astype(point.dtype)
            inputs = jnp.concatenate([point, received], axis=-1)
            point = point + self._block(params, condition, _GRID_OUT, inputs)
            return multi_layer_perceptron(params, _DECODE, point, hidden_layers=self.config.hidden_layers)

        chunk = recomputed(chunk, when=self.recompute.edge_chunks)
        return map_chunks(
            chunk, (structure.mesh_to_grid_senders, embedding.edges_out, grid), size=_GRID_POINTS_PER_CHUNK
        )

    def _embed_edges(
        self, params: Parameters, name: str, features: jax.Array, directions: Directions
    ) -> jax.Array:
        """Normalised embedding of edges, before scale and offset: (…, 4) → (…, latent), or (…, rank)."""

        def chunk(part: jax.Array) -> jax.Array:
            layer = params[f"{name}_mlp/~/linear_0"]
            embedded = self._normalized_rest(params, name, part @ layer["w"] + layer["b"])
            if directions is None:
                return embedded
            return jnp.matmul(embedded, directions.T, preferred_element_type=jnp.float32).astype(part.dtype)

        chunk = recomputed(chunk, when=self.recompute.edge_chunks)
        embedded = map_chunks(chunk, features.reshape(-1, features.shape[-1]), size=_GRID_POINTS_PER_CHUNK)
        return embedded.reshape((*features.shape[:-1], -1))

    def _block(
        self, params: Parameters, condition: Callable[[str], ScaleOffset], name: str, x: jax.Array
    ) -> jax.Array:
        """An MLP with conditioned normalisation."""
        layer = params[f"{name}_mlp/~/linear_0"]
        return self._after_first_layer(params, condition, name, x @ layer["w"] + layer["b"])

    def _after_first_layer(
        self, params: Parameters, condition: Callable[[str], ScaleOffset], name: str, x: jax.Array
    ) -> jax.Array:
        x = mlp_after_first_layer(params, f"{name}_mlp", x, hidden_layers=self.config.hidden_layers)
        return conditioned_norm(x, condition(name))

    def _normalized_rest(self, params: Parameters, name: str, first: jax.Array) -> jax.Array:
        x = mlp_after_first_layer(params, f"{name}_mlp", first, hidden_layers=self.config.hidden_layers)
        return normalize_features(x).astype(first.dtype)


def _conditions(params: Parameters, encoding: jax.Array) -> Callable[[str], ScaleOffset]:
    """Scale and offset of each conditioned normalisation, by its name."""

    def condition(name: str) -> ScaleOffset:
        return scale_and_offset(params[f"{name}_norm_conditioning/linear"], encoding)

    return condition


def conditioned_norm_given(normalized: jax.Array, scale_offset: ScaleOffset) -> jax.Array:
    """Scale and offset of what is normalised already."""
    scale, offset = scale_offset
    return (normalized.astype(accumulation_type(normalized.dtype)) * scale + offset).astype(normalized.dtype)


def fold_condition(
    weights: jax.Array, scale_offset: ScaleOffset, *, directions: Directions = None
) -> tuple[jax.Array, jax.Array]:
    """(x·s + o) W = x (diag(s) W) + o W: the folded weights and the folded offset.

    With directions D the folded weights are for x given by its coordinates c in x = c D: D diag(s) W.
    """
    scale, offset = scale_offset
    full = weights.astype(accumulation_type(weights.dtype))
    folded = scale[:, None] * full
    if directions is not None:
        folded = jnp.matmul(directions, folded, precision=jax.lax.Precision.HIGHEST)
    return folded.astype(weights.dtype), (offset @ full).astype(weights.dtype)
