"""The configurations in a published GenCast checkpoint, field by field under their published names."""

from __future__ import annotations

import math
from dataclasses import dataclass


def _expect_positive(config: object, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if not value > 0:
            raise ValueError(f"{name}: expected a positive number, got {value}")


@dataclass(frozen=True, kw_only=True)
class SparseTransformerConfig:
    """The transformer on the mesh.

    Args:
        attention_k_hop: a mesh node attends to the nodes at most this many edges away.
        d_model: features of a node.
        num_layers: transformer blocks, each attention and a feed-forward network.
        num_heads: attention heads; must divide ``d_model``.
        attention_type, mask_type: how the checkpoint's authors computed attention; changes no result.
        block_q, block_kv, block_kv_compute, block_q_dkv, block_kv_dkv, block_kv_dkv_compute: block sizes of
            ``splash_mha``, forward and backward.
        ffw_winit_final_mult, attn_winit_final_mult: variance of fresh weights of the last layer of the
            feed-forward network and of attention, times ``num_layers``.
        ffw_hidden: hidden units of the feed-forward network.
        name: Haiku module name; None for the published ``transformer``.
    """

    attention_k_hop: int
    d_model: int
    num_layers: int = 16
    num_heads: int = 4
    attention_type: str = "splash_mha"
    mask_type: str = "lazy"
    block_q: int = 1024
    block_kv: int = 512
    block_kv_compute: int = 256
    block_q_dkv: int = 512
    block_kv_dkv: int = 1024
    block_kv_dkv_compute: int = 1024
    ffw_winit_final_mult: float = 0.0
    attn_winit_final_mult: float = 0.0
    ffw_hidden: int = 2048
    name: str | None = None

    def __post_init__(self) -> None:
        _expect_positive(self, "attention_k_hop", "d_model", "num_layers", "num_heads", "ffw_hidden")
        if self.d_model % self.num_heads:
            raise ValueError(f"num_heads: expected a divisor of d_model {self.d_model}, got {self.num_heads}")

    @property
    def channels_per_head(self) -> int:
        """Features of one head."""
        return self.d_model // self.num_heads

    @property
    def splash_block_sizes(self) -> tuple[tuple[str, int], ...]:
        """The six block sizes by name."""
        names = (
            "block_q",
            "block_kv",
            "block_kv_compute",
            "block_q_dkv",
            "block_kv_dkv",
            "block_kv_dkv_compute",
        )
        return tuple((name, getattr(self, name)) for name in names)


@dataclass(frozen=True, kw_only=True)
class DenoiserArchitectureConfig:
    """The network that removes noise.

    Args:
        sparse_transformer_config: the processor.
        mesh_size: refinements of the icosahedron.
        latent_size: features of nodes and edges in encoder and decoder; equals the transformer's ``d_model``.
        hidden_layers: hidden layers of each MLP.
        radius_query_fraction_edge_length: reach of the grid-to-mesh edges as a fraction of the longest mesh
            edge.
        norm_conditioning_features: what conditions the normalisations; only the noise level's encoding.
        grid2mesh_aggregate_normalization: divisor of the messages' sum at a mesh node; None for 1.
        node_output_size: channels coming out; None to take them from the task.
    """

    sparse_transformer_config: SparseTransformerConfig
    mesh_size: int
    latent_size: int = 512
    hidden_layers: int = 1
    radius_query_fraction_edge_length: float = 0.6
    norm_conditioning_features: tuple[str, ...] = ("noise_level_encodings",)
    grid2mesh_aggregate_normalization: float | None = None
    node_output_size: int | None = None

    def __post_init__(self) -> None:
        _expect_positive(self, "latent_size", "radius_query_fraction_edge_length")
        if self.mesh_size < 0 or self.hidden_layers < 0:
            raise ValueError(
                f"mesh_size, hidden_layers: expected at least 0, got {self.mesh_size}, {self.hidden_layers}"
            )
        if tuple(self.norm_conditioning_features) != ("noise_level_encodings",):
            raise ValueError(
                "norm_conditioning_features: expected ('noise_level_encodings',), "
                f"got {self.norm_conditioning_features}"
            )
        if self.sparse_transformer_config.d_model != self.latent_size:
            raise ValueError(
                f"latent_size: expected the transformer's d_model {self.sparse_transformer_config.d_model}, "
                f"got {self.latent_size}"
            )


@dataclass(frozen=True, kw_only=True)
class NoiseEncoderConfig:
    """How the noise level becomes the vector that conditions all normalisations.

    Args:
        apply_log_first: encode the logarithm of the level.
        base_period: longest period of the Fourier features.
        num_frequencies: how many multiples of the base frequency.
        output_sizes: layers of the MLP on the features.
    """

    apply_log_first: bool = True
    base_period: float = 16.0
    num_frequencies: int = 32
    output_sizes: tuple[int, ...] = (32, 16)

    def __post_init__(self) -> None:
        _expect_positive(self, "base_period", "num_frequencies")
        if not self.output_sizes:
            raise ValueError("output_sizes: expected at least one layer, got none")


@dataclass(frozen=True, kw_only=True)
class SamplerConfig:
    """The noise levels a sample passes through, and the noise added on the way.

    Notation in brackets: Karras et al. 2022 (arXiv:2206.00364), eq. 5 and algorithm 2.

    Args:
        max_noise_level, min_noise_level: first and last level, in units of the normalised targets.
        num_noise_levels: how many levels; a sample takes 2·levels − 1 evaluations of the denoiser.
        rho: curvature of the spacing.
        stochastic_churn_rate: S_churn; 0 for a deterministic sampler.
        churn_min_noise_level, churn_max_noise_level: S_min and S_max, the levels at which noise is added.
        noise_level_inflation_factor: S_noise.
    """

    max_noise_level: float = 80.0
    min_noise_level: float = 0.03
    num_noise_levels: int = 20
    rho: float = 7.0
    stochastic_churn_rate: float = 2.5
    churn_min_noise_level: float = 0.75
    churn_max_noise_level: float = math.inf
    noise_level_inflation_factor: float = 1.05

    def __post_init__(self) -> None:
        _expect_positive(self, "max_noise_level", "min_noise_level", "num_noise_levels", "rho")
        if self.max_noise_level < self.min_noise_level:
            raise ValueError(f"expected max_noise_level ≥ min_noise_level {self.min_noise_level}, got {self}")
        if self.stochastic_churn_rate < 0:
            raise ValueError(f"stochastic_churn_rate: expected at least 0, got {self.stochastic_churn_rate}")


@dataclass(frozen=True, kw_only=True)
class NoiseConfig:
    """The distribution of noise levels in training.

    Args:
        training_noise_level_rho: curvature.
        training_max_noise_level, training_min_noise_level: its range, in units of the normalised targets.
    """

    training_noise_level_rho: float = 7.0
    training_max_noise_level: float = 88.0
    training_min_noise_level: float = 0.02

    def __post_init__(self) -> None:
        _expect_positive(
            self, "training_noise_level_rho", "training_max_noise_level", "training_min_noise_level"
        )


@dataclass(frozen=True, kw_only=True)
class GenCastConfig:
    """All of a checkpoint's configurations but the task's."""

    denoiser_architecture_config: DenoiserArchitectureConfig
    sampler_config: SamplerConfig = SamplerConfig()
    noise_config: NoiseConfig = NoiseConfig()
    noise_encoder_config: NoiseEncoderConfig = NoiseEncoderConfig()
