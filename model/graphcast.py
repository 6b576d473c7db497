"""GraphCast's network (Lam et al. 2023, *Science* 382, 1416–1421): encoder, processor, decoder.

Everything here is a pure function of parameters, of the structure of the graphs and of the grid points' features.
What does not depend on the weather (``embed_structure``) is kept apart from what does (``forward``): for
inference it is computed once for a checkpoint and grid, in training it is part of what is differentiated.

Parameters carry the names and shapes of the published checkpoints, which are Haiku's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from model.graphcast_config import GATED_MESSAGE_PASSING
from model.graphcast_config import ModelConfig as ModelConfig
from model.graphcast_structure import Structure as Structure
from model.graphcast_structure import StructureEmbedding as StructureEmbedding
from model.graphs.chunks import (
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
from model.precision import accumulation_type
from model.training.rematerialisation import KEEP_ALL, Rematerialisation, in_groups, recomputed

_GRID_TO_MESH = "grid2mesh_gnn/~_networks_builder"
_MESH = "mesh_gnn/~_networks_builder"
_MESH_TO_GRID = "mesh2grid_gnn/~_networks_builder"
_TO_MESH = f"{_GRID_TO_MESH}/encoder_edges_grid2mesh"
_TO_GRID = f"{_MESH_TO_GRID}/encoder_edges_mesh2grid"
_SPATIAL_NODE_FEATURES = 3
_SPATIAL_EDGE_FEATURES = 4


@dataclass(frozen=True, kw_only=True)
class GraphCastNetwork:
    """The shape of one network; its methods are pure functions.

    Args:
        config: of the checkpoint.
        inputs: channels of a grid point going in, spatial features not counted.
        outputs: channels coming out.
        recompute: what is not kept for a backward pass.
    """

    config: ModelConfig
    inputs: int
    outputs: int
    recompute: Rematerialisation = KEEP_ALL

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
            mesh=self._processor_structure(graphs, size, dtype),
            mesh_to_grid_senders=jnp.asarray(graphs.mesh_to_grid.senders.reshape(-1, 3)),
            mesh_to_grid_features=jnp.asarray(graphs.mesh_to_grid.features.reshape(-1, 3, 4), dtype),
        )

    def _processor_structure(self, graphs: ModelGraphs, size: int, dtype: jnp.dtype) -> Any:
        return chunk_slots(graphs.mesh, size=size, dtype=dtype)

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
        return shapes | self._other_shapes()

    def _other_shapes(self) -> dict[str, dict[str, tuple[int, ...]]]:
        """Of parameters that are no MLP's."""
        if not self._gated:
            return {}
        latent = self.config.latent_size
        shape = {"b": (latent,), "w": (latent, latent)}
        return {f"{_MESH}/processor_gates_{step}_mesh": shape for step in range(self.config.gnn_msg_steps)}

    @property
    def _gated(self) -> bool:
        return self.config.processor_kind == GATED_MESSAGE_PASSING

    @property
    def _message_passing_steps(self) -> int:
        return self.config.gnn_msg_steps

    def _perceptrons(self) -> Iterator[tuple[str, int, int, bool]]:
        """Name, inputs, outputs and whether normalised, of every MLP."""
        latent = self.config.latent_size
        nodes_in = self.inputs + _SPATIAL_NODE_FEATURES
        for prefix, kind in ((_GRID_TO_MESH, "grid2mesh"), (_MESH, "mesh"), (_MESH_TO_GRID, "mesh2grid")):
            steps = self._message_passing_steps if kind == "mesh" else 1
            if steps:
                yield f"{prefix}/encoder_edges_{kind}", _SPATIAL_EDGE_FEATURES, latent, True
            for step in range(steps):
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
        embed = not self.recompute.edge_chunks
        grid_to_mesh = None
        if embed:
            numbers = structure.grid_to_mesh.first_receivers[:, None] + jnp.maximum(
                structure.grid_to_mesh.receivers, 0
            )
            grid_to_mesh = self._embed_edges(params, _TO_MESH, structure.grid_to_mesh.features, of_edge)
            grid_to_mesh = grid_to_mesh + receivers[numbers]

        update = f"{_GRID_TO_MESH}/processor_nodes_0_mesh_nodes_mlp"
        of_node, _ = first_layer_parts(params, update, [latent] * 2)
        mesh_nodes_update = mesh_nodes @ of_node + params[f"{update}/~/linear_0"]["b"]

        update = f"{_MESH_TO_GRID}/processor_edges_0_mesh2grid_mlp"
        of_edge, _, _ = first_layer_parts(params, update, [latent] * 3)
        bias = params[f"{update}/~/linear_0"]["b"]
        mesh_to_grid = (
            self._embed_edges(params, _TO_GRID, structure.mesh_to_grid_features, of_edge, bias)
            if embed
            else None
        )
        return StructureEmbedding(
            grid_features=structure.grid_features,
            grid_to_mesh=grid_to_mesh,
            grid_to_mesh_receivers=None if embed else receivers,
            mesh_nodes=mesh_nodes,
            mesh_nodes_update=mesh_nodes_update,
            mesh_edges=self._embed_mesh_edges(params, structure),
            mesh_to_grid=mesh_to_grid,
            processor=self._stack_processor(params),
        )

    def _embed_mesh_edges(self, params: Parameters, structure: Structure) -> jax.Array | None:
        return self._embed_edges(params, f"{_MESH}/encoder_edges_mesh", structure.mesh.features)

    def _embed_edges(
        self,
        params: Parameters,
        name: str,
        features: jax.Array,
        weights: jax.Array | None = None,
        bias: jax.Array | np.ndarray | float = 0.0,
    ) -> jax.Array:
        """Embedded edges, times ``weights`` plus ``bias`` if given: shape (…, 4) to (…, latent)."""

        def embed(chunk: jax.Array) -> jax.Array:
            edges = self._block(params, name, chunk)
            return edges if weights is None else edges @ weights + bias

        flat = features.reshape(-1, features.shape[-1])
        embed = recomputed(embed, when=self.recompute.edge_chunks)
        embedded = map_chunks(embed, flat, size=_rows_per_chunk(features.dtype))
        return embedded.reshape(*features.shape[:-1], -1)

    def _stack_processor(self, params: Parameters) -> dict[str, dict[str, jax.Array]]:
        """One program then serves all message-passing steps."""
        names = {
            suffix: [f"{_MESH}/processor_{kind.format(step)}" for step in range(self.config.gnn_msg_steps)]
            for suffix, kind in (
                ("edges", "edges_{}_mesh"),
                ("nodes", "nodes_{}_mesh_nodes"),
                ("gates", "gates_{}_mesh"),
            )
        }
        parts = ["_layer_norm", *(f"_mlp/~/linear_{layer}" for layer in range(self.config.hidden_layers + 1))]
        return {
            suffix + part: jax.tree.map(
                lambda *steps: jnp.stack(steps), *(params[step + part] for step in paths)
            )
            for suffix, paths in names.items()
            for part in ([""] if suffix == "gates" else parts)
            if suffix != "gates" or self._gated
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
        encode = recomputed(self._encode, when=self.recompute.encoder)
        decode = recomputed(self._decode, when=self.recompute.decoder)
        mesh, grid = encode(params, structure, embedding, features)
        mesh = self._process(embedding.processor, structure.mesh, embedding.mesh_edges, mesh)
        return decode(params, structure, embedding.mesh_to_grid, mesh, grid)

    def _encode(
        self, params: Parameters, structure: Structure, embedding: StructureEmbedding, features: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Mesh vertices and grid points after the grid-to-mesh step, (node, latent)."""
        latent = self.config.latent_size
        edge_update = f"{_GRID_TO_MESH}/processor_edges_0_grid2mesh"
        of_edge, of_sender, _ = first_layer_parts(params, f"{edge_update}_mlp", [latent] * 3)

        def points(chunk: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            inputs = jnp.concatenate(chunk, axis=-1)
            grid = self._block(params, f"{_GRID_TO_MESH}/encoder_nodes_grid_nodes", inputs)
            update = self._block(params, f"{_GRID_TO_MESH}/processor_nodes_0_grid_nodes", grid)
            return grid @ of_sender, grid + update

        points = recomputed(points, when=self.recompute.edge_chunks)
        inputs = (features, embedding.grid_features)
        sent, grid = map_chunks(points, inputs, size=_rows_per_chunk(features.dtype))

        edges, receivers_part = embedding.grid_to_mesh, embedding.grid_to_mesh_receivers

        def messages(edges: jax.Array, senders: jax.Array, receivers: jax.Array) -> jax.Array:
            if receivers_part is not None:
                edges = self._block(params, _TO_MESH, edges) @ of_edge + receivers_part[receivers]
            return self._block_after_first_layer(params, edge_update, edges + sent[senders])

        edges = structure.grid_to_mesh.features if edges is None else edges
        received = self._sum_at_mesh(messages, edges, structure)
        if grid.dtype != jnp.float16:  # whose range the thousands of messages into a polar node may exceed
            received = received.astype(grid.dtype)
        node_update = f"{_GRID_TO_MESH}/processor_nodes_0_mesh_nodes"
        _, of_received = first_layer_parts(params, f"{node_update}_mlp", [latent] * 2)
        mesh = embedding.mesh_nodes + self._block_after_first_layer(
            params, node_update, embedding.mesh_nodes_update + received @ of_received
        ).astype(grid.dtype)
        return mesh, grid

    def _sum_at_mesh(
        self, messages: Callable[..., jax.Array], edges: jax.Array, structure: Structure
    ) -> jax.Array:
        """Sum of the grid's messages into each mesh vertex."""
        return sum_chunks_by_receiver(
            messages,
            edges,
            structure.grid_to_mesh,
            nodes=self.level_sizes[-1],
            features=self.config.latent_size,
            recompute=self.recompute.edge_chunks,
        )

    def _everywhere(self, mesh: jax.Array) -> jax.Array:
        """Features of all vertices of the mesh, from those at hand."""
        return mesh

    def _process(self, steps: Parameters, structure: Any, edges: Any, mesh: jax.Array) -> jax.Array:
        """Mesh vertices after all steps of the processor, by groups that are recomputed as one if so wanted."""

        def layers(state: tuple[Any, jax.Array], some: Parameters) -> tuple[Any, jax.Array]:
            return self._message_steps(some, structure, *state)

        return in_groups(layers, (edges, mesh), steps, kept_every=self.recompute.message_steps)[1]

    def _message_steps(
        self, steps: Parameters, structure: Any, edges: Any, mesh: jax.Array
    ) -> tuple[Any, jax.Array]:
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
        sent = self._everywhere(mesh @ of_sender)
        received = mesh @ of_receiver + params["edges_mlp/~/linear_0"]["b"]

        def rows(chunk: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
            edge, senders, receivers, *absent = chunk
            first = (edge.reshape(-1, latent) @ of_edge).reshape(edge.shape)
            first = first + sent[senders] + received[receivers][:, None]
            first = first.reshape(-1, latent)
            messages = self._block_after_first_layer(params, "edges", first)
            if self._gated:
                messages = messages * jax.nn.sigmoid(linear(params, "gates", first))
            messages = messages.reshape(edge.shape)
            empty = absent[0] if absent else _empty_slots(receivers)
            counted = jnp.where(empty[..., None], 0.0, messages.astype(accumulation_type(messages.dtype)))
            return edge + messages, counted.sum(axis=1)

        rows = recomputed(rows, when=self.recompute.edge_chunks)
        edges, sums = for_each_chunk(rows, (edges, *self._rows(structure)))
        return edges, self._sum_rows(sums.reshape(-1, latent), structure).astype(mesh.dtype)

    def _rows(self, structure: Any) -> tuple[jax.Array, ...]:
        """Senders and receivers of the rows and, unless their numbers tell it, which slots have no edge."""
        return structure.senders, structure.receivers

    def _sum_rows(self, rows: jax.Array, structure: SlotChunks) -> jax.Array:
        """Rows, level after level, added up at their vertices."""
        total = jnp.zeros((self.level_sizes[-1], rows.shape[-1]), rows.dtype)
        start = 0
        for size in self.level_sizes:
            total = total.at[:size].add(rows[start : start + size])
            start += size
        return total

    def _decode(
        self,
        params: Parameters,
        structure: Structure,
        edges: jax.Array | None,
        mesh: jax.Array,
        grid: jax.Array,
    ) -> jax.Array:
        """The grid points' outputs, (grid, outputs)."""
        latent = self.config.latent_size
        edge_update = f"{_MESH_TO_GRID}/processor_edges_0_mesh2grid"
        of_edge, of_sender, of_receiver = first_layer_parts(params, f"{edge_update}_mlp", [latent] * 3)
        sent = self._everywhere(mesh @ of_sender)
        embed = edges is None

        def points(chunk: tuple[jax.Array, ...]) -> jax.Array:
            edge, senders, point = chunk
            if embed:
                edge = (
                    self._block(params, _TO_GRID, edge) @ of_edge
                    + params[f"{edge_update}_mlp/~/linear_0"]["b"]
                )
            first = edge + sent[senders] + (point @ of_receiver)[:, None]
            messages = self._block_after_first_layer(params, edge_update, first.reshape(-1, latent))
            summed = messages.astype(accumulation_type(point.dtype)).reshape(edge.shape).sum(axis=1)
            received = summed.astype(point.dtype)
            inputs = jnp.concatenate([point, received], axis=-1)
            point = point + self._block(params, f"{_MESH_TO_GRID}/processor_nodes_0_grid_nodes", inputs)
            decoder = f"{_MESH_TO_GRID}/decoder_nodes_grid_nodes_mlp"
            return multi_layer_perceptron(params, decoder, point, hidden_layers=self.config.hidden_layers)

        points = recomputed(points, when=self.recompute.edge_chunks)
        edges = structure.mesh_to_grid_features if edges is None else edges
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


def _empty_slots(receivers: jax.Array) -> jax.Array:
    """Where rows have no edge: (row,) to (row, slot)."""
    return (receivers < CORNERS)[:, None] & (jnp.arange(SLOTS) == SLOTS - 1)
