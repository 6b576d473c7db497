"""Gaussian noise that is white and isotropic on the sphere, drawn through spherical harmonics.

GenCast diffuses with noise whose power is the same at every wavenumber the grid resolves, so that it is
isotropic on the sphere rather than finer towards the poles (Price et al. 2023, arXiv:2312.15796). A field is

    f(λ, θ) = Σ_l Σ_{|m| ≤ l} a_lm Y_lm(λ, θ),   a_lm ~ N(0, 4π / (L (2l + 1))),   0 ≤ l < L,

with L half the number of longitudes and real orthonormal harmonics Y_lm. By the addition theorem its variance
is 1 everywhere.

The draws follow DeepMind's recipe: normal numbers of shape (…, l, m) with the orders m in the sequence
0, 1, −1, 2, −2, …; cosine for positive, sine for negative orders; the Condon-Shortley sign (−1)^m.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class SphericalHarmonics:
    """The harmonics of degree below `num_degrees` on a regular grid with both poles.

    Args:
      num_latitudes: grid rows from the south pole to the north pole.
      num_longitudes: grid columns from longitude 0; twice `num_latitudes − 1`.
    """

    num_latitudes: int
    num_longitudes: int

    def __post_init__(self) -> None:
        if self.num_latitudes < 2 or self.num_longitudes != 2 * (self.num_latitudes - 1):
            raise ValueError(
                "spherical noise: expected a grid with both poles and 2 (latitudes − 1) longitudes, got "
                f"{self.num_latitudes} latitudes and {self.num_longitudes} longitudes"
            )

    @property
    def num_degrees(self) -> int:
        """L: degrees l and orders |m| run below it."""
        return self.num_longitudes // 2

    def basis(self) -> dict[str, np.ndarray]:
        """Arrays that `white_noise` takes, float32.

        `legendre`: (|m|, southern latitude, l), rows from the pole to the equator, scaled so that unit normal
        coefficients give unit variance. The northern rows follow from the parity of l + m, which halves this
        largest array of the transform. `parity`: (|m|, l), (−1)^(l+m). `fourier`: (longitude, m) in the order
        of the draws.
        """
        degrees = np.arange(self.num_degrees)
        southern = np.linspace(-np.pi / 2, np.pi / 2, self.num_latitudes)[: (self.num_latitudes + 1) // 2]
        legendre = associated_legendre(self.num_degrees, np.sin(southern))
        amplitude = np.sqrt(4 * np.pi / (self.num_degrees * (2 * degrees + 1)))
        longitudes = 2 * np.pi * np.arange(self.num_longitudes) / self.num_longitudes
        fourier = np.empty((self.num_longitudes, 2 * self.num_degrees - 1))
        angles = np.outer(longitudes, degrees[1:])
        fourier[:, 0] = 1 / np.sqrt(2 * np.pi)
        fourier[:, 1::2] = np.cos(angles) / np.sqrt(np.pi)
        fourier[:, 2::2] = np.sin(angles) / np.sqrt(np.pi)
        parity = 1.0 - 2.0 * (np.add.outer(degrees, degrees) % 2)
        arrays = {"legendre": legendre * amplitude, "parity": parity, "fourier": fourier}
        return {name: array.astype(np.float32) for name, array in arrays.items()}


def associated_legendre(num_degrees: int, sine_of_latitude: np.ndarray) -> np.ndarray:
    """Associated Legendre functions with unit L² norm on [−1, 1], float64, shape (m, position, l).

    By the recurrence that is stable upwards in l (Holmes & Featherstone 2002, J. Geodesy 76, eqs. 11-13),
    with the Condon-Shortley sign. Entries with l < m are zero.
    """
    sine = np.asarray(sine_of_latitude, dtype=np.float64)
    cosine = np.sqrt(np.maximum(1 - sine**2, 0))
    result = np.zeros((num_degrees, len(sine), num_degrees))
    sectoral = np.full(len(sine), np.sqrt(0.5))
    for m in range(num_degrees):
        if m:
            sectoral = -np.sqrt(1 + 0.5 / m) * cosine * sectoral
        result[m, :, m] = sectoral
    orders = np.arange(num_degrees)
    for degree in range(1, num_degrees):
        below = orders[:degree, None] ** 2
        a = np.sqrt((4 * degree**2 - 1) / (degree**2 - below))
        b = np.sqrt(((degree - 1) ** 2 - below) / (4 * (degree - 1) ** 2 - 1))
        before = result[:degree, :, degree - 2] if degree > 1 else 0.0
        result[:degree, :, degree] = a * (sine * result[:degree, :, degree - 1] - b * before)
    return result


def white_noise(keys: jax.Array, sizes: Sequence[int], basis: dict[str, jax.Array]) -> jax.Array:
    """Independent fields of unit variance, float32, shape (field, latitude, longitude).

    Args:
        keys: one for each group of fields, raw threefry keys, uint32 (group, 2).
        sizes: number of fields of each group; a group is drawn at once, as the levels of one variable.
        basis: from ``SphericalHarmonics.basis``.
    """
    orders, _, degrees = basis["legendre"].shape
    groups: dict[int, jax.Array] = {}
    # Groups of one size are drawn together, which gives the same numbers as one by one in fewer operations.
    for size in sorted(set(sizes)):
        of_size = np.flatnonzero(np.asarray(sizes) == size)
        shape = (size, degrees, 2 * orders - 1)
        draw = jax.vmap(lambda key, shape=shape: jax.random.normal(key, shape))
        groups.update(zip(of_size.tolist(), draw(keys[of_size]), strict=True))
    return to_grid(jnp.concatenate([groups[group] for group in range(len(sizes))]), basis)


def to_grid(coefficients: jax.Array, basis: dict[str, jax.Array]) -> jax.Array:
    """Sums the harmonics: (field, l, m in the order of the draws) → (field, latitude, longitude).

    Coefficients with |m| > l do not contribute. Both products keep full float32 on every device.
    """
    positive = coefficients[:, :, np.r_[0, 1 : coefficients.shape[-1] : 2]]
    negative = jnp.pad(coefficients[:, :, 2::2], ((0, 0), (0, 0), (1, 0)))
    # (m, field and sign, l): one product per order serves its cosine and its sine.
    paired = jnp.moveaxis(jnp.concatenate([positive, negative]), -1, 0)
    even = (1 + basis["parity"]) / 2

    def along_degrees(selected: jax.Array) -> jax.Array:
        return jnp.einsum("mjl,mfl->fjm", basis["legendre"], selected, precision=jax.lax.Precision.HIGHEST)

    symmetric = along_degrees(paired * even[:, None])
    antisymmetric = along_degrees(paired * (1 - even)[:, None])
    num_latitudes = _grid_shape(basis)[0]
    north = (symmetric - antisymmetric)[:, : num_latitudes // 2][:, ::-1]
    waves = jnp.concatenate([symmetric + antisymmetric, north], axis=1)
    cosines, sines = jnp.split(waves, 2)
    interleaved = jnp.stack([cosines, sines], axis=-1).reshape((*cosines.shape[:2], -1))
    in_order = jnp.concatenate([interleaved[..., :1], interleaved[..., 2:]], axis=-1)
    return jnp.einsum("im,fjm->fji", basis["fourier"], in_order, precision=jax.lax.Precision.HIGHEST)


def _grid_shape(basis: dict[str, jax.Array]) -> tuple[int, int]:
    num_longitudes = basis["fourier"].shape[0]
    return num_longitudes // 2 + 1, num_longitudes
