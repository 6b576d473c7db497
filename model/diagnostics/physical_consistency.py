"""Relations between fields that hold in the atmosphere whatever the weather: what a mislabelled field breaks.

A swapped pair of winds, a reversed latitude or a rolled longitude leaves every minimum, maximum and mean of
a field as plausible as before. These numbers do not: they compare one field with another, with the
rotation of the Earth, or with the sun. All work on any regular latitude-longitude grid, with arrays whose
last two dimensions are (latitude, longitude).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np

GAS_CONSTANT_DRY_AIR = 287.0597
"""R_d in J kg⁻¹ K⁻¹ (ECMWF IFS documentation, part IV)."""

EARTH_RADIUS = 6_371_229.0
"""Radius in m (the IFS's sphere)."""

EARTH_ROTATION = 7.292115e-5
"""Ω in s⁻¹."""

_VIRTUAL_FACTOR = 0.609133
"""R_v / R_d − 1."""

LANDMARKS: tuple[tuple[str, float, float, bool], ...] = (
    ("Sahara", 23.0, 10.0, True),
    ("Siberia", 62.0, 100.0, True),
    ("East Antarctica", -80.0, 70.0, True),
    ("Amazonia", -6.0, 300.0, True),
    ("Tibet", 33.0, 88.0, True),
    ("Australia", -25.0, 133.0, True),
    ("South Pacific", -30.0, 230.0, False),
    ("North Pacific", 40.0, 180.0, False),
    ("South Atlantic", -30.0, 345.0, False),
    ("North Atlantic", 45.0, 325.0, False),
    ("Indian Ocean", -30.0, 80.0, False),
    ("Central Arctic", 87.0, 180.0, False),
)
"""Places far from any coast: (name, degrees north, degrees east, is land)."""


@dataclass(frozen=True, kw_only=True)
class LayerError:
    """How far the temperature that a layer's thickness implies lies from the layer's own temperature.

    Args:
        bias: area mean of implied minus given virtual temperature, K.
        deviation: area standard deviation of the same, K.
        correlation: of the two along latitude circles; near 1 for one and the same atmosphere.
        logarithmic_depth: ln(lower pressure / upper pressure) of the layer.
    """

    bias: float
    deviation: float
    correlation: float
    logarithmic_depth: float


def cell_weights(latitude: np.ndarray) -> np.ndarray:
    """Area share of each row's cells, shape (latitude,), summing to 1: differences of sin φ at the bounds."""
    latitude = np.asarray(latitude, dtype=np.float64)
    if latitude.size == 1:
        return np.ones(1)
    middles = (latitude[:-1] + latitude[1:]) / 2
    first, last = (-90.0, 90.0) if latitude[0] < latitude[-1] else (90.0, -90.0)
    bounds = np.concatenate([[first], middles, [last]])
    weights = np.abs(np.diff(np.sin(np.deg2rad(bounds))))
    return weights / weights.sum()


def area_mean(field: np.ndarray, weights: np.ndarray) -> float:
    """Mean of a (latitude, longitude) field over its finite points; NaN if there are none."""
    with np.errstate(invalid="ignore"):  # infinities of both signs in a row
        rows = field.mean(axis=1, dtype=np.float64)
    if np.isfinite(rows).all():
        return float((weights * rows).sum())
    finite = np.isfinite(field)
    counts = finite.sum(axis=1)
    total = (weights * counts).sum()
    sums = np.where(finite, field, 0).sum(axis=1, dtype=np.float64)
    return float((weights * sums).sum() / total) if total > 0 else float("nan")


def correlation(first: np.ndarray, second: np.ndarray, weights: np.ndarray) -> float:
    """Area-weighted correlation of two (latitude, longitude) fields over points finite in both."""
    a = first.astype(np.float64)
    b = second.astype(np.float64)
    both = np.isfinite(a) & np.isfinite(b)
    if both.sum() < 3:
        return float("nan")
    if not both.all():
        a, b = np.where(both, a, np.nan), np.where(both, b, np.nan)
    squares = area_mean(a * a, weights), area_mean(b * b, weights)
    a = a - area_mean(a, weights)
    b = b - area_mean(b, weights)
    variances = area_mean(a * a, weights), area_mean(b * b, weights)
    # A constant field leaves rounding, which correlates with anything.
    if any(variance <= 1e-24 * square for variance, square in zip(variances, squares)):
        return float("nan")
    return area_mean(a * b, weights) / float(np.sqrt(variances[0] * variances[1]))


def layer_error(
    geopotential: np.ndarray,
    temperature: np.ndarray,
    humidity: np.ndarray | None,
    pressures: tuple[float, float],
    weights: np.ndarray,
) -> LayerError:
    """Hydrostatic balance of one layer: T̄v = ΔΦ / (R_d ln(p₁/p₀)) against the mean of its two levels' Tv.

    Args:
        geopotential: m² s⁻², (2, latitude, longitude), upper level first.
        temperature: K, the same shape.
        humidity: specific humidity in kg kg⁻¹, the same shape, or None to leave moisture out.
        pressures: hPa, upper level first.
        weights: from ``cell_weights``.
    """
    depth = float(np.log(pressures[1] / pressures[0]))
    implied = (geopotential[0].astype(np.float64) - geopotential[1]) / (GAS_CONSTANT_DRY_AIR * depth)
    virtual = temperature.astype(np.float64)
    if humidity is not None:
        virtual = virtual * (1.0 + _VIRTUAL_FACTOR * humidity)
    given = virtual.mean(axis=0)
    error = implied - given
    bias = area_mean(error, weights)
    return LayerError(
        bias=bias,
        deviation=float(np.sqrt(area_mean((error - bias) ** 2, weights))),
        correlation=correlation(zonal_anomaly(implied), zonal_anomaly(given), weights),
        logarithmic_depth=depth,
    )


def geostrophic_wind(
    geopotential: np.ndarray, latitude: np.ndarray, longitude: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Geostrophic (u, v) in m s⁻¹ of a geopotential field (latitude, longitude), centred differences.

    u_g = −(1/f) ∂Φ/∂y, v_g = (1/f) ∂Φ/∂x. NaN within 20° of the equator, where f is small, and poleward
    of 80°, where a row's points crowd.
    """
    phi = np.deg2rad(np.asarray(latitude, dtype=np.float64))
    spacing = np.deg2rad(360.0 / longitude.size)
    field = geopotential.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        coriolis = 2 * EARTH_ROTATION * np.sin(phi)[:, None]
        northward = np.gradient(field, phi * EARTH_RADIUS, axis=0)
        eastward = (np.roll(field, -1, axis=1) - np.roll(field, 1, axis=1)) / (
            2 * spacing * EARTH_RADIUS * np.cos(phi)[:, None]
        )
        u, v = -northward / coriolis, eastward / coriolis
    degrees = np.abs(np.rad2deg(phi))
    outside = (degrees < 20.0) | (degrees > 80.0)
    u[outside], v[outside] = np.nan, np.nan
    return u, v


def zonal_mean_strength(field: np.ndarray, weights: np.ndarray) -> float:
    """Root mean square over latitude of the zonal mean, in the field's units.

    Jets give the eastward wind 5–20 m s⁻¹ in the free troposphere; the northward wind's zonal mean is
    the Hadley and Ferrel cells' 1–2 m s⁻¹, for mass must be conserved. So it tells u from v.
    """
    means = field.mean(axis=1, dtype=np.float64)
    return float(np.sqrt((weights * means**2).sum()))


def zonal_anomaly(field: np.ndarray) -> np.ndarray:
    """A (latitude, longitude) field less its zonal mean over finite points."""
    finite = np.isfinite(field)
    count = np.maximum(finite.sum(axis=1, keepdims=True), 1)
    mean = np.where(finite, field, 0.0).sum(axis=1, keepdims=True, dtype=np.float64) / count
    return field - mean


def elevation_correlation(temperature: np.ndarray, surface: np.ndarray, weights: np.ndarray) -> float:
    """Correlation along latitude circles of near-surface temperature with surface geopotential.

    Negative, because mountains are colder than lowlands of the same latitude; a field shifted against
    the orography loses it.
    """
    return correlation(zonal_anomaly(temperature), zonal_anomaly(surface), weights)


def meridian_seam(field: np.ndarray) -> float:
    """Largest root mean square step between neighbouring meridians over the median one.

    About 1–2 for a whole field; a wrongly joined field (halves swapped, a sector missing) has one or two
    meridians over which it jumps. NaN if more than half the points are not finite.
    """
    if np.isfinite(field).mean() < 0.5:
        return float("nan")
    steps = np.roll(field, -1, axis=1).astype(np.float64) - field
    squares = np.where(np.isfinite(steps), steps**2, 0.0)
    size = np.sqrt(squares.sum(axis=0) / np.maximum(np.isfinite(steps).sum(axis=0), 1))
    median = float(np.median(size))
    return float(size.max() / median) if median > 0 else float("nan")


def diurnal_phase_error(
    change: np.ndarray,
    land: np.ndarray,
    latitude: np.ndarray,
    longitude: np.ndarray,
    valid_time: datetime,
    step_hours: float,
) -> float:
    """Hours by which the daily warming of the land lags (+) or leads (−) the sun; NaN if it cannot be told.

    2 m temperature over land follows A cos(2π(s − 15 h)/24 h) with the local solar time s, so its change over
    a step of Δ hours is largest where s = 9 h + Δ/2 at the end of the step. Least squares of the change on
    cos and sin of solar time between 50°S and 50°N gives the hour at which it is largest.

    Args:
        change: 2 m temperature at ``valid_time`` less that one step before, K, (latitude, longitude).
        land: land fraction 0…1, the same shape.
        latitude, longitude: degrees.
        valid_time: end of the step, UTC.
        step_hours: Δ, less than 24.
    """
    latitude, longitude = np.asarray(latitude, np.float64), np.asarray(longitude, np.float64)
    use = (land > 0.5) & (np.abs(latitude)[:, None] < 50.0) & np.isfinite(change)
    if use.sum() < 20:
        return float("nan")
    hours_utc = valid_time.hour + valid_time.minute / 60.0
    angle = 2 * np.pi * ((hours_utc + longitude / 15.0) % 24.0) / 24.0
    angles = np.broadcast_to(angle[None, :], change.shape)[use]
    design = np.stack([np.ones_like(angles), np.cos(angles), np.sin(angles)], axis=1)
    root = np.sqrt(np.broadcast_to(cell_weights(latitude)[:, None], change.shape)[use])
    solution, _, rank, _ = np.linalg.lstsq(design * root[:, None], change[use] * root, rcond=None)
    if rank < 3 or np.hypot(solution[1], solution[2]) < 0.5:
        return float("nan")
    largest = np.arctan2(solution[2], solution[1]) * 24.0 / (2 * np.pi)
    return float((largest - (9.0 + step_hours / 2.0) + 12.0) % 24.0 - 12.0)


def landmark_agreement(
    land: np.ndarray, latitude: np.ndarray, longitude: np.ndarray, *, threshold: float = 0.5
) -> float:
    """Share of ``LANDMARKS`` whose nearest point is land (fraction above threshold) or sea as it should."""
    latitude, longitude = np.asarray(latitude, np.float64), np.asarray(longitude, np.float64)
    right = 0
    for _, north, east, is_land in LANDMARKS:
        row = int(np.abs(latitude - north).argmin())
        column = int(np.abs((longitude - east + 180.0) % 360.0 - 180.0).argmin())
        right += bool(land[row, column] > threshold) == is_land
    return right / len(LANDMARKS)
