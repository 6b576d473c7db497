"""Scores against hand-worked cases, plain loops and the ``scores`` package."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from model.diagnostics.scores import (
    REGIONS,
    Region,
    add,
    ensemble_statistics,
    mean_member_difference,
    rank_counts,
    region_weights,
    scores,
    total,
)
from model.errors import InvalidFieldError
from model.grid import Grid

GRID = Grid(resolution=30.0)
LEADS = np.array([6, 12], dtype="timedelta64[h]").astype("timedelta64[ns]")


def dataset(values: np.ndarray, *, members: bool) -> xr.Dataset:
    """values: ([member], lead_time, level, latitude, longitude) as one variable on levels and one without."""
    dims = (("member",) if members else ()) + ("lead_time", "level", "latitude", "longitude")
    field = xr.DataArray(values, dims=dims, coords={"level": [500, 850], "lead_time": LEADS})
    return xr.Dataset(
        {"temperature": field, "2m_temperature": field.isel(level=0, drop=True) * 2}
    ).assign_coords(latitude=GRID.latitude, longitude=GRID.longitude)


def case(seed: int = 0, members: int = 4) -> tuple[xr.Dataset, xr.Dataset, xr.Dataset, xr.Dataset]:
    """Forecast, truth, climatology and initial state, random."""
    rng = np.random.default_rng(seed)
    shape = (2, 2, *GRID.shape)
    forecast = dataset(rng.normal(280, 5, (members, *shape)), members=True)
    truth, climatology = (dataset(rng.normal(280, 5, shape), members=False) for _ in range(2))
    initial = dataset(rng.normal(280, 5, shape), members=False).isel(lead_time=0, drop=True)
    return forecast, truth, climatology, initial


def statistics(seed: int = 0, members: int = 4) -> xr.Dataset:
    forecast, truth, climatology, initial = case(seed, members)
    return ensemble_statistics(forecast, truth, grid=GRID, persistence=initial, climatology=climatology)


def test_region_weights_are_the_share_of_the_spheres_area() -> None:
    weights = region_weights(GRID) * GRID.shape[1]
    assert weights.sum(axis=1) == pytest.approx(1.0, abs=1e-12)
    # 30° rows: the equator's cells reach ±15°; of the whole sphere that is sin 15° = 0.258819.
    assert weights[0, 3] == pytest.approx(0.25881904510252074, abs=1e-12)
    # The tropics hold the equator's row alone.
    assert weights[1].tolist() == [0, 0, 0, 1, 0, 0, 0]


def test_scores_against_plain_loops() -> None:
    forecast, truth, climatology, initial = case()
    result = scores(statistics())
    x = forecast["temperature"].sel(level=850).isel(lead_time=1).values
    y = truth["temperature"].sel(level=850).isel(lead_time=1).values
    c = climatology["temperature"].sel(level=850).isel(lead_time=1).values
    p = initial["temperature"].sel(level=850).values
    sums = dict.fromkeys(["mse", "bias", "mae", "p", "c", "crps", "var", "fo", "ff", "oo"], 0.0)
    bounds = np.sin(np.deg2rad([-90, -75, -45, -15, 15, 45, 75, 90]))
    for j, i in itertools.product(range(7), range(12)):
        if GRID.latitude[j] < 20:
            continue
        w = (bounds[j + 1] - bounds[j]) / 12 / (bounds[7] - bounds[4])
        members = [float(v) for v in x[:, j, i]]
        mean = sum(members) / 4
        truth_here = float(y[j, i])
        sums["mse"] += w * (mean - truth_here) ** 2
        sums["bias"] += w * (mean - truth_here)
        sums["mae"] += w * abs(mean - truth_here)
        sums["p"] += w * (p[j, i] - truth_here) ** 2
        sums["c"] += w * (c[j, i] - truth_here) ** 2
        pairs = sum(abs(a - b) for a in members for b in members) / (4 * 3)
        sums["crps"] += w * (sum(abs(a - truth_here) for a in members) / 4 - pairs / 2)
        sums["var"] += w * sum((a - mean) ** 2 for a in members) / 3
        sums["fo"] += w * (mean - c[j, i]) * (truth_here - c[j, i])
        sums["ff"] += w * (mean - c[j, i]) ** 2
        sums["oo"] += w * (truth_here - c[j, i]) ** 2
    here = result.sel(field="temperature 850", region="northern-extratropics").isel(lead_time=1)
    expected = {
        "rmse": sums["mse"] ** 0.5,
        "bias": sums["bias"],
        "mae": sums["mae"],
        "persistence_rmse": sums["p"] ** 0.5,
        "climatology_rmse": sums["c"] ** 0.5,
        "crps": sums["crps"],
        "spread": (sums["var"] * 5 / 4) ** 0.5,
        "spread_skill_ratio": (sums["var"] * 5 / 4 / sums["mse"]) ** 0.5,
        "acc": sums["fo"] / (sums["ff"] * sums["oo"]) ** 0.5,
    }
    for name, value in expected.items():
        assert float(here[name]) == pytest.approx(value, rel=1e-6), name


def test_crps_and_rank_histogram_agree_with_the_scores_package() -> None:
    probability = pytest.importorskip("scores.probability")
    forecast, truth, *_ = case(3)
    result = scores(ensemble_statistics(forecast, truth, grid=GRID))
    weights = xr.DataArray(GRID.area_weights(), dims="latitude", coords={"latitude": GRID.latitude})
    for lead in range(2):
        reference = (
            probability.crps_for_ensemble(
                forecast["2m_temperature"].isel(lead_time=lead),
                truth["2m_temperature"].isel(lead_time=lead),
                "member",
                method="fair",
                preserve_dims=["latitude", "longitude"],
            )
            .weighted(weights)
            .mean()
        )
        got = result["crps"].sel(field="2m_temperature", region="global").isel(lead_time=lead)
        assert float(got) == pytest.approx(float(reference), rel=1e-6)


def test_truth_nan_does_not_count_and_forecast_nan_shows() -> None:
    forecast, truth, *_ = case()
    land = np.zeros(GRID.shape, dtype=bool)
    land[2:4] = True
    masked = ensemble_statistics(forecast.where(~land), truth.where(~land), grid=GRID)
    assert np.isfinite(scores(masked)["rmse"].sel(region="global")).all()
    weight = float(masked["weight"].sel(region="global").isel(field=0, lead_time=0))
    assert weight == pytest.approx(1 - GRID.area_weights()[2:4].sum(), abs=1e-12)
    broken = ensemble_statistics(forecast.where(~land), truth, grid=GRID)
    assert np.isnan(scores(broken)["rmse"].sel(region="global")).all()


def test_addition_is_a_monoid_and_equals_pooled_cycles() -> None:
    a, b, c = (statistics(seed) for seed in range(3))
    xr.testing.assert_allclose(add(add(a, b), c), add(a, add(b, c)), rtol=1e-13)
    xr.testing.assert_identical(add(a, b), add(b, a))
    xr.testing.assert_identical(add(a, xr.zeros_like(a)), a)
    pooled = scores(total([a, b, c]))
    mean_square = sum(scores(s)["rmse"] ** 2 for s in (a, b, c)) / 3
    xr.testing.assert_allclose(pooled["rmse"], np.sqrt(mean_square), rtol=1e-12)


def test_addition_keeps_lead_times_only_one_cycle_has() -> None:
    a, b = statistics(0), statistics(1)
    longer = add(a.isel(lead_time=[0]), b)
    assert longer["field"].values.tolist() == a["field"].values.tolist()
    xr.testing.assert_allclose(longer["weight"].isel(lead_time=1), b["weight"].isel(lead_time=1))
    xr.testing.assert_allclose(longer["weight"].isel(lead_time=0), (a + b)["weight"].isel(lead_time=0))


def test_ensembles_of_different_size_add_up() -> None:
    """A season keeps its scores though a cycle lacked a member or a climatology; only ranks need one size."""
    forecast, truth, climatology, initial = case(seed=2, members=3)
    parts = [
        statistics(0),
        statistics(1, members=3),
        ensemble_statistics(forecast, truth, grid=GRID, persistence=initial),
        ensemble_statistics(forecast.isel(member=0, drop=True), truth, grid=GRID, climatology=climatology),
    ]
    each = [scores(part) for part in parts]
    pooled = scores(total(parts))
    for name, having in {"rmse": 4, "spread": 3, "persistence_rmse": 3}.items():
        expected = sum(one[name] ** 2 for one in each if name in one) / having
        np.testing.assert_allclose(pooled[name].values, np.sqrt(expected.values), rtol=1e-12)
    expected = sum(one["crps"] for one in each[:3]) / 3
    np.testing.assert_allclose(pooled["crps"].values, expected.values, rtol=1e-12)
    assert np.isfinite(pooled["acc"]).all()
    assert "rank_histogram" not in pooled
    xr.testing.assert_allclose(total(parts), add(parts[3], add(parts[2], add(parts[1], parts[0]))))


def test_a_reference_that_lacks_a_variable_has_no_scores_and_spoils_none() -> None:
    forecast, truth, _, initial = case(5)
    without = ensemble_statistics(forecast, truth, grid=GRID, persistence=initial[["temperature"]])
    assert np.isnan(scores(without)["persistence_rmse"].sel(field="2m_temperature")).all()
    whole = ensemble_statistics(*case(6)[:2], grid=GRID, persistence=case(6)[3])
    np.testing.assert_allclose(
        scores(add(without, whole))["persistence_rmse"].sel(field="2m_temperature").values,
        scores(whole)["persistence_rmse"].sel(field="2m_temperature").values,
    )


def test_sets_that_do_not_match_are_refused() -> None:
    with pytest.raises(InvalidFieldError, match="got none"):
        total([])
    forecast, truth, *_ = case()
    with pytest.raises(InvalidFieldError, match="lead times"):
        ensemble_statistics(forecast, truth.isel(lead_time=[0]), grid=GRID)
    with pytest.raises(InvalidFieldError, match="truth: '2m_temperature' is missing"):
        ensemble_statistics(forecast, truth[["temperature"]], grid=GRID)
    with pytest.raises(InvalidFieldError, match="descending"):
        ensemble_statistics(forecast.isel(latitude=slice(None, None, -1)), truth, grid=GRID)
    with pytest.raises(ValueError, match="south < north"):
        Region(name="upside-down", south=10, north=-10)


def test_a_single_forecast_has_no_ensemble_scores() -> None:
    forecast, truth, *_ = case()
    single = scores(ensemble_statistics(forecast.isel(member=0, drop=True), truth, grid=GRID))
    assert "crps" not in single
    assert "rank_histogram" not in single


def test_exchangeable_ensemble_has_ratio_one_and_flat_ranks() -> None:
    """Truth drawn like the members: expectation of the ratio is 1 and of each rank 1/(M+1)."""
    grid = Grid(resolution=3.0)
    rng = np.random.default_rng(5)
    draws = rng.normal(size=(5, 8, *grid.shape))
    leads = np.arange(8).astype("timedelta64[h]").astype("timedelta64[ns]")
    array = xr.DataArray(
        draws,
        dims=("member", "lead_time", "latitude", "longitude"),
        coords={"lead_time": leads, "latitude": grid.latitude, "longitude": grid.longitude},
    )
    result = scores(
        ensemble_statistics(
            array.isel(member=slice(4)).to_dataset(name="2m_temperature"),
            array.isel(member=4).to_dataset(name="2m_temperature"),
            grid=grid,
        )
    ).sel(region="global")
    assert float(result["spread_skill_ratio"].mean()) == pytest.approx(1.0, abs=0.01)
    np.testing.assert_allclose(result["rank_histogram"].mean("lead_time").values.ravel(), 0.2, atol=0.01)


def test_a_truth_tied_with_members_shares_its_ranks() -> None:
    members = np.array([[[0.0]], [[0.0]], [[1.0]]])
    np.testing.assert_allclose(rank_counts(members, np.array([[0.0]])), [[1 / 3, 1 / 3, 1 / 3, 0]])
    np.testing.assert_allclose(rank_counts(members, np.array([[0.5]])), [[0, 0, 1, 0]])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=9))
def test_pair_differences_by_sorting(values: list[float]) -> None:
    direct = np.mean([abs(a - b) for a, b in itertools.permutations(values, 2)])
    got = mean_member_difference(np.array(values)[:, np.newaxis])[0]
    assert got == pytest.approx(direct, rel=1e-9, abs=1e-9)


def test_regions_cover_the_sphere() -> None:
    assert [region.name for region in REGIONS] == [
        "global", "tropics", "northern-extratropics", "southern-extratropics",
    ]  # fmt: skip
