"""Noise on the sphere against scipy's spherical harmonics and the addition theorem."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import sph_harm_y

from model.gencast.spherical_noise import SphericalHarmonics, associated_legendre, to_grid, white_noise

NUM_LATITUDES, NUM_LONGITUDES, DEGREES = 7, 12, 6

compiled_noise = jax.jit(white_noise, static_argnums=1)
compiled_to_grid = jax.jit(to_grid)


def unit_coefficients() -> np.ndarray:
    """One field per coefficient (l, m), m in the order 0, 1, −1, 2, −2, …"""
    size = DEGREES * (2 * DEGREES - 1)
    return np.eye(size, dtype=np.float32).reshape(size, DEGREES, 2 * DEGREES - 1)


def harmonics(
    num_latitudes: int = NUM_LATITUDES, num_longitudes: int = NUM_LONGITUDES
) -> dict[str, jax.Array]:
    basis = SphericalHarmonics(num_latitudes=num_latitudes, num_longitudes=num_longitudes).basis()
    return {name: jnp.asarray(array) for name, array in basis.items()}


def test_each_coefficient_gives_its_real_spherical_harmonic() -> None:
    fields = np.asarray(compiled_to_grid(jnp.asarray(unit_coefficients()), harmonics()))
    fields = fields.reshape(DEGREES, 2 * DEGREES - 1, NUM_LATITUDES, NUM_LONGITUDES)
    polar = np.pi / 2 - np.linspace(-np.pi / 2, np.pi / 2, NUM_LATITUDES)[:, None]
    azimuth = 2 * np.pi * np.arange(NUM_LONGITUDES) / NUM_LONGITUDES
    orders = [0, 1, -1, 2, -2, 3, -3, 4, -4, 5, -5]
    for degree in range(DEGREES):
        amplitude = np.sqrt(4 * np.pi / (DEGREES * (2 * degree + 1)))
        for position, order in enumerate(orders):
            if abs(order) > degree:
                expected = np.zeros((NUM_LATITUDES, NUM_LONGITUDES))
            else:
                # Real harmonics: √2 times the real (imaginary) part of the complex one for order > 0 (< 0).
                complex_one = sph_harm_y(degree, abs(order), polar, azimuth)
                part = complex_one.imag if order < 0 else complex_one.real
                expected = amplitude * part * (np.sqrt(2) if order else 1)
            np.testing.assert_allclose(fields[degree, position], expected, atol=3e-7)


@pytest.mark.parametrize("num_latitudes", [7, 8])
def test_variance_is_one_everywhere(num_latitudes: int) -> None:
    # Addition theorem: Σ_m Y_lm² = (2l + 1) / 4π at every point, poles included.
    degrees = num_latitudes - 1
    size = degrees * (2 * degrees - 1)
    coefficients = jnp.eye(size).reshape(size, degrees, 2 * degrees - 1)
    fields = compiled_to_grid(coefficients, harmonics(num_latitudes, 2 * degrees))
    np.testing.assert_allclose((fields**2).sum(axis=0), 1, rtol=2e-6)


def test_legendre_functions_have_unit_norm() -> None:
    nodes, weights = np.polynomial.legendre.leggauss(40)
    functions = associated_legendre(20, nodes)
    np.testing.assert_allclose(
        np.einsum("mjl,j->ml", functions**2, weights), np.triu(np.ones((20, 20))), atol=1e-12
    )


def test_groups_are_drawn_from_their_own_keys() -> None:
    basis = harmonics()
    keys = jax.random.split(jax.random.PRNGKey(5), 3)
    together = np.asarray(compiled_noise(keys, (1, 3, 1), basis))
    assert together.shape == (5, NUM_LATITUDES, NUM_LONGITUDES)
    for fields, key, size in zip((together[:1], together[1:4], together[4:]), keys, (1, 3, 1), strict=True):
        drawn = jax.random.normal(key, (size, DEGREES, 2 * DEGREES - 1))
        np.testing.assert_allclose(fields, compiled_to_grid(drawn, basis), atol=1e-6)


def test_draws_have_mean_zero_and_variance_one() -> None:
    fields = np.asarray(compiled_noise(jax.random.PRNGKey(0)[None], (2000,), harmonics()))
    # The standard error of a variance of 2000 draws is √(2/2000) = 0.03; none of 84 exceeds 4 of these.
    np.testing.assert_allclose(fields.var(axis=0), 1, atol=0.13)
    np.testing.assert_allclose(fields.mean(axis=0), 0, atol=0.1)


def test_other_grids_are_refused() -> None:
    with pytest.raises(ValueError, match="both poles"):
        SphericalHarmonics(num_latitudes=180, num_longitudes=360)
