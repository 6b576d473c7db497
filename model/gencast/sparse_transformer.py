"""The transformer on the mesh: attention to the k-hop neighbourhood, conditioned on the noise level.

Blocks are pre-normalised: x + attention(norm(x)), then x + feed-forward(norm(x)), where norm is a layer
normalisation whose scale and offset come from the noise level. All blocks have the same shape, so their
parameters are stacked and one block is compiled, not ``num_layers``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from model.gencast.attention import Attention
from model.gencast.configs import SparseTransformerConfig
from model.gencast.noise_encoder import ScaleOffset, scale_and_offset
from model.graphs.graph_network import Layer, Parameters, normalize_features
from model.training.rematerialisation import in_groups

_QUERY, _KEY, _VALUE, _OUT = "mha_proj_q", "mha_proj_k", "mha_proj_v", "mha_final"
_UP, _DOWN = "ffw_up", "ffw_down"


def transformer_path(config: SparseTransformerConfig) -> str:
    """Module path of the transformer."""
    return f"mesh_transformer/~/{config.name or 'transformer'}"


def block_path(config: SparseTransformerConfig, block: int) -> str:
    """Module path of one block."""
    return f"{transformer_path(config)}/block_{block:02d}"


def final_condition_path(config: SparseTransformerConfig) -> str:
    """Module path of the conditioning of the last normalisation."""
    return f"{transformer_path(config)}/{config.name or 'transformer'}_final_norm_conditioning/linear"


def block_modules(block: int) -> dict[str, str]:
    """Short names of a block's modules and their paths below the block's."""
    condition = f"block_{block:02d}_norm_conditioning"
    return {
        "condition_attention": f"{condition}/linear",
        "condition_feed_forward": f"{condition}_1/linear",
        **{name: name for name in (_QUERY, _KEY, _VALUE, _OUT, _UP, _DOWN)},
    }


def linear_layers(config: SparseTransformerConfig) -> Iterator[tuple[str, int, int, bool, float]]:
    """Module path, inputs, outputs, whether it has a bias, variance of fresh weights times their inputs."""
    width, hidden = config.d_model, config.ffw_hidden
    usual = 2.0 / config.num_layers
    for block in range(config.num_layers):
        path = block_path(config, block)
        for name in (_QUERY, _KEY, _VALUE):
            yield f"{path}/{name}", width, width, False, usual
        yield f"{path}/{_OUT}", width, width, True, config.attn_winit_final_mult / config.num_layers
        yield f"{path}/{_UP}", width, hidden, True, usual
        yield f"{path}/{_DOWN}", hidden, width, True, config.ffw_winit_final_mult / config.num_layers


def condition_layers(config: SparseTransformerConfig) -> Iterator[str]:
    """Module paths of the linear layers that make scales and offsets."""
    for block in range(config.num_layers):
        modules = block_modules(block)
        for name in ("condition_attention", "condition_feed_forward"):
            yield f"{block_path(config, block)}/{modules[name]}"
    yield final_condition_path(config)


def stack_blocks(params: Parameters, config: SparseTransformerConfig) -> Parameters:
    """The blocks' parameters by short name, each with a leading axis over blocks."""
    blocks = [
        {name: params[f"{block_path(config, block)}/{path}"] for name, path in block_modules(block).items()}
        for block in range(config.num_layers)
    ]
    return jax.tree.map(lambda *arrays: jnp.stack(arrays), *blocks)


def transform(
    params: Parameters,
    blocks: Parameters,
    config: SparseTransformerConfig,
    *,
    attention: Attention,
    masks: Any,
    encoding: jax.Array,
    nodes: jax.Array,
    blocks_kept: int = 0,
) -> jax.Array:
    """Runs the transformer.

    Args:
        params: all parameters; only those of the last normalisation are used.
        blocks: from ``stack_blocks``.
        attention, masks: the attention and its masks.
        encoding: of the noise level, shape (encoding,).
        nodes: features of the mesh nodes, shape (node, d_model).
        blocks_kept: for a backward pass, nodes are kept every so many blocks and the rest is computed again; 0
            keeps everything.

    Returns:
        Shape (node, d_model), normalised.
    """

    def some(nodes: jax.Array, layers: Parameters) -> jax.Array:
        return run_blocks(layers, config, attention=attention, masks=masks, encoding=encoding, nodes=nodes)

    nodes = in_groups(some, nodes, blocks, kept_every=blocks_kept)
    return conditioned_norm(nodes, scale_and_offset(params[final_condition_path(config)], encoding))


def run_blocks(
    blocks: Parameters,
    config: SparseTransformerConfig,
    *,
    attention: Attention,
    masks: Any,
    encoding: jax.Array,
    nodes: jax.Array,
) -> jax.Array:
    """Runs some blocks, one after the other; as ``transform`` but for the last normalisation."""

    def block(x: jax.Array, layer: Parameters) -> tuple[jax.Array, None]:
        normalized = conditioned_norm(x, scale_and_offset(layer["condition_attention"], encoding))
        query, key, value = (_project(layer[name], normalized, config) for name in (_QUERY, _KEY, _VALUE))
        attended = attention(query, key, value, masks).reshape(x.shape)
        x = x + attended @ layer[_OUT]["w"] + layer[_OUT]["b"]
        normalized = conditioned_norm(x, scale_and_offset(layer["condition_feed_forward"], encoding))
        hidden = jax.nn.gelu(normalized @ layer[_UP]["w"] + layer[_UP]["b"])
        return x + hidden @ layer[_DOWN]["w"] + layer[_DOWN]["b"], None

    nodes, _ = jax.lax.scan(block, nodes, blocks)
    return nodes


def conditioned_norm(x: jax.Array, scale_offset: ScaleOffset) -> jax.Array:
    """Layer normalisation with given scale and offset; float32 inside, the type of ``x`` outside."""
    scale, offset = scale_offset
    return (normalize_features(x) * scale + offset).astype(x.dtype)


def _project(layer: Layer, x: jax.Array, config: SparseTransformerConfig) -> jax.Array:
    """(node, d_model) → (1, node, head, channels)."""
    return (x @ layer["w"]).reshape((1, x.shape[0], config.num_heads, config.channels_per_head))
