"""GenCast in one piece: a step of the weather as a sample of the diffusion model, and what it is trained by.

Fields are dictionaries of arrays by variable name, dims ([frame,] [level,] latitude, longitude), as in
``model.channels``; normalised with the statistics' mean and standard deviation, targets that are also inputs
as residuals to the last frame divided by the standard deviation of differences.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from model.channels import ChannelBlock, target_blocks
from model.gencast.attention import build_attention
from model.gencast.attention_options import AttentionOptions
from model.gencast.configs import GenCastConfig
from model.gencast.denoiser import Denoiser, StructureEmbedding
from model.gencast.denoiser_parameters import DenoiserChannels, initial_parameters, parameter_shapes
from model.gencast.diffusion_sampler import rho_quantile, sample, successive_keys
from model.gencast.mesh_order import banded_mesh, mesh_neighbourhood
from model.gencast.spherical_noise import SphericalHarmonics, white_noise
from model.gencast.structure import DenoiserStructure, denoiser_structure
from model.graphs.graph_network import Parameters
from model.graphs.model_graphs import GridMeshGraphs, grid_mesh_graphs
from model.grid import Grid
from model.task import TaskConfig
from model.training.rematerialisation import recomputed

NoiseBasis = dict[str, jax.Array]


@dataclass(frozen=True, kw_only=True)
class GenCastNetwork:
    """One GenCast on one grid; its methods but ``graphs`` are pure functions of arrays.

    Args:
        config: all configurations of the checkpoint.
        task: what goes in and comes out.
        denoiser: the network.
    """

    config: GenCastConfig
    task: TaskConfig
    denoiser: Denoiser

    @property
    def targets(self) -> tuple[ChannelBlock, ...]:
        """Blocks of the targets' channels; each variable's noise has its own key."""
        return target_blocks(self.task)

    def parameter_shapes(self) -> dict[str, dict[str, tuple[int, ...]]]:
        """Shape of every parameter under its published name."""
        return parameter_shapes(
            self.denoiser.config, self.config.noise_encoder_config, self.denoiser.channels
        )

    def initial_parameters(self, key: jax.Array) -> dict[str, dict[str, jax.Array]]:
        """Fresh parameters as Haiku would draw them, float32."""
        return initial_parameters(
            key, self.denoiser.config, self.config.noise_encoder_config, self.denoiser.channels
        )

    def noise(self, keys: jax.Array, basis: NoiseBasis) -> jax.Array:
        """White noise on the sphere for all targets: keys (variable, 2) → float32 (grid, targets)."""
        fields = white_noise(keys, [block.channels for block in self.targets], basis)
        return fields.reshape(fields.shape[0], -1).T

    def sample(
        self,
        params: Parameters,
        structure: DenoiserStructure,
        embedding: StructureEmbedding,
        basis: NoiseBasis,
        key: jax.Array,
        conditioning: jax.Array,
    ) -> jax.Array:
        """A sample of the normalised target residuals.

        Args:
            basis: of the noise, from ``noise_basis``.
            key: uint32 (2,), the step's.
            conditioning: normalised inputs, then forcings, in the type of the parameters, shape (grid,
                channels).

        Returns:
            float32, shape (grid, targets).
        """
        conditioned = self.denoiser.condition(params, embedding, conditioning)

        def denoise(x: jax.Array, noise_level: jax.Array) -> jax.Array:
            return self.denoiser.evaluate(params, structure, embedding, conditioned, x, noise_level)

        return sample(
            key,
            self.config.sampler_config,
            denoise=denoise,
            noise=lambda keys: self.noise(keys, basis),
            draws=len(self.targets),
        )

    def denoising_pair(
        self,
        params: Parameters,
        structure: DenoiserStructure,
        basis: NoiseBasis,
        key: jax.Array,
        conditioning: jax.Array,
        targets: jax.Array,
    ) -> tuple[jax.Array, jax.Array]:
        """What the loss compares with the targets, and its weight (Karras et al. 2022, eq. 8, σ_data = 1).

        A noise level is drawn from the training distribution, noise added to the targets, and removed.

        Args:
            key: uint32 (2,).
            conditioning: as for ``sample``.
            targets: normalised residuals, float32, shape (grid, targets).

        Returns:
            Denoised targets, float32 (grid, targets), and λ(σ) = 1 / c_out(σ)² = (σ² + 1) / σ².
        """
        keys = successive_keys(key, 1 + len(self.targets))
        # In the published recipe the sampler's variables are in alphabetical order, the loss's in the task's.
        of_variable = dict(zip(self.task.target_variables, keys[1:], strict=True))
        noise_keys = jnp.stack([of_variable[block.variable] for block in self.targets])
        noise = self.config.noise_config
        level = rho_quantile(
            minimum=noise.training_min_noise_level,
            maximum=noise.training_max_noise_level,
            rho=noise.training_noise_level_rho,
            quantile=jax.random.uniform(keys[0], (1,))[0],
        )
        noisy = targets + level * self.noise(noise_keys, basis)
        embed = recomputed(self.denoiser.embed_structure, when=self.denoiser.recompute.encoder)
        embedding = embed(params, structure)
        conditioned = self.denoiser.condition(params, embedding, conditioning)
        denoised = self.denoiser.evaluate(params, structure, embedding, conditioned, noisy, level)
        return denoised, (level**2 + 1) / level**2


def gencast_network(
    config: GenCastConfig,
    task: TaskConfig,
    *,
    attention: AttentionOptions | None = None,
    platform: str = "cpu",
) -> GenCastNetwork:
    """The network of a checkpoint for a platform.

    Args:
        attention: None for what the platform runs best.
        platform: JAX's name: ``cpu``, ``gpu``, ``tpu``.

    Raises:
        ValueError: the attention asked for cannot run there.
    """
    architecture = config.denoiser_architecture_config
    transformer = architecture.sparse_transformer_config
    options = (attention or AttentionOptions()).with_checkpoint(
        mask_type=transformer.mask_type, splash_block_sizes=dict(transformer.splash_block_sizes)
    )
    mesh = banded_mesh(architecture.mesh_size)
    channels = DenoiserChannels.of_task(task)
    if architecture.node_output_size not in (None, channels.outputs):
        raise ValueError(
            f"node_output_size: expected the task's {channels.outputs}, got {architecture.node_output_size}"
        )
    return GenCastNetwork(
        config=config,
        task=task,
        denoiser=Denoiser(
            config=architecture,
            noise_encoder=config.noise_encoder_config,
            channels=channels,
            attention=build_attention(
                mesh_neighbourhood(mesh, transformer.attention_k_hop),
                options,
                platform=platform,
                num_heads=transformer.num_heads,
                channels_per_head=transformer.channels_per_head,
            ),
        ),
    )


def gencast_graphs(config: GenCastConfig, grid: Grid) -> GridMeshGraphs:
    """The graphs between a grid and the banded mesh."""
    architecture = config.denoiser_architecture_config
    return grid_mesh_graphs(
        latitude=grid.latitude,
        longitude=grid.longitude,
        mesh=banded_mesh(architecture.mesh_size),
        radius_fraction=architecture.radius_query_fraction_edge_length,
    )


def gencast_structure(
    network: GenCastNetwork, graphs: GridMeshGraphs, *, dtype: jnp.dtype = jnp.float32
) -> DenoiserStructure:
    """The graphs and attention masks as arrays, features in ``dtype``."""
    return denoiser_structure(graphs, network.denoiser.attention, dtype=dtype)


def noise_basis(grid: Grid) -> dict[str, np.ndarray]:
    """What ``GenCastNetwork.noise`` needs for a grid."""
    latitudes, longitudes = grid.shape
    return SphericalHarmonics(num_latitudes=latitudes, num_longitudes=longitudes).basis()
