"""Streaming statistics against numpy on the whole array, and their additivity."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from model.diagnostics.running_statistics import ArchiveStatistics, Moments, accumulate, running

SIX_HOURS, TWELVE_HOURS = timedelta(hours=6), timedelta(hours=12)


def archive(times: int = 9, seed: int = 0) -> xr.Dataset:
    rng = np.random.default_rng(seed)
    sst = rng.normal(290.0, 5.0, (times, 3, 4)).astype(np.float32)
    sst[:, 1, 2] = np.nan
    return xr.Dataset(
        {
            "temperature": (("time", "level", "latitude", "longitude"), rng.normal(250, 9, (times, 2, 3, 4))),
            "sea_surface_temperature": (("time", "latitude", "longitude"), sst),
            "land_sea_mask": (("latitude", "longitude"), np.eye(3, 4)),
        },
        coords={
            "time": np.datetime64("2001-01-01", "ns") + np.arange(times) * np.timedelta64(6, "h"),
            "level": [500, 850],
        },
    )


def cut(dataset: xr.Dataset, places: list[int]) -> list[xr.Dataset]:
    bounds = [0, *sorted(set(places)), dataset.sizes["time"]]
    return [dataset.isel(time=slice(a, b)) for a, b in pairwise(bounds) if b > a]


def test_whole_archive_equals_numpy() -> None:
    data = archive()
    statistics = accumulate([data])
    t = data.temperature.values
    np.testing.assert_allclose(statistics.mean().temperature, t.mean(axis=(0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(statistics.standard_deviation().temperature, t.std(axis=(0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(statistics.minimum().temperature, t.min(axis=(0, 2, 3)), rtol=1e-6)
    six = statistics.difference_standard_deviation(SIX_HOURS)
    twelve = statistics.difference_standard_deviation(TWELVE_HOURS)
    np.testing.assert_allclose(six.temperature, (t[1:] - t[:-1]).std(axis=(0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(twelve.temperature, (t[2:] - t[:-2]).std(axis=(0, 2, 3)), rtol=1e-6)
    assert six.level.values.tolist() == [500, 850]
    assert statistics.mean().temperature.dtype == np.float32


def test_land_points_and_statics() -> None:
    statistics = accumulate([archive()])
    sst = archive().sea_surface_temperature.values
    np.testing.assert_allclose(statistics.mean().sea_surface_temperature, np.nanmean(sst), rtol=1e-6)
    np.testing.assert_allclose(statistics.minimum().sea_surface_temperature, np.nanmin(sst), rtol=1e-6)
    # Three ones on the diagonal of 3 × 4 points.
    assert float(statistics.mean().land_sea_mask) == pytest.approx(3 / 12)
    assert "land_sea_mask" not in statistics.difference_standard_deviation(SIX_HOURS)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 8), max_size=5))
def test_any_split_gives_the_same(places: list[int]) -> None:
    data = archive()
    whole, pieces = accumulate([data]), accumulate(cut(data, places))
    for get in (
        ArchiveStatistics.mean,
        ArchiveStatistics.standard_deviation,
        ArchiveStatistics.minimum,
        lambda s: s.difference_standard_deviation(SIX_HOURS),
        lambda s: s.difference_standard_deviation(TWELVE_HOURS),
    ):
        xr.testing.assert_allclose(get(pieces), get(whole), rtol=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(-1e4, 1e4), min_size=3, max_size=12), st.data())
def test_moments_are_a_monoid(values: list[float], data: st.DataObject) -> None:
    a, b = sorted(data.draw(st.tuples(st.integers(0, len(values)), st.integers(0, len(values)))))
    parts = [Moments.of(np.asarray(p), (0,)) for p in (values[:a], values[a:b], values[b:])]
    left, right = parts[0].combine(parts[1]).combine(parts[2]), parts[0].combine(parts[1].combine(parts[2]))
    for moments in (left, right, left.combine(Moments.empty()), Moments.empty().combine(right)):
        assert moments.count == len(values)
        np.testing.assert_allclose(moments.mean, np.mean(values), rtol=1e-9, atol=1e-8)
        np.testing.assert_allclose(moments.standard_deviation, np.std(values), rtol=1e-7, atol=1e-6)
        assert moments.minimum == min(values)


def test_large_offset_keeps_the_variance() -> None:
    # Geopotential: a spread of 1 on 2e5; the sum of squares would lose it in float32.
    moments = Moments.of(np.array([2e5 - 1.0, 2e5 + 1.0]), (0,)).combine(Moments.of(np.array([2e5]), (0,)))
    np.testing.assert_allclose(moments.standard_deviation, np.sqrt(2 / 3), rtol=1e-9)


def test_a_gap_has_no_difference_across_it() -> None:
    data = archive().isel(time=[0, 1, 4, 5])
    counts = accumulate(cut(data, [2])).differences[SIX_HOURS]["temperature"].count
    assert counts.tolist() == [24.0, 24.0]  # two pairs of 3 × 4 points


def test_blocks_out_of_order_are_refused() -> None:
    data = archive()
    with pytest.raises(ValueError, match="expected times after"):
        list(running([data.isel(time=slice(4, 8)), data.isel(time=slice(0, 4))], [SIX_HOURS]))
    with pytest.raises(ValueError, match="levels"):
        list(running([data.isel(time=slice(0, 4)), data.isel(time=slice(4, 8), level=[0])], []))
