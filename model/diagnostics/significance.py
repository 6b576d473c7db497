"""Is one forecast better than another, or is a score out of its usual range?

Scores of neighbouring cycles are correlated, so a plain t-test claims too much. Following Geer (2016,
Tellus A 68, 30229) the differences are taken as a second-order autoregressive process, whose mean varies more
than that of independent numbers by a known factor.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MINIMUM_CYCLES = 8
"""Fewer tell nothing."""

_NORMAL_PER_MAD = 1.4826


@dataclass(frozen=True, kw_only=True)
class PairedTest:
    """Outcome of a paired comparison.

    Args:
        difference: mean of first minus second.
        half_width: half of the confidence interval of the difference.
        p_value: two-sided.
        inflation: factor by which autocorrelation widens the interval; 1 for independent cycles.
        count: number of cycles.
    """

    difference: float
    half_width: float
    p_value: float
    inflation: float
    count: int

    @property
    def significant(self) -> bool:
        """Whether the confidence interval excludes zero."""
        return abs(self.difference) > self.half_width


def paired_test(first: np.ndarray, second: np.ndarray, *, confidence: float = 0.95) -> PairedTest:
    """Compare two forecasts by their scores of the same cycles, in order and evenly spaced.

    Args:
        first, second: a score per cycle (for the RMSE take squared errors), shape (cycle,).
        confidence: of the interval.

    Raises:
        ValueError: the series differ in length, are too short to tell, or hold NaN.
    """
    from scipy import stats

    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(
            f"expected two series of the same cycles, got shapes {first.shape} and {second.shape}"
        )
    difference = first - second
    count = len(difference)
    if count < MINIMUM_CYCLES or not np.isfinite(difference).all():
        raise ValueError(
            f"expected at least {MINIMUM_CYCLES} finite pairs, got {np.isfinite(difference).sum()}"
        )
    inflation = autocorrelation_inflation(difference)
    error = difference.std(ddof=1) / np.sqrt(count) * inflation
    mean = float(difference.mean())
    if error == 0:
        return PairedTest(
            difference=mean, half_width=0.0, p_value=float(mean == 0), inflation=inflation, count=count
        )
    quantile = stats.t.ppf((1 + confidence) / 2, count - 1)
    return PairedTest(
        difference=mean,
        half_width=float(quantile * error),
        p_value=float(2 * stats.t.sf(abs(mean) / error, count - 1)),
        inflation=inflation,
        count=count,
    )


def autocorrelation_inflation(series: np.ndarray) -> float:
    """Standard error of the mean of an AR(2) process over that of independent numbers, at least 1.

    With Yule-Walker coefficients φ₁, φ₂ from the autocorrelations ρ₁, ρ₂ the ratio of variances is
    (1 − φ₁ρ₁ − φ₂ρ₂) / (1 − φ₁ − φ₂)². Negative correlation is not credited.
    """
    departures = np.asarray(series, dtype=np.float64) - np.mean(series)
    power = float(departures @ departures)
    if power == 0:
        return 1.0
    first, second = (float(departures[lag:] @ departures[:-lag]) / power for lag in (1, 2))
    phi_1 = first * (1 - second) / (1 - first**2)
    phi_2 = (second - first**2) / (1 - first**2)
    remaining = 1 - phi_1 - phi_2
    if remaining <= 0:
        return float(np.sqrt(len(departures)))  # not stationary: as good as one cycle
    ratio = (1 - phi_1 * first - phi_2 * second) / remaining**2
    return float(np.sqrt(max(1.0, min(ratio, len(departures)))))


def departure_from_usual(history: np.ndarray, latest: float) -> float:
    """How far a cycle's score lies from those before it, in robust standard deviations of the logarithm.

    Median and median absolute deviation, so that a few bad cycles do not widen what counts as usual; scores
    such as the RMSE are positive and vary by factors, hence the logarithm. NaN with fewer than 8 cycles.

    Args:
        history: positive scores of earlier cycles, shape (cycle,).
        latest: the score to judge.
    """
    known = np.asarray(history, dtype=np.float64)
    known = np.log(known[np.isfinite(known) & (known > 0)])
    if len(known) < MINIMUM_CYCLES or not latest > 0:
        return float("nan")
    middle = np.median(known)
    scale = _NORMAL_PER_MAD * np.median(np.abs(known - middle))
    return float((np.log(latest) - middle) / max(scale, 1e-3))
