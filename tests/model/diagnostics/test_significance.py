"""The paired test against scipy's where cycles are independent, and against simulation where they are not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from model.diagnostics.significance import autocorrelation_inflation, departure_from_usual, paired_test


def autoregressive(rng: np.random.Generator, phi_1: float, phi_2: float, count: int) -> np.ndarray:
    series = np.zeros(count + 100)
    noise = rng.normal(size=count + 100)
    for t in range(2, count + 100):
        series[t] = phi_1 * series[t - 1] + phi_2 * series[t - 2] + noise[t]
    return series[100:]


def test_without_correlation_it_is_students_test() -> None:
    first = np.array([1.0, 3.0, 0.0, 2.0, 2.5, 0.5, 1.5, 3.5, 0.2, 1.1])
    second = np.array([1.5, 2.0, 0.9, 1.0, 3.5, 0.1, 2.5, 2.5, 0.8, 0.6])
    result = paired_test(first, second)
    reference = stats.ttest_rel(first, second)
    assert result.inflation == 1.0  # these alternate: negative correlation
    assert result.p_value == pytest.approx(reference.pvalue)
    interval = reference.confidence_interval(0.95)
    assert result.half_width == pytest.approx((interval.high - interval.low) / 2)
    assert result.significant == (reference.pvalue < 0.05)


@pytest.mark.parametrize(("phi_1", "phi_2"), [(0.6, 0.0), (0.5, 0.2)])
def test_correlated_differences_reject_about_as_often_as_stated(phi_1: float, phi_2: float) -> None:
    """Under no true difference 5 % of 95 % tests reject; Student's test rejects far more."""
    rng = np.random.default_rng(11)
    ours = students = 0
    trials, count = 400, 180
    for _ in range(trials):
        series = autoregressive(rng, phi_1, phi_2, count)
        ours += paired_test(series, np.zeros(count)).significant
        students += stats.ttest_1samp(series, 0).pvalue < 0.05
    assert ours / trials < 0.10
    assert students / trials > 0.20


def test_inflation_of_a_first_order_process() -> None:
    # For AR(1) the ratio of variances is (1 + φ) / (1 − φ): 4 for φ = 0.6, so the error doubles.
    series = autoregressive(np.random.default_rng(3), 0.6, 0.0, 20000)
    assert autocorrelation_inflation(series) == pytest.approx(2.0, rel=0.05)
    assert autocorrelation_inflation(np.ones(10)) == 1.0
    assert autocorrelation_inflation(np.arange(40.0)) > 2


def test_a_difference_is_found() -> None:
    rng = np.random.default_rng(0)
    base = autoregressive(rng, 0.5, 0.1, 120)
    result = paired_test(base + 0.5 + 0.1 * rng.normal(size=120), base)
    assert result.significant
    assert result.difference == pytest.approx(0.5, abs=0.05)
    assert result.p_value < 1e-6


def test_series_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(ValueError, match="shapes"):
        paired_test(np.zeros(10), np.zeros(9))
    with pytest.raises(ValueError, match="at least 8 finite pairs, got 7"):
        paired_test(np.zeros(7), np.zeros(7))
    with pytest.raises(ValueError, match="got 9"):
        paired_test(np.r_[np.nan, np.ones(9)], np.ones(10))


def test_departure_counts_robust_standard_deviations() -> None:
    history = np.exp(np.random.default_rng(1).normal(0.0, 0.1, 200))
    assert abs(departure_from_usual(history, float(np.exp(np.median(np.log(history)))))) < 1e-9
    # exp(0.5) lies five standard deviations of the logarithm above.
    assert departure_from_usual(history, float(np.exp(0.5))) == pytest.approx(5.0, rel=0.2)
    with_outliers = np.r_[history, np.full(20, 50.0)]
    assert departure_from_usual(with_outliers, float(np.exp(0.5))) > 3.5
    assert np.isnan(departure_from_usual(history[:7], 1.0))
