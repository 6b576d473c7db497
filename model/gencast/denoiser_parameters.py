"""Names, shapes and fresh values of the denoiser's parameters, as Haiku made them in the published files."""

from __future__ import annotations

from collections.abc import Iterator
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
_SPREAD_AFTER_CUT = 0.8796256610342398
"""Standard deviation of a unit normal distribution cut at ±2; Haiku corrects variance scaling for it."""


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
        spread: of fresh weights: half the width of a uniform distribution, or the standard deviation of a
            normal one before it is cut at two of these.
        uniform: which of the two.
    """

    path: str
    inputs: int
    outputs: int
    spread: float
    bias: bool = True
    uniform: bool = False


def linear_layers_of(
    config: DenoiserArchitectureConfig, noise_encoder: NoiseEncoderConfig, channels: DenoiserChannels
) -> Iterator[LinearLayer]:
    """Every layer of the network: all its parameters belong to one."""
    for path, inputs, outputs in noise_encoder_shapes(noise_encoder):
        # Fourier features have variance ½ and GELU halves it again: variance 2 / inputs, a third of width².
        yield LinearLayer(
            path=path, inputs=inputs, outputs=outputs, spread=float(np.sqrt(3 * 2 / inputs)), uniform=True
        )
    latent, encoding = config.latent_size, noise_encoder.output_sizes[-1]
    for name, inputs, outputs, normalized in _perceptrons(latent, channels):
        sizes = (inputs, *[latent] * config.hidden_layers, outputs)
        for layer in range(config.hidden_layers + 1):
            yield LinearLayer(
                path=f"{name}_mlp/~/linear_{layer}",
                inputs=sizes[layer],
                outputs=sizes[layer + 1],
                spread=sizes[layer] ** -0.5,
            )
        if normalized:
            yield _condition_layer(f"{name}_norm_conditioning/linear", encoding, outputs)
    transformer = config.sparse_transformer_config
    for path, inputs, outputs, bias, variance in linear_layers(transformer):
        spread = float(np.sqrt(variance / inputs)) / _SPREAD_AFTER_CUT
        yield LinearLayer(path=path, inputs=inputs, outputs=outputs, spread=spread, bias=bias)
    for path in condition_layers(transformer):
        yield _condition_layer(path, encoding, transformer.d_model)


def _condition_layer(path: str, encoding: int, features: int) -> LinearLayer:
    """Starts as scale 1 and offset 0, nearly."""
    return LinearLayer(path=path, inputs=encoding, outputs=2 * features, spread=1e-8)


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
    """Fresh parameters, float32, of the distributions that Haiku drew the published models' from; biases 0.

    All weights of one kind are drawn at once: a program that draws each of some hundred takes minutes to compile.
    """
    layers = list(linear_layers_of(config, noise_encoder, channels))
    initializers: dict[bool, hk.initializers.Initializer] = {
        True: hk.initializers.RandomUniform(-1.0, 1.0),
        False: hk.initializers.TruncatedNormal(stddev=1.0),
    }

    def draw() -> dict[bool, jax.Array]:
        sizes = {
            kind: sum(x.inputs * x.outputs for x in layers if x.uniform == kind) for kind in initializers
        }
        return {kind: initializer((sizes[kind],), jnp.float32) for kind, initializer in initializers.items()}

    drawn = hk.transform(draw).apply({}, key)
    used = dict.fromkeys(initializers, 0)
    params: dict[str, dict[str, jax.Array]] = {}
    for layer in layers:
        start, used[layer.uniform] = used[layer.uniform], used[layer.uniform] + layer.inputs * layer.outputs
        weights = drawn[layer.uniform][start : used[layer.uniform]].reshape(layer.inputs, layer.outputs)
        bias = {"b": jnp.zeros(layer.outputs)} if layer.bias else {}
        params[layer.path] = {**bias, "w": layer.spread * weights}
    return params
