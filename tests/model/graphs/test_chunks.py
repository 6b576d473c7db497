import jax.numpy as jnp
import numpy as np
import pytest

from model.graphs.chunks import chunk_by_receiver, for_each_chunk, map_chunks, sum_chunks_by_receiver
from model.graphs.model_graphs import EdgeSet


@pytest.mark.parametrize("count", [1, 7, 12, 13, 29])
def test_chunks_change_nothing(count: int) -> None:
    values = jnp.arange(count * 2.0).reshape(count, 2)
    got = map_chunks(lambda x: (x * 2, x.sum(axis=1)), values, size=5)
    np.testing.assert_array_equal(got[0], values * 2)
    np.testing.assert_array_equal(got[1], values.sum(axis=1))


def test_each_chunk_is_seen_alone() -> None:
    for chunks in (1, 3):
        values = jnp.arange(chunks * 4.0).reshape(chunks, 4)
        np.testing.assert_array_equal(for_each_chunk(lambda x: x[::-1], values), values[:, ::-1])


@pytest.mark.parametrize("size", [4, 5, 100])
def test_sums_by_receiver_are_those_of_adding_one_by_one(size: int) -> None:
    random = np.random.default_rng(0)
    nodes, edges = 9, 23
    receivers = np.sort(random.integers(0, nodes, edges)).astype(np.int32)
    senders = random.integers(0, 5, edges).astype(np.int32)
    features = random.normal(size=(edges, 4)).astype(np.float32)
    chunks = chunk_by_receiver(
        EdgeSet(senders=senders, receivers=receivers, features=features),
        nodes=nodes,
        size=size,
        dtype=jnp.float32,
    )
    got = sum_chunks_by_receiver(
        lambda part, sender, receiver: part * (1 + sender[:, None]) + 10 * receiver[:, None],
        chunks.features,
        chunks,
        nodes=nodes,
        features=4,
    )
    expected = np.zeros((nodes, 4))
    np.add.at(expected, receivers, features * (1 + senders[:, None]) + 10 * receivers[:, None])
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
