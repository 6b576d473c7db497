"""The TPU form of the mesh attention: JAX's splash attention kernel with the neighbourhood as its mask."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas.ops.tpu import splash_attention

from model.gencast.attention_options import AttentionOptions
from model.gencast.neighbourhood import Neighbourhood

# The block sizes of the published checkpoints, measured by their authors on TPU v4 and v5.
DEFAULT_BLOCK_SIZES = {
    "block_q": 1024,
    "block_kv": 512,
    "block_kv_compute": 256,
    "block_q_dkv": 512,
    "block_kv_dkv": 1024,
    "block_kv_dkv_compute": 1024,
}


class NeighbourhoodMask(splash_attention.splash_attention_mask.Mask):
    """The neighbourhood padded to whole blocks, evaluated one block at a time."""

    def __init__(self, neighbourhood: Neighbourhood, shape: tuple[int, int]):
        self._neighbourhood = neighbourhood
        self._shape = shape

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape

    def __getitem__(self, idx: tuple[slice, slice]) -> np.ndarray:
        rows, columns = (slice(*part.indices(size)[:2]) for part, size in zip(idx, self._shape, strict=True))
        return self._neighbourhood.dense(rows, columns)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, NeighbourhoodMask)
            and self._neighbourhood is other._neighbourhood
            and self._shape == other._shape
        )

    def __hash__(self) -> int:
        return hash((type(self), id(self._neighbourhood), self._shape))


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SplashAttention:
    """Splash attention; the kernel object carries its mask, so `masks` is the kernel itself (a JAX tree)."""

    neighbourhood: Neighbourhood
    options: AttentionOptions
    num_heads: int

    @property
    def block_sizes(self) -> dict[str, int]:
        """Published names to sizes; a mesh smaller than a block shrinks it to the next multiple of 128."""
        limit = -(-self.neighbourhood.num_nodes // 128) * 128
        chosen = {**DEFAULT_BLOCK_SIZES, **dict(self.options.splash_block_sizes)}
        return {name: min(size, limit) for name, size in chosen.items()}

    @property
    def padded_nodes(self) -> int:
        """Nodes rounded up so that every block size divides them."""
        step = int(np.lcm.reduce(list(self.block_sizes.values())))
        return -(-self.neighbourhood.num_nodes // step) * step

    def masks(self) -> splash_attention.splash_attention_kernel.SplashAttentionKernel:
        shape, sizes = (self.padded_nodes, self.padded_nodes), self.block_sizes
        one_head: Any = NeighbourhoodMask(self.neighbourhood, shape)
        if self.options.mask_type == "full":
            one_head = splash_attention.splash_attention_mask.NumpyMask(one_head[: shape[0], : shape[1]])
        mask = splash_attention.splash_attention_mask.MultiHeadMask([one_head] * self.num_heads)
        return splash_attention.make_splash_mha(
            mask,
            block_sizes=splash_attention.BlockSizes(
                block_q=sizes["block_q"],
                block_kv=sizes["block_kv"],
                block_kv_compute=sizes["block_kv_compute"],
                block_q_dkv=sizes["block_q_dkv"],
                block_kv_dkv=sizes["block_kv_dkv"],
                block_kv_dkv_compute=sizes["block_kv_dkv_compute"],
                use_fused_bwd_kernel=True,
            ),
            head_shards=1,
            q_seq_shards=1,
            interpret=self.options.interpret,
        )

    def __call__(self, queries: jax.Array, keys: jax.Array, values: jax.Array, masks: Any) -> jax.Array:
        nodes, channels = queries.shape[1], queries.shape[-1]
        padding = ((0, 0), (0, self.padded_nodes - nodes), (0, 0), (0, 0))
        queries = queries * jnp.asarray(channels**-0.5, queries.dtype)
        heads_first = [jnp.moveaxis(jnp.pad(x, padding), 2, 1) for x in (queries, keys, values)]
        result = jax.vmap(masks, in_axes=(0, 0, 0))(*heads_first)
        return jnp.moveaxis(result, 1, 2)[:, :nodes]
