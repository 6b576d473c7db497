from datetime import UTC, datetime

import jax
import numpy as np
import pytest

from model.errors import UnknownOptionError
from model.rollout.rng import base_key, member_key

INIT_TIME = datetime(1970, 1, 3, 12, tzinfo=UTC)


def test_operational_key_folds_in_the_hours_since_1970() -> None:
    expected = jax.random.fold_in(jax.random.PRNGKey(5), 60)
    np.testing.assert_array_equal(base_key(5, INIT_TIME), expected)


def test_reference_key_is_the_seed_alone_and_members_fold_in_their_number() -> None:
    base = base_key(0, INIT_TIME, "reference")
    np.testing.assert_array_equal(base, jax.random.PRNGKey(0))
    np.testing.assert_array_equal(member_key(base, 3), jax.random.fold_in(jax.random.PRNGKey(0), 3))


def test_members_and_cycles_have_keys_of_their_own() -> None:
    later = datetime(1970, 1, 4, 0, tzinfo=UTC)
    keys = {tuple(member_key(base_key(0, time), m)) for time in (INIT_TIME, later) for m in range(20)}
    assert len(keys) == 40


def test_cycles_before_1970_have_keys() -> None:
    early = datetime(1959, 1, 1, 12, tzinfo=UTC)
    hours = (datetime(1970, 1, 1, tzinfo=UTC) - early).days * 24 + 12
    expected = jax.random.fold_in(jax.random.PRNGKey(5), 2**32 - hours)
    np.testing.assert_array_equal(base_key(5, early), expected)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seeds_that_would_be_taken_for_others_are_refused(seed: int) -> None:
    with pytest.raises(UnknownOptionError, match=f"seed: expected 0 to 4294967295, got {seed}"):
        base_key(seed, INIT_TIME)


def test_unknown_recipe_is_refused() -> None:
    with pytest.raises(UnknownOptionError, match="expected 'operational' or 'reference', got 'dice'"):
        base_key(0, INIT_TIME, "dice")
