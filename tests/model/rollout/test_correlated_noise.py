"""Noise of unit variance everywhere, whose correlation falls off as a Gaussian of distance."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from model.grid import Grid
from model.rollout.correlated_noise import (
    EARTH_RADIUS_KM,
    correlated_noise,
    correlation_at,
    degree_variances,
)

GRID = Grid(resolution=7.5)
LENGTH = 1500.0


def key(number: int) -> np.ndarray:
    return np.asarray(jax.random.fold_in(jax.random.PRNGKey(3), number), dtype=np.uint32)


@pytest.fixture(scope="module")
def samples() -> np.ndarray:
    """Six hundred independent fields, (field, latitude, longitude)."""
    return correlated_noise(key(0), GRID, length_km=LENGTH, vertical_correlations=(0.0,) * 599)


def test_the_spectrum_sums_to_unit_variance_and_a_gaussian_correlation() -> None:
    variances = degree_variances(GRID, LENGTH)
    assert correlation_at(variances, 0.0) == pytest.approx(1.0)
    distances = np.array([500.0, 1000.0, 1500.0, 3000.0])
    # The heat kernel's correlation is exp(−d²/2ℓ²) up to terms of order (ℓ/a)² = 0.055.
    np.testing.assert_allclose(
        correlation_at(variances, distances), np.exp(-(distances**2) / (2 * LENGTH**2)), atol=0.03
    )
    assert np.all(np.diff(correlation_at(variances, np.linspace(0, 9000, 50))) < 1e-6)


def test_the_variance_is_one_at_every_latitude_poles_included(samples: np.ndarray) -> None:
    variance = samples.var(axis=0).mean(axis=1)
    # 600 fields: the standard error of a variance is √(2/600) = 0.058 at a pole, less elsewhere.
    np.testing.assert_allclose(variance, 1.0, atol=0.2)
    assert samples.var() == pytest.approx(1.0, abs=0.05)
    assert abs(samples.mean()) < 0.05


def test_a_pole_is_one_point(samples: np.ndarray) -> None:
    np.testing.assert_allclose(np.ptp(samples[:, [0, -1]], axis=-1), 0.0, atol=1e-4)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_the_correlation_is_that_of_the_distance_in_every_direction(samples: np.ndarray, steps: int) -> None:
    distance = np.deg2rad(7.5 * steps) * EARTH_RADIUS_KM
    expected = float(correlation_at(degree_variances(GRID, LENGTH), distance))
    equator = GRID.shape[0] // 2
    east = np.mean(samples[:, equator] * np.roll(samples[:, equator], steps, axis=-1))
    north = np.mean(samples[:, equator] * samples[:, equator + steps])
    over_pole = np.mean(samples[:, -1, 0] * samples[:, -1 - steps, 0])
    assert east == pytest.approx(expected, abs=0.07)
    assert north == pytest.approx(expected, abs=0.07)
    assert over_pole == pytest.approx(expected, abs=0.15)


def test_levels_correlate_as_asked() -> None:
    drawn = np.stack(
        [
            correlated_noise(key(n), GRID, length_km=LENGTH, vertical_correlations=(1.0, 0.6))
            for n in range(60)
        ]
    )
    np.testing.assert_allclose(drawn[:, 0], drawn[:, 1], atol=1e-5)
    weights = GRID.area_weights()[None, :, None] / GRID.shape[1]
    covariance = (drawn[:, 1] * drawn[:, 2] * weights).sum(axis=(1, 2)).mean()
    assert covariance == pytest.approx(0.6, abs=0.05)


def test_the_same_key_gives_the_same_field_and_another_key_another() -> None:
    one = correlated_noise(key(1), GRID, length_km=LENGTH)
    assert one.shape == (1, *GRID.shape)
    assert one.dtype == np.float32
    np.testing.assert_array_equal(one, correlated_noise(key(1), GRID, length_km=LENGTH))
    assert np.abs(one - correlated_noise(key(2), GRID, length_km=LENGTH)).max() > 0.1


def test_a_length_below_the_grid_is_cut_at_what_the_grid_resolves() -> None:
    assert degree_variances(GRID, 10.0).size == GRID.shape[1] // 2
    with pytest.raises(ValueError, match="positive number of km, got 0"):
        degree_variances(GRID, 0.0)
