"""All forms of the mesh attention agree with each other and with a plain NumPy softmax."""

import dataclasses
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.errors import UnknownOptionError
from model.gencast.attention import Attention, BlockedAttention, WindowedAttention, build_attention
from model.gencast.attention_options import ATTENTION_KINDS, AttentionOptions, attention_kind_for
from model.gencast.mesh_order import banded_mesh, mesh_neighbourhood
from model.gencast.neighbourhood import Neighbourhood, k_hop_neighbourhood

NUM_NODES, HEADS, CHANNELS, BATCH = 150, 2, 128, 2


def ladder(num_nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """A strip of triangles: each node touches the next and the one after, in both directions."""
    pairs = [(i, i + step) for step in (1, 2) for i in range(num_nodes - step)]
    forward = np.array(pairs).T
    return np.concatenate([forward[0], forward[1]]), np.concatenate([forward[1], forward[0]])


@pytest.fixture(scope="module")
def neighbourhood() -> Neighbourhood:
    senders, receivers = ladder(NUM_NODES)
    return k_hop_neighbourhood(senders=senders, receivers=receivers, num_nodes=NUM_NODES, hops=7)


@pytest.fixture(scope="module")
def qkv() -> tuple[np.ndarray, ...]:
    random = np.random.default_rng(3)
    return tuple(random.normal(size=(BATCH, NUM_NODES, HEADS, CHANNELS)).astype(np.float32) for _ in range(3))


def plain_attention(q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Vaswani et al. 2017, eq. 1, node by node in float64."""
    out = np.zeros(q.shape)
    for b, i, h in np.ndindex(q.shape[:3]):
        neighbours = np.flatnonzero(mask[i])
        logits = k[b, neighbours, h].astype(np.float64) @ q[b, i, h] / np.sqrt(q.shape[-1])
        weights = np.exp(logits - logits.max())
        out[b, i, h] = weights @ v[b, neighbours, h] / weights.sum()
    return out


def built(kind: str, neighbourhood: Neighbourhood, **options: object):
    return build_attention(
        neighbourhood,
        AttentionOptions(kind=kind, interpret=True, **options),  # type: ignore[arg-type]
        platform="cpu",
        num_heads=HEADS,
        channels_per_head=CHANNELS,
    )


@pytest.mark.parametrize(
    ("kind", "block_size"),
    [
        *((kind, None) for kind in ATTENTION_KINDS),
        ("fused_banded_mha", 32),
        ("blocked_mha", 32),
        ("triblockdiag_mha", 40),
    ],
)
def test_every_form_computes_the_same_attention(
    kind: str, block_size: int | None, neighbourhood: Neighbourhood, qkv: tuple[np.ndarray, ...]
) -> None:
    attention = built(kind, neighbourhood, block_size=block_size)
    result = jax.jit(attention)(*qkv, attention.masks())
    expected = plain_attention(*qkv, neighbourhood.matrix.toarray())
    np.testing.assert_allclose(result, expected, atol=2e-6)


def test_blocks_of_nodes_that_lie_together_compute_the_same(
    neighbourhood: Neighbourhood, qkv: tuple[np.ndarray, ...]
) -> None:
    positions = np.random.default_rng(0).normal(size=(NUM_NODES, 3))
    attention = built("blocked_mha", dataclasses.replace(neighbourhood, positions=positions), block_size=32)
    result = jax.jit(attention)(*qkv, attention.masks())
    expected = plain_attention(*qkv, neighbourhood.matrix.toarray())
    np.testing.assert_allclose(result, expected, atol=2e-6)


def test_blocks_are_compact_patches_of_the_mesh() -> None:
    # A node within 8 hops of a mesh refined three times attends to about 29 % of it (a cap of 63°, the angle
    # between neighbouring vertices of an icosahedron: (1 − cos 63.4°) / 2 = 0.28).
    mesh = banded_mesh(3)
    neighbourhood = mesh_neighbourhood(mesh, 8)
    attention = built("blocked_mha", neighbourhood, block_size=41)
    assert isinstance(attention, BlockedAttention)
    blocks = attention.blocks()
    assert np.array_equal(np.sort(np.concatenate(blocks)), np.arange(642))
    assert {block.size for block in blocks} <= {40, 41}
    computed = sum(pattern.size for pattern in attention.masks()["patterns"]) / 642**2
    assert 0.28 < neighbourhood.matrix.nnz / 642**2 < 0.31
    assert computed < 0.65


@pytest.mark.parametrize("mask_type", ["lazy", "full"])
def test_splash_mask_types_agree(
    mask_type: str, neighbourhood: Neighbourhood, qkv: tuple[np.ndarray, ...]
) -> None:
    attention = built(
        "splash_mha", neighbourhood, mask_type=mask_type, splash_block_sizes=(("block_q", 128),)
    )
    expected = plain_attention(*qkv, neighbourhood.matrix.toarray())
    np.testing.assert_allclose(attention(*qkv, attention.masks()), expected, atol=2e-6)


@pytest.mark.parametrize("kind", ATTENTION_KINDS)
def test_gradients_agree_with_the_dense_form(
    kind: str, neighbourhood: Neighbourhood, qkv: tuple[np.ndarray, ...]
) -> None:
    def gradient(kind: str) -> tuple[jax.Array, ...]:
        attention = built(kind, neighbourhood)
        masks = attention.masks()

        @jax.jit
        def value(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
            return jnp.sum(jnp.sin(attention(q, k, v, masks)))

        return jax.jit(jax.grad(value, argnums=(0, 1, 2)))(*qkv)

    for ours, dense in zip(gradient(kind), gradient("mha"), strict=True):
        np.testing.assert_allclose(ours, dense, atol=1e-5)


@pytest.mark.parametrize("kind", [kind for kind in ATTENTION_KINDS if kind != "splash_mha"])
def test_bfloat16_stays_near_float32(
    kind: str, neighbourhood: Neighbourhood, qkv: tuple[np.ndarray, ...]
) -> None:
    attention = built(kind, neighbourhood)
    result = jax.jit(attention)(*(jnp.asarray(x, jnp.bfloat16) for x in qkv), attention.masks())
    assert result.dtype == jnp.bfloat16
    expected = plain_attention(*qkv, neighbourhood.matrix.toarray())
    # bfloat16 keeps 8 bits: inputs of size 1…4 are off by 2⁻⁸, and logits by a few of these.
    np.testing.assert_allclose(result.astype(np.float32), expected, atol=0.05)


def lowered_text(attention: Attention, platform: str, dtype: jnp.dtype) -> str:
    """The program for a platform that need not be present."""
    shape = jax.ShapeDtypeStruct((1, NUM_NODES, HEADS, CHANNELS), dtype)
    masks = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), attention.masks())
    return (
        jax.jit(attention).trace(shape, shape, shape, masks).lower(lowering_platforms=(platform,)).as_text()
    )


def test_fused_attention_lowers_to_cudnn_on_cuda_in_16_bits(
    neighbourhood: Neighbourhood, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Tracing asks the installed CUDA libraries for their version; a machine without them must say one.
    library = importlib.import_module("jax._src.cudnn.fused_attention_stablehlo")
    monkeypatch.setattr(library, "check_cudnn_version", lambda: 91000)
    attention = WindowedAttention(neighbourhood=neighbourhood, block_size=64, cudnn=True)
    assert "__cudnn$fmha" in lowered_text(attention, "cuda", jnp.bfloat16)
    assert "__cudnn$fmha" not in lowered_text(attention, "cuda", jnp.float32)


def test_splash_attention_lowers_to_a_tpu_kernel(neighbourhood: Neighbourhood) -> None:
    options = AttentionOptions(kind="splash_mha")
    attention = build_attention(
        neighbourhood, options, platform="tpu", num_heads=HEADS, channels_per_head=CHANNELS
    )
    assert "tpu_custom_call" in lowered_text(attention, "tpu", jnp.bfloat16)


@pytest.mark.parametrize(
    ("platform", "channels", "expected"),
    [
        ("cpu", 16, "blocked_mha"),
        ("gpu", 128, "fused_banded_mha"),
        ("cuda", 128, "fused_banded_mha"),
        ("tpu", 128, "splash_mha"),
        ("tpu", 64, "triblockdiag_mha"),
    ],
)
def test_auto_takes_what_the_platform_runs(platform: str, channels: int, expected: str) -> None:
    assert attention_kind_for("auto", platform=platform, channels_per_head=channels) == expected


def test_unknown_attention_names_the_allowed() -> None:
    with pytest.raises(UnknownOptionError, match=r"auto, splash_mha, .*got 'flash'"):
        AttentionOptions(kind="flash")
    with pytest.raises(UnknownOptionError, match="lazy or full"):
        AttentionOptions(mask_type="dense")


def test_options_from_the_command_line() -> None:
    assert AttentionOptions.parse("auto") == AttentionOptions()
    chosen = AttentionOptions.parse("splash_mha, mask_type=full, block_kv=256")
    assert (chosen.kind, chosen.mask_type) == ("splash_mha", "full")
    filled = chosen.with_checkpoint(mask_type="lazy", splash_block_sizes={"block_q": 1024, "block_kv": 512})
    assert filled.mask_type == "full"
    assert dict(filled.splash_block_sizes) == {"block_q": 1024, "block_kv": 256}
    assert AttentionOptions.parse("blocked_mha,block_size=64").block_size == 64


@pytest.mark.parametrize("text", ["mha,block=3", "mha,block_size=few", "mha,block_size"])
def test_unknown_attention_settings_are_listed(text: str) -> None:
    with pytest.raises(UnknownOptionError, match=r"mask_type=…, block_size=…, block_q=…"):
        AttentionOptions.parse(text)


def test_splash_off_the_tpu_is_refused(neighbourhood: Neighbourhood) -> None:
    with pytest.raises(ValueError, match="TPU only"):
        build_attention(
            neighbourhood,
            AttentionOptions(kind="splash_mha"),
            platform="cpu",
            num_heads=HEADS,
            channels_per_head=CHANNELS,
        )
    with pytest.raises(ValueError, match="multiple of 128"):
        attention_kind_for("splash_mha", platform="tpu", channels_per_head=16)
