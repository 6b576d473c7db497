"""Self-attention of mesh nodes to their k-hop neighbourhood, in the forms that suit each kind of device.

Every form computes the same masked softmax attention, softmax(q kᵀ / √channels) v over a node's neighbours,
to rounding:

- ``splash_mha`` (TPU): JAX's splash attention kernel, which skips empty blocks of the mask;
- ``fused_banded_mha`` (GPU): the band as windows of keys through ``jax.nn.dot_product_attention``, with
  cuDNN's flash kernel in 16 bits and XLA in 32;
- ``blocked_mha`` (CPU): one patch of the mesh at a time against the nodes that it attends to;
- ``triblockdiag_mha`` (anywhere): a block-tridiagonal matrix, its blocks as wide as the half bandwidth;
- ``mha`` (small meshes): the dense matrix.

Published checkpoints name ``splash_mha``; ``auto`` replaces it by what the device at hand can run.
"""

import dataclasses
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from model.gencast.attention_options import AttentionOptions, attention_kind_for
from model.gencast.neighbourhood import Neighbourhood
from model.precision import accumulation_type

MASKED_LOGIT = -1e30
MAX_CPU_BLOCKS = 16


class Attention(Protocol):
    """Masked attention with the pattern built in.

    The masks are kept apart so that a compiled program takes them as an argument, not as constants.
    """

    def masks(self) -> Any:
        """The pattern as a tree of arrays in the layout this form needs."""

    def __call__(self, queries: jax.Array, keys: jax.Array, values: jax.Array, masks: Any) -> jax.Array:
        """Attends; all arrays are (batch, node, head, channels), the queries not yet scaled."""


