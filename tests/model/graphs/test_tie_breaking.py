import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from model.graphs.tie_breaking import BoundingBoxTree, bitonic_order, introsort_order

few_values = st.lists(st.integers(0, 5), min_size=1, max_size=60)


@settings(max_examples=50, deadline=None)
@given(few_values)
def test_introsort_sorts(values: list[int]) -> None:
    keys = np.array(values, dtype=float)
    order = introsort_order(keys)
    assert sorted(order.tolist()) == list(range(len(values)))
    assert (np.diff(keys[order]) >= 0).all()


def test_introsort_keeps_short_ranges_in_order_and_long_ones_not() -> None:
    # Up to 16 entries are left to an insertion sort, which is stable; 17 equal ones are partitioned first.
    assert introsort_order(np.zeros(16)).tolist() == list(range(16))
    assert introsort_order(np.zeros(17)).tolist() != list(range(17))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=20))
def test_bitonic_network_sorts(values: list[int]) -> None:
    keys = np.array(values, dtype=float)
    order = bitonic_order(keys)
    assert sorted(order.tolist()) == list(range(len(values)))
    assert (np.diff(keys[order]) >= 0).all()


def test_bitonic_network_never_exchanges_equal_keys_it_compares() -> None:
    # By hand: two equal pairs. (3, 3) compared in place keep their places; 1 moves to the front.
    assert bitonic_order(np.array([3.0, 3.0])).tolist() == [0, 1]
    assert bitonic_order(np.array([2.0, 1.0])).tolist() == [1, 0]
    assert bitonic_order(np.zeros(5)).tolist() == [0, 1, 2, 3, 4]


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000))
def test_tree_finds_what_every_box_says(seed: int) -> None:
    random = np.random.default_rng(seed)
    low = random.uniform(size=(300, 3))
    high = low + random.uniform(0, 0.1, size=(300, 3))
    tree = BoundingBoxTree(low, high)
    query = random.uniform(size=3)
    found = tree.overlapping(query, query + 0.2)
    expected = np.flatnonzero(((low <= query + 0.2) & (high >= query)).all(axis=1))
    assert sorted(found) == expected.tolist()
    assert len(set(found)) == len(found)
