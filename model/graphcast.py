"""GraphCast's network (Lam et al. 2023, *Science* 382, 1416–1421): encoder, processor, decoder.

Everything here is a pure function of parameters, of the structure of the graphs and of the grid points' features.
What does not depend on the weather (``embed_structure``) is kept apart from what does (``forward``): for
inference it is computed once for a checkpoint and grid, in training it is part of what is differentiated.

Parameters carry the names and shapes of the published checkpoints, which are Haiku's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from model.graphs.chunks import (
    ReceiverChunks,
    SlotChunks,
    chunk_by_receiver,
    chunk_slots,
    for_each_chunk,
    map_chunks,
    sum_chunks_by_receiver,
)
from model.graphs.graph_network import (
    Parameters,
    first_layer_parts,
    layer_norm,
    linear,
    mlp_after_first_layer,
    multi_layer_perceptron,
)
from model.graphs.model_graphs import CORNERS, SLOTS, ModelGraphs

_GRID_TO_MESH = "grid2mesh_gnn/~_networks_builder"
_MESH = "mesh_gnn/~_networks_builder"
_MESH_TO_GRID = "mesh2grid_gnn/~_networks_builder"
_SPATIAL_NODE_FEATURES = 3
_SPATIAL_EDGE_FEATURES = 4


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A published GraphCast checkpoint's ``model_config``, field by field.

    Args:
        resolution: of the grid, degrees.
        mesh_size: refinements of the icosahedron.
        latent_size: features of a node or edge inside the network.
        gnn_msg_steps: message-passing steps on the mesh.
        hidden_layers: hidden layers of each MLP.
        radius_query_fraction_edge_length: reach of the grid-to-mesh edges as a fraction of the longest mesh edge.
        mesh2grid_edge_normalization_factor: divisor of the mesh-to-grid edge features; None for the longest.
    """

    resolution: float
    mesh_size: int
    latent_size: int
    gnn_msg_steps: int
    hidden_layers: int
    radius_query_fraction_edge_length: float
    mesh2grid_edge_normalization_factor: float | None = None

    def __post_init__(self) -> None:
        for name in ("resolution", "latent_size", "gnn_msg_steps", "radius_query_fraction_edge_length"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}: expected a positive number, got {getattr(self, name)}")
        if self.mesh_size < 0 or self.hidden_layers < 0:
            raise ValueError(
                f"mesh_size, hidden_layers: expected at least 0, got {self.mesh_size}, {self.hidden_layers}"
            )


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Structure:
    """The graphs as arrays on a device: who sends to whom, and spatial features.

    Args:
        grid_features, mesh_features: shape (node, 3).
        grid_to_mesh: edges in chunks by receiver.
        mesh: edges of the multi-mesh in chunks of rows.
        mesh_to_grid_senders: corners of the triangle around each grid point, int32, shape (grid, 3).
        mesh_to_grid_features: shape (grid, 3, 4).
    """

    grid_features: jax.Array
    mesh_features: jax.Array
    grid_to_mesh: ReceiverChunks
    mesh: SlotChunks
    mesh_to_grid_senders: jax.Array
    mesh_to_grid_features: jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class StructureEmbedding:
    """What the network makes of the structure alone, in the layout of ``Structure``.

    Args:
        grid_features: spatial features of the grid points, shape (grid, 3).
        grid_to_mesh: edges' and receivers' part of the first layer of the edge update, with its bias.
        mesh_nodes: embedded mesh vertices, shape (mesh, latent).
        mesh_nodes_update: their part of the first layer of the node update, with its bias.
        mesh_edges: embedded edges of the multi-mesh.
        mesh_to_grid: edges' part of the first layer of the edge update, with its bias.
        processor: parameters of the message-passing steps on the mesh, by name, each stacked over the steps.
    """

    grid_features: jax.Array
    grid_to_mesh: jax.Array
    mesh_nodes: jax.Array
    mesh_nodes_update: jax.Array
    mesh_edges: jax.Array
    mesh_to_grid: jax.Array
    processor: dict[str, dict[str, jax.Array]]


