"""Names, shapes and fresh values of the denoiser's parameters, as Haiku made them in the published files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from model.channels import count_channels, forcing_blocks, input_blocks, target_blocks
from model.gencast.configs import DenoiserArchitectureConfig, NoiseEncoderConfig
from model.gencast.noise_encoder import noise_encoder_shapes
from model.gencast.sparse_transformer import condition_layers, linear_layers
from model.task import TaskConfig

GRID_TO_MESH = "grid2mesh_gnn/~_networks_builder"
MESH_TO_GRID = "mesh2grid_gnn/~_networks_builder"
SPATIAL_NODE_FEATURES = 3
SPATIAL_EDGE_FEATURES = 4


@dataclass(frozen=True, kw_only=True)
class DenoiserChannels:
    """Where the channels of a grid point sit in the rows of its first layer's weights.

    Published order: the inputs by name, then forcings and noisy targets together by name, then the spatial
    features.

    Args:
        conditioning_rows: rows of the inputs, then of the forcings.
        target_rows: rows of the noisy targets.
        rows: all rows, spatial features included.
    """

    conditioning_rows: np.ndarray
    target_rows: np.ndarray
    rows: int

    @classmethod
    def of_task(cls, task: TaskConfig) -> DenoiserChannels:
        """The rows for a task."""
        inputs = count_channels(input_blocks(task))
        forcings, targets = forcing_blocks(task), target_blocks(task)
        rows: dict[str, list[int]] = {"forcings": [], "targets": []}
        start = inputs
        for block in sorted((*forcings, *targets), key=lambda block: block.variable):
            kind = "forcings" if block in forcings else "targets"
            rows[kind].extend(range(start, start + block.channels))
            start += block.channels
        return cls(
            conditioning_rows=np.array([*range(inputs), *rows["forcings"]]),
            target_rows=np.array(rows["targets"]),
            rows=start + SPATIAL_NODE_FEATURES,
        )

    @property
    def outputs(self) -> int:
        """Channels of the targets."""
        return len(self.target_rows)

    @property
    def spatial_rows(self) -> slice:
        """Rows of the spatial features."""
        return slice(self.rows - SPATIAL_NODE_FEATURES, self.rows)


@dataclass(frozen=True, kw_only=True)
class LinearLayer:
    """One linear layer.

    Args:
        path: its module path.
        inputs, outputs: sizes.
        bias: whether it has one.
        initializer: of its weights.
    """

    path: str
    inputs: int
    outputs: int
    bias: bool
    initializer: Callable[[tuple[int, ...], jnp.dtype], jax.Array]


def linear_layers_of(
    config: DenoiserArchitectureConfig, noise_encoder: NoiseEncoderConfig, channels: DenoiserChannels
) -> Iterator[LinearLayer]:
    """Every layer of the network: all its parameters belong to one."""
    for path, inputs, outputs in noise_encoder_shapes(noise_encoder):
        # Fourier features have variance ½ and GELU halves it again, hence 2.
        scaled = hk.initializers.VarianceScaling(2.0, "fan_in", "uniform")
        yield LinearLayer(path=path, inputs=inputs, outputs=outputs, bias=True, initializer=scaled)
    latent, encoding = config.latent_size, noise_encoder.output_sizes[-1]
    for name, inputs, outputs, normalized in _perceptrons(latent, channels):
        sizes = (inputs, *[latent] * config.hidden_layers, outputs)
        for layer in range(config.hidden_layers + 1):
            yield LinearLayer(
                path=f"{name}_mlp/~/linear_{layer}",
                inputs=sizes[layer],
                outputs=sizes[layer + 1],
                bias=True,
                initializer=hk.initializers.TruncatedNormal(1 / np.sqrt(sizes[layer])),
            )
        if normalized:
            yield _condition_layer(f"{name}_norm_conditioning/linear", encoding, outputs)
    transformer = config.sparse_transformer_config
    for path, inputs, outputs, bias, variance in linear_layers(transformer):
        yield LinearLayer(
            path=path,
            inputs=inputs,
            outputs=outputs,
            bias=bias,
            initializer=hk.initializers.VarianceScaling(variance),
        )
    for path in condition_layers(transformer):
        yield _condition_layer(path, encoding, transformer.d_model)


def _condition_layer(path: str, encoding: int, features: int) -> LinearLayer:
    """Starts as scale 1 and offset 0, nearly."""
    tiny = hk.initializers.TruncatedNormal(stddev=1e-8)
    return LinearLayer(path=path, inputs=encoding, outputs=2 * features, bias=True, initializer=tiny)


def _perceptrons(latent: int, channels: DenoiserChannels) -> Iterator[tuple[str, int, int, bool]]:
    """Name, inputs, outputs and whether normalised, of every MLP of encoder and decoder."""
    for prefix, kind in ((GRID_TO_MESH, "grid2mesh"), (MESH_TO_GRID, "mesh2grid")):
        yield f"{prefix}/encoder_edges_{kind}", SPATIAL_EDGE_FEATURES, latent, True
        yield f"{prefix}/processor_edges_0_{kind}", 3 * latent, latent, True
    yield f"{GRID_TO_MESH}/encoder_nodes_grid_nodes", channels.rows, latent, True
    yield f"{GRID_TO_MESH}/encoder_nodes_mesh_nodes", channels.rows, latent, True
    yield f"{GRID_TO_MESH}/processor_nodes_0_grid_nodes", latent, latent, True
    yield f"{GRID_TO_MESH}/processor_nodes_0_mesh_nodes", 2 * latent, latent, True
    yield f"{MESH_TO_GRID}/processor_nodes_0_grid_nodes", 2 * latent, latent, True
    # The published files carry this one although nothing reads what it makes.
    yield f"{MESH_TO_GRID}/processor_nodes_0_mesh_nodes", latent, latent, True
    yield f"{MESH_TO_GRID}/decoder_nodes_grid_nodes", latent, channels.outputs, False


def parameter_shapes(
    config: DenoiserArchitectureConfig, noise_encoder: NoiseEncoderConfig, channels: DenoiserChannels
) -> dict[str, dict[str, tuple[int, ...]]]:
    """Shape of every parameter under its published name."""
    return {
        layer.path: {
            **({"b": (layer.outputs,)} if layer.bias else {}),
            "w": (layer.inputs, layer.outputs),
        }
        for layer in linear_layers_of(config, noise_encoder, channels)
    }


def initial_parameters(
    key: jax.Array,
    config: DenoiserArchitectureConfig,
    noise_encoder: NoiseEncoderConfig,
    channels: DenoiserChannels,
) -> dict[str, dict[str, jax.Array]]:
    """Fresh parameters, float32: weights drawn as the published models' were, biases 0."""

    def draw() -> dict[str, dict[str, jax.Array]]:
        return {
            layer.path: {
                **({"b": jnp.zeros(layer.outputs)} if layer.bias else {}),
                "w": layer.initializer((layer.inputs, layer.outputs), jnp.float32),
            }
            for layer in linear_layers_of(config, noise_encoder, channels)
        }

    return hk.transform(draw).apply({}, key)
