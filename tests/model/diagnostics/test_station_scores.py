"""Forecasts at stations against plain loops over stations and members."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.diagnostics.scores import add, scores
from model.diagnostics.station_scores import (
    bilinear,
    height_correction,
    station_statistics,
)
from model.errors import InvalidFieldError
from model.grid import Grid
from model.stations import Stations

GRID = Grid(resolution=30.0)
LEAD = np.timedelta64(12 * 3600 * 10**9, "ns")


def stations(*places: tuple[float, float, float]) -> Stations:
    latitude, longitude, height = (np.array(column, dtype=float) for column in zip(*places, strict=True))
    names = tuple(f"S{number}" for number in range(len(places)))
    return Stations(names=names, latitude=latitude, longitude=longitude, height=height)


def test_interpolation_by_hand() -> None:
    """Between four points; across the meridian where longitudes wrap; on a point; at the poles."""
    field = np.zeros(GRID.shape)
    field[3, 0], field[3, 1], field[4, 0], field[4, 1] = 1.0, 2.0, 3.0, 5.0  # latitudes 0 and 30
    field[3, 11] = 7.0  # longitude 330
    field[6] = 9.0
    places = stations((15, 15, 0), (0, 0, 0), (0, -15, 0), (0, 345, 0), (7.5, 22.5, 0), (90, 123, 0))
    expected = [(1 + 2 + 3 + 5) / 4, 1.0, 4.0, 4.0, 0.75 * (0.25 + 1.5) + 0.25 * (0.75 + 3.75), 9.0]
    np.testing.assert_allclose(bilinear(field, GRID, places), expected, rtol=1e-14)


@settings(max_examples=30, deadline=None)
@given(st.floats(-90, 90), st.floats(-360, 720))
def test_a_field_linear_in_latitude_comes_back(latitude: float, longitude: float) -> None:
    field = np.repeat(GRID.latitude.astype(float)[:, np.newaxis], GRID.shape[1], axis=1)
    members = np.stack([field, 2 * field])
    got = bilinear(members, GRID, stations((latitude, longitude, 0)))
    np.testing.assert_allclose(got[:, 0], [latitude, 2 * latitude], atol=1e-9)


def test_missing_neighbours_count_only_where_they_have_weight() -> None:
    field = np.ones(GRID.shape)
    field[4, 1] = np.nan
    got = bilinear(field, GRID, stations((0, 15, 0), (10, 15, 0), (30, 0, 0)))
    assert np.isnan(got).tolist() == [False, True, False]


def test_height_correction_has_the_sign_of_the_lapse_rate() -> None:
    """A station 1000 m above the model's surface is 6.5 K colder than the model's 2 m temperature."""
    got = height_correction(
        stations((0, 0, 1500), (0, 0, 0), (0, 0, math.nan)), np.full(3, 500.0), lapse_rate=0.0065
    )
    np.testing.assert_allclose(got, [-6.5, 3.25, 0.0])


def test_scores_against_plain_loops() -> None:
    rng = np.random.default_rng(1)
    places = stations(*((lat, 10.0 * n, 0) for n, lat in enumerate((-60, -10, 0, 20, 45, 70))))
    members = rng.normal(280, 3, (4, 6))
    reports = rng.normal(280, 3, 6)
    reports[1] = np.nan
    reports[4] = 400.0  # a gross error
    start, usual = rng.normal(280, 3, 6), rng.normal(280, 3, 6)
    got = station_statistics(
        {"2m_temperature": (members, reports)},
        places,
        lead_time=LEAD,
        persistence={"2m_temperature": start},
        climatology={"2m_temperature": usual},
        gross_limits={"2m_temperature": 50.0},
    )
    result = scores(got).isel(field=0, lead_time=0)
    bands = {"global": (-90, 90), "tropics": (-20, 20), "northern-extratropics": (20, 90)}
    for region, (south, north) in bands.items():
        chosen = [
            n
            for n in range(6)
            if south <= places.latitude[n] <= north and n != 4 and not math.isnan(reports[n])
        ]
        count = len(chosen)
        square = bias = persistence = crps = variance = fo = ff = oo = 0.0
        for n in chosen:
            x, y = [float(v) for v in members[:, n]], float(reports[n])
            mean = sum(x) / 4
            square += (mean - y) ** 2
            bias += mean - y
            persistence += (start[n] - y) ** 2
            crps += sum(abs(v - y) for v in x) / 4 - sum(abs(a - b) for a in x for b in x) / (2 * 4 * 3)
            variance += sum((v - mean) ** 2 for v in x) / 3 * 5 / 4
            fo += (mean - usual[n]) * (y - usual[n])
            ff += (mean - usual[n]) ** 2
            oo += (y - usual[n]) ** 2
        here = result.sel(region=region)
        expected = {
            "rmse": math.sqrt(square / count),
            "bias": bias / count,
            "persistence_rmse": math.sqrt(persistence / count),
            "crps": crps / count,
            "spread": math.sqrt(variance / count),
            "acc": fo / math.sqrt(ff * oo),
        }
        for name, value in expected.items():
            assert float(here[name]) == pytest.approx(value, rel=1e-9), (region, name)
        assert float(got["weight"].sel(region=region).squeeze()) == count
    assert got["rejected"].sel(region="global").item() == 1
    assert got["rejected"].sel(region="northern-extratropics").item() == 1
    assert got["rejected"].sel(region="tropics").item() == 0


def test_a_season_weighs_every_report_once() -> None:
    """Three reports off by 1 and one off by 3 make a mean square error of (3·1 + 9)/4, whatever their cycles."""

    def of(errors: list[float]) -> object:
        places = stations(*((40.0, 10.0 * n, 0) for n in range(len(errors))))
        fields = {"2m_temperature": (np.full((1, len(errors)), 280.0), 280.0 - np.array(errors))}
        return station_statistics(fields, places, lead_time=LEAD)

    pooled = scores(add(of([1, 1, 1]), of([3])))
    assert pooled["rmse"].sel(region="global").item() == pytest.approx(math.sqrt(12 / 4))


def test_places_that_are_none_are_refused() -> None:
    with pytest.raises(InvalidFieldError, match="within −90…90"):
        stations((91, 0, 0))
    with pytest.raises(InvalidFieldError, match="distinct names"):
        Stations(names=("A", "A"), latitude=np.zeros(2), longitude=np.zeros(2), height=np.zeros(2))
    with pytest.raises(InvalidFieldError, match="one size"):
        station_statistics({}, stations((0, 0, 0)), lead_time=LEAD)