@dataclass(frozen=True, kw_only=True)
class GraphCastNetwork:
    """The shape of one network; its methods are pure functions.

    Args:
        config: of the checkpoint.
        inputs: channels of a grid point going in, spatial features not counted.
        outputs: channels coming out.
        level_sizes: vertices of each level of the mesh, coarsest first.
    """

    config: ModelConfig
    inputs: int
    outputs: int

    @property
    def level_sizes(self) -> tuple[int, ...]:
        """Vertices of each level of the mesh, coarsest first."""
        return tuple(10 * 4**level + 2 for level in range(self.config.mesh_size + 1))

    def structure(self, graphs: ModelGraphs, *, dtype: jnp.dtype = jnp.float32) -> Structure:
        """The graphs as arrays, features in ``dtype``."""
        size = _rows_per_chunk(dtype)
        return Structure(
            grid_features=jnp.asarray(graphs.grid_features, dtype),
            mesh_features=jnp.asarray(graphs.mesh_features, dtype),
            grid_to_mesh=chunk_by_receiver(
                graphs.grid_to_mesh, nodes=self.level_sizes[-1], size=size, dtype=dtype
            ),
            mesh=chunk_slots(graphs.mesh, size=size, dtype=dtype),
            mesh_to_grid_senders=jnp.asarray(graphs.mesh_to_grid.senders.reshape(-1, 3)),
            mesh_to_grid_features=jnp.asarray(graphs.mesh_to_grid.features.reshape(-1, 3, 4), dtype),
        )

    def parameter_shapes(self) -> dict[str, dict[str, tuple[int, ...]]]:
        """Shape of every parameter under its published name."""
        latent, hidden = self.config.latent_size, self.config.hidden_layers
        shapes: dict[str, dict[str, tuple[int, ...]]] = {}
        for name, inputs, outputs, normalized in self._perceptrons():
            sizes = [inputs, *[latent] * hidden, outputs]
            for layer in range(hidden + 1):
                shapes[f"{name}_mlp/~/linear_{layer}"] = {
                    "b": (sizes[layer + 1],),
                    "w": (sizes[layer], sizes[layer + 1]),
                }
            if normalized:
                shapes[f"{name}_layer_norm"] = {"offset": (outputs,), "scale": (outputs,)}
        return shapes

    def _perceptrons(self) -> Iterator[tuple[str, int, int, bool]]:
        """Name, inputs, outputs and whether normalised, of every MLP."""
        latent = self.config.latent_size
        nodes_in = self.inputs + _SPATIAL_NODE_FEATURES
        for prefix, kind in ((_GRID_TO_MESH, "grid2mesh"), (_MESH, "mesh"), (_MESH_TO_GRID, "mesh2grid")):
            yield f"{prefix}/encoder_edges_{kind}", _SPATIAL_EDGE_FEATURES, latent, True
            for step in range(self.config.gnn_msg_steps if kind == "mesh" else 1):
                yield f"{prefix}/processor_edges_{step}_{kind}", 3 * latent, latent, True
                yield (
                    f"{prefix}/processor_nodes_{step}_mesh_nodes",
                    latent * (1 + (kind != "mesh2grid")),
                    latent,
                    True,
                )
        yield f"{_GRID_TO_MESH}/encoder_nodes_grid_nodes", nodes_in, latent, True
        yield f"{_GRID_TO_MESH}/encoder_nodes_mesh_nodes", nodes_in, latent, True
        yield f"{_GRID_TO_MESH}/processor_nodes_0_grid_nodes", latent, latent, True
        yield f"{_MESH_TO_GRID}/processor_nodes_0_grid_nodes", 2 * latent, latent, True
        yield f"{_MESH_TO_GRID}/decoder_nodes_grid_nodes", latent, self.outputs, False

    def initial_parameters(self, key: jax.Array) -> dict[str, dict[str, jax.Array]]:
        """Fresh parameters as Haiku would draw them.

        Weights are normal with variance 1 / inputs, cut at two standard deviations; biases and offsets 0;
        scales 1.
        """
        params: dict[str, dict[str, jax.Array]] = {}
        for number, (module, shapes) in enumerate(sorted(self.parameter_shapes().items())):
            params[module] = {}
            for name, shape in shapes.items():
                if name == "w":
                    draw = jax.random.truncated_normal(jax.random.fold_in(key, number), -2.0, 2.0, shape)
                    params[module][name] = draw / np.sqrt(shape[0])
                else:
                    params[module][name] = jnp.full(shape, 1.0 if name == "scale" else 0.0)
        return params

    def embed_structure(self, params: Parameters, structure: Structure) -> StructureEmbedding:
        """What the network makes of the structure, in the type of the parameters."""
        latent = self.config.latent_size
        mesh_features = jnp.pad(structure.mesh_features, ((0, 0), (self.inputs, 0)))
        mesh_nodes = self._block(params, f"{_GRID_TO_MESH}/encoder_nodes_mesh_nodes", mesh_features)

        update = f"{_GRID_TO_MESH}/processor_edges_0_grid2mesh_mlp"
        of_edge, _, of_receiver = first_layer_parts(params, update, [latent] * 3)
        receivers = mesh_nodes @ of_receiver + params[f"{update}/~/linear_0"]["b"]
        numbers = structure.grid_to_mesh.first_receivers[:, None] + jnp.maximum(
            structure.grid_to_mesh.receivers, 0
        )
        grid_to_mesh = self._embed_edges(
            params, f"{_GRID_TO_MESH}/encoder_edges_grid2mesh", structure.grid_to_mesh.features, of_edge
        )
        grid_to_mesh = grid_to_mesh + receivers[numbers]

        update = f"{_GRID_TO_MESH}/processor_nodes_0_mesh_nodes_mlp"
        of_node, _ = first_layer_parts(params, update, [latent] * 2)
        mesh_nodes_update = mesh_nodes @ of_node + params[f"{update}/~/linear_0"]["b"]

        update = f"{_MESH_TO_GRID}/processor_edges_0_mesh2grid_mlp"
        of_edge, _, _ = first_layer_parts(params, update, [latent] * 3)
        mesh_to_grid = self._embed_edges(
            params,
            f"{_MESH_TO_GRID}/encoder_edges_mesh2grid",
            structure.mesh_to_grid_features,
            of_edge,
            params[f"{update}/~/linear_0"]["b"],
        )
        return StructureEmbedding(
            grid_features=structure.grid_features,
            grid_to_mesh=grid_to_mesh,
            mesh_nodes=mesh_nodes,
            mesh_nodes_update=mesh_nodes_update,
            mesh_edges=self._embed_edges(params, f"{_MESH}/encoder_edges_mesh", structure.mesh.features),
            mesh_to_grid=mesh_to_grid,
            processor=self._stack_processor(params),
        )

    def _embed_edges(
        self,
        params: Parameters,
        name: str,
        features: jax.Array,
        weights: jax.Array | None = None,
        bias: jax.Array | float = 0.0,
    ) -> jax.Array:
        """Embedded edges, times ``weights`` plus ``bias`` if given: shape (…, 4) to (…, latent)."""

        def embed(chunk: jax.Array) -> jax.Array:
            edges = self._block(params, name, chunk)
            return edges if weights is None else edges @ weights + bias

        flat = features.reshape(-1, features.shape[-1])
        embedded = map_chunks(embed, flat, size=_rows_per_chunk(features.dtype))
        return embedded.reshape(*features.shape[:-1], -1)

    def _stack_processor(self, params: Parameters) -> dict[str, dict[str, jax.Array]]:
        """One program then serves all message-passing steps."""
        names = {
            suffix: [f"{_MESH}/processor_{kind.format(step)}" for step in range(self.config.gnn_msg_steps)]
            for suffix, kind in (("edges", "edges_{}_mesh"), ("nodes", "nodes_{}_mesh_nodes"))
        }
        parts = ["_layer_norm", *(f"_mlp/~/linear_{layer}" for layer in range(self.config.hidden_layers + 1))]
        return {
            suffix + part: jax.tree.map(
                lambda *steps: jnp.stack(steps), *(params[step + part] for step in paths)
            )
            for suffix, paths in names.items()
            for part in parts
        }

    def needed_in_forward(self, params: Parameters) -> Parameters:
        """The parameters that ``forward`` reads itself, not through the embedding."""
        return {name: values for name, values in params.items() if not name.startswith(f"{_MESH}/")}

    def forward(
        self, params: Parameters, structure: Structure, embedding: StructureEmbedding, features: jax.Array
    ) -> jax.Array:
        """One pass of the network.

        Args:
            features: normalised channels of the grid points, shape (grid, inputs), in the type of the parameters.

        Returns:
            Channels of shape (grid, outputs).
        """
        mesh, grid = self._encode(params, structure, embedding, features)
        mesh = self._process(embedding.processor, structure.mesh, embedding.mesh_edges, mesh)
        return self._decode(params, structure, embedding.mesh_to_grid, mesh, grid)

    def _encode(
        self, params: Parameters, structure: Structure, embedding: StructureEmbedding, features: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Mesh vertices and grid points after the grid-to-mesh step, (node, latent)."""
        latent = self.config.latent_size
        edge_update = f"{_GRID_TO_MESH}/processor_edges_0_grid2mesh"
        _, of_sender, _ = first_layer_parts(params, f"{edge_update}_mlp", [latent] * 3)

        def points(chunk: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            inputs = jnp.concatenate(chunk, axis=-1)
            grid = self._block(params, f"{_GRID_TO_MESH}/encoder_nodes_grid_nodes", inputs)
            update = self._block(params, f"{_GRID_TO_MESH}/processor_nodes_0_grid_nodes", grid)
            return grid @ of_sender, grid + update

        inputs = (features, embedding.grid_features)
        sent, grid = map_chunks(points, inputs, size=_rows_per_chunk(features.dtype))

        def messages(edges: jax.Array, senders: jax.Array, _: jax.Array) -> jax.Array:
            return self._block_after_first_layer(params, edge_update, edges + sent[senders])

        received = sum_chunks_by_receiver(
            messages,
            embedding.grid_to_mesh,
            structure.grid_to_mesh,
            nodes=self.level_sizes[-1],
            features=latent,
        ).astype(grid.dtype)
        node_update = f"{_GRID_TO_MESH}/processor_nodes_0_mesh_nodes"
        _, of_received = first_layer_parts(params, f"{node_update}_mlp", [latent] * 2)
        mesh = embedding.mesh_nodes + self._block_after_first_layer(
            params, node_update, embedding.mesh_nodes_update + received @ of_received
        )
        return mesh, grid

    def _process(
        self, steps: Parameters, structure: SlotChunks, edges: jax.Array, mesh: jax.Array
    ) -> jax.Array:
        """Mesh vertices after all message-passing steps on the multi-mesh."""
        return self._message_steps(steps, structure, edges, mesh)[1]

    def _message_steps(
        self, steps: Parameters, structure: SlotChunks, edges: jax.Array, mesh: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Edges and mesh vertices after some message-passing steps, whose parameters are stacked."""

        def step(
            state: tuple[jax.Array, jax.Array], params: Parameters
        ) -> tuple[tuple[jax.Array, jax.Array], None]:
            edges, mesh = state
            edges, received = self._pass_messages(params, structure, edges, mesh)
            mesh = mesh + self._block(params, "nodes", jnp.concatenate([mesh, received], axis=-1))
            return (edges, mesh), None

        after, _ = jax.lax.scan(step, (edges, mesh), steps)
        return after

    def _pass_messages(
        self, params: Parameters, structure: SlotChunks, edges: jax.Array, mesh: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """One step on the multi-mesh: edges after it, and the sum of the messages into each vertex."""
        latent = self.config.latent_size
        of_edge, of_sender, of_receiver = first_layer_parts(params, "edges_mlp", [latent] * 3)
        sent = mesh @ of_sender
        received = mesh @ of_receiver + params["edges_mlp/~/linear_0"]["b"]

        def rows(chunk: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            edge, senders, receivers = chunk
            first = (edge.reshape(-1, latent) @ of_edge).reshape(edge.shape)
            first = first + sent[senders] + received[receivers][:, None]
            messages = self._block_after_first_layer(params, "edges", first.reshape(-1, latent))
            messages = messages.reshape(edge.shape)
            empty = (receivers < CORNERS)[:, None] & (jnp.arange(SLOTS) == SLOTS - 1)
            counted = jnp.where(empty[..., None], 0.0, messages.astype(jnp.float32))
            return edge + messages, counted.sum(axis=1)

        edges, sums = for_each_chunk(rows, (edges, structure.senders, structure.receivers))
        return edges, self._sum_levels(sums.reshape(-1, latent)).astype(mesh.dtype)

    def _sum_levels(self, rows: jax.Array) -> jax.Array:
        """Rows, level after level, added up at their vertices."""
        total = jnp.zeros((self.level_sizes[-1], rows.shape[-1]), rows.dtype)
        start = 0
        for size in self.level_sizes:
            total = total.at[:size].add(rows[start : start + size])
            start += size
        return total

    def _decode(
        self, params: Parameters, structure: Structure, edges: jax.Array, mesh: jax.Array, grid: jax.Array
    ) -> jax.Array:
        """The grid points' outputs, (grid, outputs)."""
        latent = self.config.latent_size
        edge_update = f"{_MESH_TO_GRID}/processor_edges_0_mesh2grid"
        _, of_sender, of_receiver = first_layer_parts(params, f"{edge_update}_mlp", [latent] * 3)
        sent = mesh @ of_sender

        def points(chunk: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
            edge, senders, point = chunk
            first = edge + sent[senders] + (point @ of_receiver)[:, None]
            messages = self._block_after_first_layer(params, edge_update, first.reshape(-1, latent))
            received = messages.astype(jnp.float32).reshape(edge.shape).sum(axis=1).astype(point.dtype)
            inputs = jnp.concatenate([point, received], axis=-1)
            point = point + self._block(params, f"{_MESH_TO_GRID}/processor_nodes_0_grid_nodes", inputs)
            decoder = f"{_MESH_TO_GRID}/decoder_nodes_grid_nodes_mlp"
            return multi_layer_perceptron(params, decoder, point, hidden_layers=self.config.hidden_layers)

        chunks = (edges, structure.mesh_to_grid_senders, grid)
        return map_chunks(points, chunks, size=_rows_per_chunk(grid.dtype) // 2)

    def _block(self, params: Parameters, name: str, x: jax.Array) -> jax.Array:
        """An MLP with layer normalisation."""
        return self._block_after_first_layer(params, name, linear(params, f"{name}_mlp/~/linear_0", x))

    def _block_after_first_layer(self, params: Parameters, name: str, x: jax.Array) -> jax.Array:
        x = mlp_after_first_layer(params, f"{name}_mlp", x, hidden_layers=self.config.hidden_layers)
        return layer_norm(params, f"{name}_layer_norm", x)


def _rows_per_chunk(dtype: jnp.dtype) -> int:
    """Edges or grid points processed at once.

    In float32 a chunk of 1536 rows of 512 features fits a processor's second-level cache; half-precision products
    on a CPU convert their weights every time and want longer ones.
    """
    return 1536 if jnp.dtype(dtype) == jnp.float32 else 6144
