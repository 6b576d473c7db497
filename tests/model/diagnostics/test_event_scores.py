"""Brier score and reliability against the ``scores`` package and hand-worked cases."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from model.diagnostics.ensemble_products import Event
from model.diagnostics.event_scores import event_scores, event_statistics, total_events
from model.errors import InvalidFieldError
from model.grid import Grid

GRID = Grid(resolution=30.0)
WARM = Event(quantity="2m_temperature", threshold=0.3)
COLD = Event(quantity="2m_temperature", threshold=-1.0, below=True)
LEAD = np.timedelta64(6 * 3600 * 10**9, "ns")


def case(seed: int, members: int = 5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    signal = rng.normal(size=GRID.shape)
    return signal + rng.normal(size=(members, *GRID.shape)), signal + rng.normal(size=GRID.shape)


def statistics(seed: int, members: int = 5) -> xr.Dataset:
    fields = case(seed, members)
    return event_statistics({WARM: fields, COLD: fields}, grid=GRID, lead_time=LEAD)


def test_brier_score_of_many_cycles_is_the_scores_packages() -> None:
    probability = pytest.importorskip("scores.probability")
    summed = event_scores(total_events(statistics(seed) for seed in range(4)))
    coords = {"latitude": GRID.latitude, "longitude": GRID.longitude}
    weights = xr.DataArray(GRID.area_weights(), dims="latitude", coords={"latitude": GRID.latitude})
    values = []
    for seed in range(4):
        members, truth = case(seed)
        share = xr.DataArray((members > 0.3).mean(axis=0), dims=("latitude", "longitude"), coords=coords)
        happened = xr.DataArray((truth > 0.3).astype(float), dims=("latitude", "longitude"), coords=coords)
        score = probability.brier_score(share, happened, preserve_dims="all")
        values.append(float(score.weighted(weights).mean()))
    got = summed["brier"].sel(event=WARM.name, region="global").item()
    assert got == pytest.approx(np.mean(values), rel=1e-9)


def test_the_parts_make_the_whole() -> None:
    scores = event_scores(total_events(statistics(seed) for seed in range(3)))
    parts = scores["reliability"] - scores["resolution"] + scores["uncertainty"]
    np.testing.assert_allclose(parts.values, scores["brier"].values, rtol=1e-9)
    np.testing.assert_allclose(scores["forecast_share"].sum("probability").values, 1.0)
    assert (scores["brier_skill"].sel(region="global") > 0).all()


def test_a_certain_and_right_forecast_is_perfect() -> None:
    truth = case(0)[1]
    perfect = event_scores(
        event_statistics({WARM: (np.stack([truth] * 3), truth)}, grid=GRID, lead_time=LEAD)
    ).sel(region="global")
    assert perfect["brier"].item() == 0
    assert perfect["brier_skill"].item() == 1
    assert perfect["observed_frequency"].squeeze().values[[0, 3]].tolist() == [0, 1]
    assert np.isnan(perfect["observed_frequency"].squeeze().values[[1, 2]]).all()


def test_unknown_cells_do_not_count() -> None:
    members, truth = case(1)
    truth[3] = np.nan
    sums = event_statistics({WARM: (members, truth)}, grid=GRID, lead_time=LEAD).sel(region="global")
    assert sums["forecast_weight"].sum().item() == pytest.approx(1 - GRID.area_weights()[3])


def test_sets_that_do_not_match_are_refused() -> None:
    with pytest.raises(InvalidFieldError, match="got none"):
        total_events([])
    with pytest.raises(InvalidFieldError, match="one size"):
        event_statistics({}, grid=GRID, lead_time=LEAD)


def test_ensembles_of_different_size_add_up() -> None:
    """The Brier score of the pool is the mean of those of its parts, and its parts still make the whole."""
    parts = [statistics(0), statistics(1, members=4), statistics(2, members=10)]
    pooled = event_scores(total_events(parts))
    assert (
        pooled.sizes["probability"] == 13
    )  # fifths and tenths are eleven, of the quarters one half is among them
    mean = sum(event_scores(part)["brier"] for part in parts) / 3
    np.testing.assert_allclose(pooled["brier"].values, mean.values, rtol=1e-12)
    whole = pooled["reliability"] - pooled["resolution"] + pooled["uncertainty"]
    np.testing.assert_allclose(whole.values, pooled["brier"].values, rtol=1e-9)


def test_lead_times_are_kept_apart() -> None:
    members, truth = case(2)
    later = event_statistics({WARM: (members, truth)}, grid=GRID, lead_time=2 * LEAD)
    both = total_events([statistics(0), later])
    assert both.sizes["lead_time"] == 2
    xr.testing.assert_allclose(
        both["forecast_weight"].sel(event=WARM.name).isel(lead_time=1),
        later["forecast_weight"][0, 0],
        check_dim_order=False,
    )
