"""The weight of the water vapour, against columns whose integral is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.diagnostics.dry_mass import vapour_pressure_of_columns
from model.variables import LEVELS_13, LEVELS_37


def test_constant_humidity_weighs_its_share_of_the_column() -> None:
    weight = vapour_pressure_of_columns(LEVELS_13, np.full(13, 0.004), 101_300.0)
    assert weight == pytest.approx(0.004 * 101_300.0)


@given(st.permutations(list(LEVELS_13)))
def test_the_order_of_levels_does_not_matter(levels: list[int]) -> None:
    humidity = np.array(levels) / 1000.0 * 0.01
    expected = vapour_pressure_of_columns(LEVELS_13, np.array(LEVELS_13) / 1000.0 * 0.01, 101_000.0)
    assert vapour_pressure_of_columns(levels, humidity, 101_000.0) == pytest.approx(expected)


def test_a_profile_as_observed_weighs_what_its_integral_does() -> None:
    """q = q0 (p/p0)^3 integrates to q0 p0 / 4: 250 Pa, or 25 kg/m², the Earth's mean, for q0 = 0.01."""
    p0, q0 = 100_000.0, 0.01
    humidity = q0 * (np.array(LEVELS_37) / 1000.0) ** 3
    assert vapour_pressure_of_columns(LEVELS_37, humidity, p0) == pytest.approx(q0 * p0 / 4, rel=0.005)


@pytest.mark.parametrize("levels", [(500, 850), (200, 300, 500, 700)])
def test_too_few_levels_give_no_number(levels: tuple[int, ...]) -> None:
    assert vapour_pressure_of_columns(levels, np.full(len(levels), 0.01), 101_000.0) is None


def test_a_level_that_is_missing_gives_no_number() -> None:
    assert vapour_pressure_of_columns((300, 500, 850), np.array([0.001, np.nan, 0.01]), 101_000.0) is None
