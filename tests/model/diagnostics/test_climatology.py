"""Harmonic climatologies: exact on fields made of harmonics, additive over any split."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from model.diagnostics.climatology import (
    HarmonicBasis,
    HarmonicSums,
    assemble,
    climatological_mean,
    climatological_spread,
    squared_anomalies,
)

TIMES = np.datetime64("2001-01-01T00", "ns") + np.arange(2 * 365 * 4) * np.timedelta64(6, "h")
BASIS = HarmonicBasis(annual=2, daily=1)


def annual_phase(times: np.ndarray) -> np.ndarray:
    """2π × share of the year gone by, in years of 365 days (2001 and 2002 have no leap day)."""
    return 2 * np.pi * (((times - np.datetime64("2001-01-01")) / np.timedelta64(365, "D")) % 1)


def hour_phase(times: np.ndarray) -> np.ndarray:
    return 2 * np.pi * ((times - np.datetime64("2001-01-01")) / np.timedelta64(1, "D") % 1)


def seasonal(times: np.ndarray) -> np.ndarray:
    a, h = annual_phase(times), hour_phase(times)
    return 280 + 8 * np.cos(a) - 3 * np.sin(2 * a) + (2 + np.cos(a)) * np.sin(h)


def block(times: np.ndarray, noise: float = 0.0, seed: int = 0) -> xr.Dataset:
    spread = noise * (2 + np.cos(annual_phase(times)))
    values = seasonal(times) + spread * np.random.default_rng(seed).standard_normal(times.size)
    sst = np.full((times.size, 1, 2), np.nan)
    sst[:, 0, 0] = 290.0
    return xr.Dataset(
        {
            "2m_temperature": (("time", "latitude", "longitude"), np.stack([values, -values], -1)[:, None]),
            "sea_surface_temperature": (("time", "latitude", "longitude"), sst),
            "land_sea_mask": (("latitude", "longitude"), np.ones((1, 2))),
        },
        coords={"time": times, "latitude": [0.0], "longitude": [0.0, 180.0]},
    )


def test_recovers_a_mean_made_of_its_own_harmonics() -> None:
    mean_fit = HarmonicSums.of(block(TIMES), BASIS).coefficients()
    probe = np.array(["2003-04-11T06", "2003-12-30T18"], dtype="datetime64[ns]")
    mean = climatological_mean(mean_fit, probe)
    expected = seasonal(probe)  # 2003 too has 365 days
    np.testing.assert_allclose(mean["2m_temperature"][:, 0, 0], expected, rtol=1e-6)
    np.testing.assert_allclose(mean["2m_temperature"][:, 0, 1], -expected, rtol=1e-6)
    assert "land_sea_mask" not in mean
    assert np.isnan(mean["sea_surface_temperature"].values[:, 0, 1]).all()
    np.testing.assert_allclose(mean["sea_surface_temperature"].values[:, 0, 0], 290.0, rtol=1e-6)
    assert mean["2m_temperature"].dtype == np.float32


def test_a_day_counts_by_its_share_of_a_leap_year() -> None:
    # Half the hours of 2004 (366 days) end on 2 July 00 UTC: there cos of the annual phase is −1.
    functions = HarmonicBasis(annual=1, daily=0).values(np.array(["2004-07-02T00"], dtype="datetime64[ns]"))
    np.testing.assert_allclose(functions, [[1.0, -1.0, 0.0]], atol=1e-12)


def reduce(blocks: list[xr.Dataset], basis: HarmonicBasis) -> xr.Dataset:
    total = HarmonicSums.of(blocks[0], basis)
    for piece in blocks[1:]:
        total = total.combine(HarmonicSums.of(piece, basis))
    return total.coefficients()


def test_spread_follows_the_season() -> None:
    # Noise of standard deviation 2 + cos: 3 on 1 January, 1 on 2 July. Its square has two annual harmonics.
    blocks = [block(TIMES, noise=1.0, seed=seed) for seed in range(4)]
    mean = reduce(blocks, BASIS)
    variance = reduce([squared_anomalies(b, mean) for b in blocks], HarmonicBasis(annual=2, daily=0))
    climatology = assemble(mean, variance)
    probe = np.array(["2003-01-01T12", "2003-07-02T12"], dtype="datetime64[ns]")
    spread = climatological_spread(climatology, probe)
    np.testing.assert_allclose(spread["2m_temperature"][:, 0, 0], [3.0, 1.0], rtol=0.05)
    assert set(spread.data_vars) == {"2m_temperature", "sea_surface_temperature"}
    xr.testing.assert_allclose(climatological_mean(climatology, probe), climatological_mean(mean, probe))


def test_a_negative_fitted_variance_is_a_small_one() -> None:
    # Variance 81 in one half of the year and 0 in the other: mean 40.5, first harmonic 162/π = 51.6, so the
    # fit is −11 in the middle of the quiet half, where a tenth of the mean is taken.
    data = block(TIMES)
    quiet = np.cos(annual_phase(TIMES)) < 0
    anomaly = np.where(quiet, 0.0, np.where(np.arange(TIMES.size) % 2, 9.0, -9.0))
    data["2m_temperature"] = data["2m_temperature"] + xr.DataArray(anomaly, dims="time")
    mean = reduce([data], BASIS)
    variance = reduce([squared_anomalies(data, mean)], HarmonicBasis(annual=1, daily=0))
    probe = np.array(["2003-07-02T12"], dtype="datetime64[ns]")
    spread = climatological_spread(assemble(mean, variance), probe)["2m_temperature"]
    assert spread.dims == ("time", "latitude", "longitude")
    np.testing.assert_allclose(spread, np.sqrt(4.05), rtol=0.02)


def test_any_split_gives_the_same() -> None:
    data = block(TIMES, noise=1.0)
    whole = HarmonicSums.of(data, BASIS).coefficients()
    cuts = (slice(0, 7), slice(7, 1500), slice(1500, None))
    parts = [HarmonicSums.of(data.isel(time=cut), BASIS) for cut in cuts]
    split = parts[0].combine(parts[1].combine(parts[2])).coefficients()
    xr.testing.assert_allclose(split, whole, rtol=1e-5)


def test_too_few_times_are_refused() -> None:
    few = HarmonicSums.of(block(TIMES[:3]), BASIS)
    with pytest.raises(ValueError, match="3 times cannot tell 15 harmonics apart"):
        few.coefficients()
    with pytest.raises(ValueError, match="basis"):
        few.combine(HarmonicSums.of(block(TIMES[:3]), HarmonicBasis(annual=1, daily=1)))
