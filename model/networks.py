"""The families behind one interface: from normalised channels of the grid points to normalised predictions.

A further family is one more class here and one more branch of ``build_network``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from model.channels import count_channels, forcing_blocks, input_blocks, target_blocks
from model.checkpoint_file import CheckpointFile, check_parameter_shapes
from model.errors import InvalidFieldError
from model.gencast.attention_options import AttentionOptions
from model.gencast.configs import GenCastConfig
from model.gencast.edge_directions import EdgeDirections
from model.gencast.gencast import (
    GenCastNetwork,
    gencast_graphs,
    gencast_network,
    gencast_structure,
    noise_basis,
)
from model.graphcast import GraphCastNetwork, ModelConfig
from model.graphcast_config import SPARSE_TRANSFORMER
from model.graphcast_transformer import TransformerGraphCast
from model.graphs.model_graphs import GridMeshGraphs, ModelGraphs, model_graphs
from model.grid import Grid
from model.precision import cast_parameters
from model.task import TaskConfig

Graphs = TypeVar("Graphs", bound=GridMeshGraphs)
GraphStore = Callable[[str, Callable[[], Graphs]], Graphs]
"""Given a name that tells graphs apart and how to build them, gives them back, perhaps from where it kept them."""

Prepared = Any
"""A pytree of arrays: parameters and what follows from them and the grid alone."""


class Network(Protocol):
    """A network on a grid, in a precision."""

    @property
    def checkpoint(self) -> CheckpointFile:
        """The params file's content."""

    @property
    def options(self) -> dict[str, str]:
        """What was resolved for this device, for the run's fingerprint."""

    def prepare(self) -> Prepared:
        """Everything that does not depend on the weather."""

    def predict(self, prepared: Prepared, key: jax.Array, features: jax.Array) -> jax.Array:
        """One step, as a pure function.

        Args:
            prepared: from ``prepare``.
            key: random key of the step, uint32 (2,).
            features: normalised inputs, then forcings, float32, shape (grid, channel).

        Returns:
            Normalised targets, float32, shape (grid, channel).
        """


SomeNetwork = TypeVar("SomeNetwork", bound=Network)


def build_network(
    checkpoint: CheckpointFile,
    grid: Grid,
    *,
    precision: str,
    attention: str,
    platform: str,
    graphs: GraphStore | None = None,
) -> Network:
    """The network of a checkpoint.

    Args:
        precision: ``"float32"``, ``"bfloat16"`` or ``"float16"``.
        attention: kind of attention for GenCast, or ``"auto"``, and its settings, as
            ``AttentionOptions.parse`` takes them; GraphCast has none.
        platform: JAX's name of the device's platform.
        graphs: where to look for the graphs before building them.

    Raises:
        UnknownOptionError: no such attention.
        CheckpointFileError: the parameters are not those of the configuration.
    """
    options = AttentionOptions.parse(attention)
    store = graphs or (lambda name, build: build())
    if isinstance(checkpoint.config, ModelConfig):
        config = checkpoint.config
        network = graphcast_network(config, checkpoint.task)
        check_parameter_shapes(checkpoint.params, network.parameter_shapes())
        name = (
            f"graphcast-{grid.resolution:g}-{config.mesh_size}-{config.radius_query_fraction_edge_length:g}"
            f"-{config.mesh2grid_edge_normalization_factor or 0:g}"
        )
        return GraphCastOnGrid(
            checkpoint=checkpoint,
            network=network,
            graphs=lambda: store(name, lambda: graphcast_graphs(config, grid)),
            precision=precision,
        )
    return GenCastOnGrid.build(checkpoint, checkpoint.config, grid, store, precision, options, platform)


def with_parameters(network: SomeNetwork, parameters: Mapping[str, Mapping[str, Any]]) -> SomeNetwork:
    """The same network with other parameters, of the same names and shapes.

    Raises:
        CheckpointFileError: they are not.
    """
    shapes = jax.tree.map(np.shape, network.checkpoint.params)
    check_parameter_shapes(parameters, shapes)
    return replace(network, checkpoint=replace(network.checkpoint, params=parameters))  # type: ignore[type-var]


def graphcast_network(config: ModelConfig, task: TaskConfig) -> GraphCastNetwork:
    """GraphCast for a task, with the processor that its configuration names."""
    inputs = count_channels(input_blocks(task)) + count_channels(forcing_blocks(task))
    outputs = count_channels(target_blocks(task))
    if config.processor_kind == SPARSE_TRANSFORMER:
        return TransformerGraphCast.of(config, inputs=inputs, outputs=outputs)
    return GraphCastNetwork(config=config, inputs=inputs, outputs=outputs)


def graphcast_graphs(config: ModelConfig, grid: Grid) -> ModelGraphs:
    """GraphCast's graphs on a grid."""
    return model_graphs(
        latitude=grid.latitude,
        longitude=grid.longitude,
        mesh_size=config.mesh_size,
        radius_fraction=config.radius_query_fraction_edge_length,
        normalization=config.mesh2grid_edge_normalization_factor,
    )


