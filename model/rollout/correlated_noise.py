"""Gaussian noise of unit variance whose correlation on the sphere falls off over a given length.

A field is a sum of spherical harmonics with independent normal coefficients whose variance depends on the
degree alone, so that it is homogeneous and isotropic: unit variance everywhere, poles included, and a
correlation that is a function of distance only. The variance per coefficient is that of the heat kernel,
exp(−l(l+1) (ℓ/a)²/2), whose correlation at a distance d ≪ a is exp(−d² / 2ℓ²).
"""

from __future__ import annotations

from functools import lru_cache

import jax
import numpy as np

from model.gencast.spherical_noise import associated_legendre
from model.grid import Grid

EARTH_RADIUS_KM = 6371.229
"""Radius in km (the IFS's sphere)."""

_NEGLIGIBLE = 1e-6


def degree_variances(grid: Grid, length_km: float) -> np.ndarray:
    """Variance of the coefficients of each degree, shape (degree,), such that fields have unit variance.

    Degrees go up to where the spectrum is negligible, or to what the grid resolves.

    Raises:
        ValueError: the length is not positive.
    """
    if length_km <= 0:
        raise ValueError(f"correlation length: expected a positive number of km, got {length_km}")
    resolved = grid.shape[1] // 2
    degrees = np.arange(resolved)
    spectrum = np.exp(-0.5 * degrees * (degrees + 1) * (length_km / EARTH_RADIUS_KM) ** 2)
    spectrum = spectrum[: max(2, int((spectrum > _NEGLIGIBLE).sum()))]
    # Addition theorem: the variance anywhere is Σ (2l + 1) C_l / 4π.
    return spectrum * 4 * np.pi / ((2 * np.arange(spectrum.size) + 1) * spectrum).sum()


def correlation_at(variances: np.ndarray, distance_km: np.ndarray | float) -> np.ndarray:
    """Correlation of two points a great-circle distance apart, Σ (2l + 1) C_l P_l(cos d/a) / 4π."""
    degrees = np.arange(variances.size)
    coefficients = (2 * degrees + 1) * variances / (4 * np.pi)
    cosine = np.cos(np.asarray(distance_km, dtype=np.float64) / EARTH_RADIUS_KM)
    return np.polynomial.legendre.legval(cosine, coefficients)


def correlated_noise(
    key: np.ndarray, grid: Grid, *, length_km: float, vertical_correlations: tuple[float, ...] = ()
) -> np.ndarray:
    """Fields on consecutive levels, float32, shape (1 + len(vertical_correlations), latitude, longitude).

    Args:
        key: raw threefry key, uint32 (2,).
        grid: where.
        length_km: ℓ.
        vertical_correlations: of each level with the one before, within 0…1.
    """
    variances = degree_variances(grid, length_km)
    degrees = variances.size
    levels = 1 + len(vertical_correlations)
    # On the host: the same numbers whatever accelerator there is.
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        drawn = jax.random.normal(np.asarray(key, dtype=np.uint32), (levels, 2, degrees, degrees))
    draws = np.asarray(drawn, dtype=np.float64)
    coefficients = draws * np.sqrt(variances)[None, None, None, :]
    for level, rho in enumerate(vertical_correlations, start=1):
        coefficients[level] = rho * coefficients[level - 1] + np.sqrt(1 - rho**2) * coefficients[level]
    return _to_grid(coefficients, grid)


def _to_grid(coefficients: np.ndarray, grid: Grid) -> np.ndarray:
    """Sum the harmonics: (field, cosine and sine, order, degree) → (field, latitude, longitude)."""
    longitudes = grid.shape[1]
    legendre = _legendre(coefficients.shape[-1], grid.shape[0])
    along_degrees = np.einsum("mjl,fcml->fcjm", legendre, coefficients, optimize=True)
    waves = (along_degrees[:, 0] - 1j * along_degrees[:, 1]) * (longitudes / (2 * np.sqrt(np.pi)))
    waves[..., 0] = along_degrees[:, 0, :, 0] * (longitudes / np.sqrt(2 * np.pi))
    return np.fft.irfft(waves, n=longitudes, axis=-1).astype(np.float32)


@lru_cache(maxsize=2)
def _legendre(degrees: int, rows: int) -> np.ndarray:
    return associated_legendre(degrees, np.sin(np.linspace(-np.pi / 2, np.pi / 2, rows)))
