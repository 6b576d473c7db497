"""Products of members against numpy, scipy's circle of directions and hand-worked cases."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from model.diagnostics.ensemble_products import (
    Event,
    available_quantities,
    mean_and_standard_deviation,
    most_representative_member,
    probability,
    quantiles,
    round_mantissa,
    squared_distances,
    wind_direction,
    wind_speed,
)

MEMBERS = arrays(
    np.float32, st.tuples(st.integers(2, 7), st.just(3)), elements=st.floats(-1e4, 1e4, width=32)
)


@settings(max_examples=40, deadline=None)
@given(MEMBERS)
def test_quantiles_are_numpys_and_ordered(members: np.ndarray) -> None:
    levels = [0.0, 0.1, 0.25, 0.5, 0.9, 1.0]
    got = quantiles(members, levels)
    np.testing.assert_allclose(got, np.quantile(members.astype(np.float64), levels, axis=0), atol=1e-6)
    assert (np.diff(got, axis=0) >= 0).all()


@settings(max_examples=40, deadline=None)
@given(MEMBERS, st.floats(-1e4, 1e4))
def test_above_and_below_add_up_to_one_without_ties(members: np.ndarray, threshold: float) -> None:
    above = probability(members, Event(quantity="2m_temperature", threshold=threshold))
    below = probability(members, Event(quantity="2m_temperature", threshold=threshold, below=True))
    ties = (members == threshold).mean(axis=0)
    np.testing.assert_allclose(above + below + ties, 1.0)


def test_moments_are_unbiased() -> None:
    mean, deviation = mean_and_standard_deviation(np.array([[1.0], [2.0], [6.0]], dtype=np.float32))
    # Mean 3; squared departures 4 + 1 + 9 = 14, over M − 1 = 2.
    assert mean[0] == pytest.approx(3.0)
    assert deviation[0] == pytest.approx(7.0**0.5)
    with pytest.raises(ValueError, match="two members"):
        mean_and_standard_deviation(np.zeros((1, 3)))


def test_nan_members_make_nan_products() -> None:
    members = np.array([[np.nan, 1.0], [2.0, 3.0]], dtype=np.float32)
    assert np.isnan(quantiles(members, [0.0, 0.5])[:, 0]).all()
    assert np.isnan(probability(members, Event(quantity="x", threshold=0.0))).tolist() == [True, False]
    assert np.isnan(mean_and_standard_deviation(members)[0]).tolist() == [True, False]


@pytest.mark.parametrize(
    ("u", "v", "direction"),
    # A westerly blows towards the east and comes from 270°, a northerly from 0°.
    [(1, 0, 270), (0, -1, 0), (-1, 0, 90), (0, 1, 180), (1, 1, 225), (-1e-30, -1, 0)],
)
def test_wind_direction_is_where_it_comes_from(u: float, v: float, direction: float) -> None:
    got = wind_direction(np.array(u, np.float32), np.array(v, np.float32))
    assert got == pytest.approx(direction, abs=1e-4)
    assert 0 <= got < 360


def test_wind_speed() -> None:
    assert wind_speed(np.array(3.0), np.array(-4.0)) == pytest.approx(5.0)


def test_quantities_follow_from_the_variables() -> None:
    names = ("2m_temperature", "10m_u_component_of_wind", "total_precipitation_12hr", "temperature")
    found = available_quantities(names)
    assert "10m_wind_speed" not in found
    assert found["total_precipitation"].inputs == ("total_precipitation_12hr",)
    assert "temperature_anomaly" not in found
    full = available_quantities((*names, "10m_v_component_of_wind"), climatology=names)
    assert full["10m_wind_speed"].inputs == ("10m_u_component_of_wind", "10m_v_component_of_wind")
    assert full["temperature_anomaly"].on_levels
    assert "total_precipitation_12hr_anomaly" not in full


def test_event_names_are_distinct_and_plain() -> None:
    assert Event(quantity="10m_wind_speed", threshold=15).name == "probability_10m_wind_speed_above_15"
    frost = Event(quantity="temperature_anomaly", threshold=-2.5, level=850, below=True)
    assert frost.name == "probability_temperature_anomaly_850hPa_below_minus_2.5"
    with pytest.raises(ValueError, match="finite"):
        Event(quantity="x", threshold=float("nan"))


def test_most_representative_member_is_nearest_to_the_mean_in_every_field_alike() -> None:
    # Member 1 is best in the first field, member 0 slightly better in the second of far larger numbers.
    distances = np.array([[4.0, 900.0], [1.0, 1000.0], [7.0, 1100.0]])
    assert most_representative_member(distances) == 1


def test_squared_distances_skip_missing_cells() -> None:
    members = np.array([[[1.0, np.nan]], [[5.0, np.nan]]])
    np.testing.assert_allclose(squared_distances(members, np.array([[3.0, np.nan]])), [[4.0], [4.0]])


@settings(max_examples=60, deadline=None)
@given(arrays(np.float32, 5, elements=st.floats(-(2.0**100), 2.0**100, width=32)), st.integers(4, 22))
def test_rounding_keeps_the_stated_precision_and_order(values: np.ndarray, bits: int) -> None:
    normal = np.abs(values) > 1e-30  # below, the format itself has fewer bits
    rounded = round_mantissa(values, bits)
    assert (np.abs(rounded - values)[normal] <= np.abs(values[normal]) * 2.0 ** -(bits + 1)).all()
    assert (rounded.view(np.uint32) & np.uint32((1 << (23 - bits)) - 1) == 0).all()
    assert (np.diff(round_mantissa(np.sort(values), bits)) >= 0).all()


def test_rounding_keeps_special_values() -> None:
    special = np.array([np.nan, np.inf, -np.inf, 0.0, 1.0], dtype=np.float32)
    np.testing.assert_array_equal(round_mantissa(special, 5), special)
    # 1 + 2⁻⁶ lies half way between neighbours of a 5-bit mantissa and goes to the even one, 1.
    assert round_mantissa(np.array([1 + 2.0**-6], np.float32), 5)[0] == 1.0