@dataclass(frozen=True, kw_only=True)
class GraphCastOnGrid:
    """GraphCast as a ``Network``."""

    checkpoint: CheckpointFile
    network: GraphCastNetwork
    graphs: Callable[[], ModelGraphs]
    precision: str

    @property
    def options(self) -> dict[str, str]:
        """Precision alone."""
        return {"precision": self.precision}

    def prepare(self) -> Prepared:
        """Parameters, structure and its embedding."""
        params = cast_parameters(self.checkpoint.params, self.precision)
        structure = self.network.structure(self.graphs(), dtype=jnp.dtype(self.precision))
        embedding = jax.jit(self.network.embed_structure)(params, structure)
        return self.network.needed_in_forward(params), structure, embedding

    def predict(self, prepared: Prepared, key: jax.Array, features: jax.Array) -> jax.Array:
        """Deterministic: the key has no effect."""
        params, structure, embedding = prepared
        return self.network.forward(params, structure, embedding, features.astype(self.precision)).astype(
            jnp.float32
        )


@dataclass(frozen=True, kw_only=True)
class GenCastOnGrid:
    """GenCast as a ``Network``."""

    checkpoint: CheckpointFile
    network: GenCastNetwork
    graphs: Callable[[], GridMeshGraphs]
    grid: Grid
    precision: str

    @classmethod
    def build(
        cls,
        checkpoint: CheckpointFile,
        config: GenCastConfig,
        grid: Grid,
        store: GraphStore,
        precision: str,
        attention: AttentionOptions,
        platform: str,
    ) -> GenCastOnGrid:
        """Check the parameters and build or fetch the graphs."""
        architecture = config.denoiser_architecture_config
        network = gencast_network(
            config,
            checkpoint.task,
            attention=attention,
            platform=platform,
        )
        check_parameter_shapes(checkpoint.params, network.parameter_shapes())
        name = (
            f"gencast-{grid.resolution:g}-{architecture.mesh_size}"
            f"-{architecture.radius_query_fraction_edge_length:g}"
        )
        return cls(
            checkpoint=checkpoint,
            network=network,
            graphs=lambda: store(name, lambda: gencast_graphs(config, grid)),
            grid=grid,
            precision=precision,
        )

    @property
    def options(self) -> dict[str, str]:
        """Precision and attention."""
        return {"precision": self.precision, "attention": type(self.network.denoiser.attention).__name__}

    @cached_property
    def _edge_directions(self) -> EdgeDirections:
        return self.network.denoiser.edge_directions(self.checkpoint.params, self.graphs())

    def prepare(self) -> Prepared:
        """Parameters, structure, its embedding, and the harmonics of the noise."""
        params = cast_parameters(self.checkpoint.params, self.precision)
        denoiser = self.network.denoiser
        structure = gencast_structure(self.network, self.graphs(), dtype=jnp.dtype(self.precision))
        embedding = jax.jit(denoiser.embed_structure)(params, structure, self._edge_directions)
        basis = {name: jnp.asarray(array) for name, array in noise_basis(self.grid).items()}
        return denoiser.parameters_besides(params), structure, embedding, basis

    def predict(self, prepared: Prepared, key: jax.Array, features: jax.Array) -> jax.Array:
        """A sample."""
        params, structure, embedding, basis = prepared
        return self.network.sample(params, structure, embedding, basis, key, features.astype(self.precision))


_RESOLUTION = re.compile(r"resolution (\d+(?:\.\d+)?)|(\d+(?:[p.]\d+)?) ?deg")
_GENCAST_RESOLUTIONS = {4: 1.0, 5: 1.0, 6: 0.25}
"""Grid of the published GenCast checkpoints by refinement of their mesh."""


def checkpoint_grid(checkpoint: CheckpointFile, grid: Grid | None = None) -> Grid:
    """The grid a checkpoint was trained on.

    GraphCast's configuration says it; for GenCast it stands in the description or follows from the mesh.

    Args:
        grid: the grid in use, taken where the checkpoint does not say.

    Raises:
        InvalidFieldError: the grid in use is another, or is not given and cannot be told.
    """
    resolution: float | None = None
    if isinstance(checkpoint.config, ModelConfig):
        resolution = checkpoint.config.resolution
    elif match := _RESOLUTION.search(checkpoint.description):
        resolution = float((match[1] or match[2]).replace("p", "."))
    elif grid is None:
        mesh_size = checkpoint.config.denoiser_architecture_config.mesh_size
        resolution = _GENCAST_RESOLUTIONS.get(mesh_size)
    if resolution is None:
        if grid is None:
            raise InvalidFieldError(
                "expected the grid to be named: this checkpoint does not say its resolution"
            )
        return grid
    if grid is not None and abs(grid.resolution - resolution) > 1e-6:
        raise InvalidFieldError(
            f"grid: expected {resolution:g}°, on which the checkpoint was trained, got {grid.resolution:g}°"
        )
    return Grid(resolution=resolution)