def build_attention(
    neighbourhood: Neighbourhood,
    options: AttentionOptions,
    *,
    platform: str,
    num_heads: int,
    channels_per_head: int,
) -> Attention:
    """Makes the attention of ``options`` for one mesh and platform.

    Raises:
      ValueError: the chosen kind cannot run with this platform or width.
    """
    kind = attention_kind_for(options.kind, platform=platform, channels_per_head=channels_per_head)
    if kind == "splash_mha":
        # The kernel's module imports Mosaic, which only this form needs.
        from model.gencast.splash_attention import SplashAttention

        if platform != "tpu" and not options.interpret:
            raise ValueError(
                f"splash_mha runs on TPU only, got platform {platform}; use auto or triblockdiag_mha"
            )
        return SplashAttention(neighbourhood=neighbourhood, options=options, num_heads=num_heads)
    if kind == "fused_banded_mha":
        size = options.block_size or default_window_block(neighbourhood)
        return WindowedAttention(
            neighbourhood=neighbourhood, block_size=size, cudnn=platform in ("gpu", "cuda")
        )
    if kind == "blocked_mha":
        size = options.block_size or max(256, -(-neighbourhood.num_nodes // MAX_CPU_BLOCKS))
        return BlockedAttention(neighbourhood=neighbourhood, block_size=size)
    if kind == "triblockdiag_mha":
        size = max(options.block_size or 1, neighbourhood.half_bandwidth, 1)
        return TriblockdiagonalAttention(neighbourhood=neighbourhood, block_size=size)
    return DenseAttention(neighbourhood=neighbourhood)


def default_window_block(neighbourhood: Neighbourhood) -> int:
    """Queries per window on a GPU.

    Half the half bandwidth keeps the unused part of a window below a fifth while a key is copied into five
    windows at most; whole multiples of 64 suit the tensor cores' tiles.
    """
    half = max(neighbourhood.half_bandwidth // 2, 64)
    return min(-(-half // 64) * 64, -(-neighbourhood.num_nodes // 64) * 64)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class DenseAttention:
    """The whole (node, node) matrix at once."""

    neighbourhood: Neighbourhood

    def masks(self) -> np.ndarray:
        everything = slice(0, self.neighbourhood.num_nodes)
        return self.neighbourhood.dense(everything, everything)

    def __call__(self, queries: jax.Array, keys: jax.Array, values: jax.Array, masks: Any) -> jax.Array:
        queries, keys, values = (_heads_first(x) for x in (queries, keys, values))
        return _heads_last(_masked_attention(queries, keys, values, masks))


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class BlockedAttention:
    """Blocks of queries, each against exactly the nodes that its rows attend to.

    The nodes of a block lie close together where the neighbourhood knows their positions, so that together they
    attend to little more than each alone: with 16 hops on a mesh refined four times, where a node attends to 29 %
    of the mesh, to 63 % at 256 queries a block; the band's columns would be 77 %.
    """

    neighbourhood: Neighbourhood
    block_size: int

    def blocks(self) -> list[np.ndarray]:
        """The numbers of the nodes of each block, ascending."""
        count = -(-self.neighbourhood.num_nodes // self.block_size)
        return _patches(np.arange(self.neighbourhood.num_nodes), self.neighbourhood.positions, count)

    def masks(self) -> dict[str, Any]:
        """Nodes, columns and pattern of each block, and the place of every node in the blocks one after another."""
        matrix, blocks = self.neighbourhood.matrix, self.blocks()
        columns = [np.unique(matrix[nodes].indices).astype(np.int32) for nodes in blocks]
        return {
            "nodes": [nodes.astype(np.int32) for nodes in blocks],
            "columns": columns,
            "patterns": [matrix[rows][:, among].toarray() for rows, among in zip(blocks, columns)],
            "places": np.argsort(np.concatenate(blocks)).astype(np.int32),
        }

    def __call__(self, queries: jax.Array, keys: jax.Array, values: jax.Array, masks: Any) -> jax.Array:
        attended = [
            _masked_attention(
                _heads_first(queries[:, nodes]),
                _heads_first(keys[:, columns]),
                _heads_first(values[:, columns]),
                pattern,
            )
            for nodes, columns, pattern in zip(
                masks["nodes"], masks["columns"], masks["patterns"], strict=True
            )
        ]
        return _heads_last(jnp.concatenate(attended, axis=2))[:, masks["places"]]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TriblockdiagonalAttention:
    """Blocks at least as wide as the half bandwidth, so that each sees itself and its two neighbours only."""

    neighbourhood: Neighbourhood
    block_size: int

    @property
    def num_blocks(self) -> int:
        return -(-self.neighbourhood.num_nodes // self.block_size)

    def masks(self) -> np.ndarray:
        """bool (block, query, key) with the keys of the block before, the block itself and the one after."""
        size = self.block_size
        return np.stack(
            [
                self.neighbourhood.dense(
                    slice(i * size, (i + 1) * size), slice((i - 1) * size, (i + 2) * size)
                )
                for i in range(self.num_blocks)
            ]
        )

    def __call__(self, queries: jax.Array, keys: jax.Array, values: jax.Array, masks: Any) -> jax.Array:
        blocks = [_into_blocks(x, self.num_blocks, self.block_size) for x in (queries, keys, values)]
        queries_, keys_, values_ = (_heads_first(x) for x in blocks)
        attend = jax.vmap(_masked_attention, in_axes=(0, 0, 0, 0))
        result = attend(queries_, _with_adjacent(keys_), _with_adjacent(values_), masks[:, None])
        return _out_of_blocks(_heads_last(result), queries.shape)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class WindowedAttention:
    """Blocks of queries, all against windows of one width, as a batch for a fused attention kernel.

    Args:
      cudnn: use cuDNN's flash attention, which exists for 16-bit inputs on CUDA; the same formula through XLA
        otherwise.
    """

    neighbourhood: Neighbourhood
    block_size: int
    cudnn: bool = False

    @property
    def num_blocks(self) -> int:
        return -(-self.neighbourhood.num_nodes // self.block_size)

    @property
    def margin(self) -> int:
        """Keys on either side of a block; a multiple of 64 for the kernel's tiles."""
        return -(-self.neighbourhood.half_bandwidth // 64) * 64

    def masks(self) -> np.ndarray:
        """bool (block, 1, query, key)."""
        size, margin = self.block_size, self.margin
        return np.stack(
            [
                self.neighbourhood.dense(
                    slice(i * size, (i + 1) * size), slice(i * size - margin, (i + 1) * size + margin)
                )
                for i in range(self.num_blocks)
            ]
        )[:, None]

    def __call__(self, queries: jax.Array, keys: jax.Array, values: jax.Array, masks: Any) -> jax.Array:
        batch, _, heads, channels = queries.shape
        blocks = _into_blocks(queries, self.num_blocks, self.block_size)
        windows = [self._windows(x) for x in (keys, values)]
        flat_queries, flat_keys, flat_values = (
            x.reshape((self.num_blocks * batch, -1, heads, channels)) for x in (blocks, *windows)
        )
        mask = jnp.repeat(masks, batch, axis=0)
        sixteen_bits = queries.dtype in (jnp.bfloat16, jnp.float16)
        result = jax.nn.dot_product_attention(
            flat_queries,
            flat_keys,
            flat_values,
            mask=mask,
            implementation="cudnn" if self.cudnn and sixteen_bits else "xla",
        )
        result = result.reshape((self.num_blocks, batch, self.block_size, heads, channels))
        return _out_of_blocks(result, queries.shape)

    def _windows(self, x: jax.Array) -> jax.Array:
        """(batch, node, …) → (block, batch, key, …)."""
        end = self.num_blocks * self.block_size - x.shape[1] + self.margin
        padded = jnp.pad(x, ((0, 0), (self.margin, end), (0, 0), (0, 0)))
        width = self.block_size + 2 * self.margin
        starts = np.arange(self.num_blocks) * self.block_size
        return jnp.moveaxis(padded[:, starts[:, None] + np.arange(width)], 1, 0)


def _masked_attention(queries: jax.Array, keys: jax.Array, values: jax.Array, mask: jax.Array) -> jax.Array:
    """softmax(q kᵀ / √channels, masked) v for (…, node, channels), the softmax in float32 (float64 of float64).

    A row whose mask is empty (padding) gets the mean of the values, which its caller drops.
    """
    scale, dtype = queries.shape[-1] ** -0.5, accumulation_type(queries.dtype)
    logits = jnp.einsum("...qc,...kc->...qk", queries, keys, preferred_element_type=dtype) * scale
    logits = jnp.where(mask, logits, MASKED_LOGIT)
    largest = jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
    weights = jnp.exp(logits - largest)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    out = jnp.einsum("...qk,...kc->...qc", weights.astype(values.dtype), values, preferred_element_type=dtype)
    return (out / total).astype(values.dtype)


def _patches(nodes: np.ndarray, positions: np.ndarray | None, count: int) -> list[np.ndarray]:
    """Nodes in that many compact patches of nearly equal size, halving along the widest direction.

    Args:
        positions: of all nodes, (node, 3); None for patches of successive numbers.
    """
    if count == 1:
        return [np.sort(nodes)]
    if positions is not None:
        around = positions[nodes] - positions[nodes].mean(axis=0)
        widest = np.linalg.eigh(around.T @ around)[1][:, -1]
        nodes = nodes[np.argsort(around @ widest, kind="stable")]
    half = count // 2
    cut = nodes.size * half // count
    return [
        *_patches(nodes[:cut], positions, half),
        *_patches(nodes[cut:], positions, count - half),
    ]


def _heads_first(x: jax.Array) -> jax.Array:
    return jnp.moveaxis(x, -2, -3)


def _heads_last(x: jax.Array) -> jax.Array:
    return jnp.moveaxis(x, -3, -2)


def _into_blocks(x: jax.Array, num_blocks: int, block_size: int) -> jax.Array:
    """(batch, node, …) → (block, batch, node in block, …), zeros in the last block's surplus."""
    padded = jnp.pad(x, ((0, 0), (0, num_blocks * block_size - x.shape[1]), (0, 0), (0, 0)))
    return jnp.moveaxis(padded.reshape((x.shape[0], num_blocks, block_size, *x.shape[2:])), 1, 0)


def _out_of_blocks(x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The inverse of ``_into_blocks`` for an array of ``shape``."""
    joined = jnp.moveaxis(x, 0, 1).reshape((shape[0], -1, *x.shape[3:]))
    return joined[:, : shape[1]]


def _with_adjacent(x: jax.Array) -> jax.Array:
    """(block, batch, head, node, …) → the same with each block's nodes between those of its neighbours."""
    padded = jnp.pad(x, ((1, 1), *[(0, 0)] * (x.ndim - 1)))
    return jnp.concatenate([padded[:-2], padded[1:-1], padded[2:]], axis=3)
