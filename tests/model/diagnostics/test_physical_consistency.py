"""Relations between fields: hand-made balanced fields, then real ones."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from model.diagnostics.physical_consistency import (
    EARTH_RADIUS,
    EARTH_ROTATION,
    area_mean,
    cell_weights,
    correlation,
    diurnal_phase_error,
    elevation_correlation,
    geostrophic_wind,
    landmark_agreement,
    layer_error,
    meridian_seam,
    zonal_mean_strength,
)
from model.grid import Grid
from tests.model.diagnostics.atmospheres import gfs_state

GRID = Grid(resolution=5.0)
LATITUDE, LONGITUDE = GRID.latitude.astype(float), GRID.longitude.astype(float)
WEIGHTS = cell_weights(LATITUDE)
SINE = np.sin(np.deg2rad(LATITUDE))[:, None] * np.ones(LONGITUDE.size)


def test_weights_are_those_of_the_grid_in_either_order() -> None:
    np.testing.assert_allclose(WEIGHTS, GRID.area_weights(), rtol=1e-12)
    np.testing.assert_allclose(cell_weights(LATITUDE[::-1]), WEIGHTS[::-1], rtol=1e-12)


def test_area_mean_of_squared_sine_of_latitude_is_a_third() -> None:
    assert area_mean(SINE**2, WEIGHTS) == pytest.approx(1 / 3, abs=2e-3)
    holed = np.where(LONGITUDE[None, :] < 180, np.nan, SINE**2)
    assert area_mean(holed, WEIGHTS) == pytest.approx(1 / 3, abs=2e-3)
    assert np.isnan(area_mean(np.full_like(SINE, np.nan), WEIGHTS))


def test_correlation_of_a_field_with_itself_and_its_opposite() -> None:
    wave = np.cos(np.deg2rad(LONGITUDE))[None, :] * SINE
    assert correlation(wave, wave, WEIGHTS) == pytest.approx(1.0)
    assert correlation(wave, 3 - 2 * wave, WEIGHTS) == pytest.approx(-1.0)
    assert np.isnan(correlation(wave, np.ones_like(wave), WEIGHTS))


def test_thickness_of_an_isothermal_layer_implies_its_temperature() -> None:
    # ΔΦ = R_d T ln 2 = 287.0597 · 250 · 0.693147 = 49743.6 m² s⁻² between 1000 and 500 hPa.
    heights = np.stack([np.full_like(SINE, 49_743.6), np.zeros_like(SINE)])
    temperature = np.full((2, *SINE.shape), 250.0)
    error = layer_error(heights, temperature, None, (500.0, 1000.0), WEIGHTS)
    assert error.bias == pytest.approx(0.0, abs=1e-3)
    assert error.deviation == pytest.approx(0.0, abs=1e-6)
    assert error.logarithmic_depth == pytest.approx(0.693147, abs=1e-6)


def test_thickness_sees_moisture_as_virtual_temperature() -> None:
    heights = np.stack([np.full_like(SINE, 49_743.6), np.zeros_like(SINE)])
    temperature = np.full((2, *SINE.shape), 250.0)
    error = layer_error(heights, temperature, np.full_like(temperature, 0.01), (500.0, 1000.0), WEIGHTS)
    assert error.bias == pytest.approx(-250 * 0.00609133, abs=1e-3)


def test_solid_body_rotation_is_its_own_geostrophic_wind() -> None:
    # Φ = −Ω a U sin²φ gives u = −(1/2Ω sin φ) (1/a) ∂Φ/∂φ = U cos φ.
    u, v = geostrophic_wind(-EARTH_ROTATION * EARTH_RADIUS * 10.0 * SINE**2, LATITUDE, LONGITUDE)
    inside = np.isfinite(u)
    expected = 10.0 * np.cos(np.deg2rad(LATITUDE))[:, None] * np.ones_like(SINE)
    # Centred differences of sin²φ over 2h = 10° are exact up to the factor sin(2h) / 2h.
    expected *= np.sin(np.deg2rad(10.0)) / np.deg2rad(10.0)
    np.testing.assert_allclose(u[inside], expected[inside], rtol=1e-6)
    np.testing.assert_allclose(v[inside], 0.0, atol=1e-9)
    assert not inside[np.abs(LATITUDE) < 20].any()


def test_zonal_mean_strength_of_a_uniform_wind_and_of_a_wave() -> None:
    assert zonal_mean_strength(np.full_like(SINE, -7.0), WEIGHTS) == pytest.approx(7.0)
    wave = 7.0 * np.cos(np.deg2rad(3 * LONGITUDE))[None, :] * np.ones_like(SINE)
    assert zonal_mean_strength(wave, WEIGHTS) == pytest.approx(0.0, abs=1e-12)


def test_a_seam_is_found_where_halves_are_wrongly_joined() -> None:
    wave = np.cos(np.deg2rad(LONGITUDE))[None, :] * np.cos(np.deg2rad(LATITUDE))[:, None]
    broken = np.concatenate([wave[:, :36], -wave[:, 36:]], axis=1)
    assert meridian_seam(wave) < 2
    assert meridian_seam(broken) > 6
    assert np.isnan(meridian_seam(np.full_like(wave, np.nan)))


@pytest.mark.parametrize("hour", [0, 6, 12, 18])
@pytest.mark.parametrize("step", [6, 12])
@pytest.mark.parametrize("late", [0, 6, -5])
def test_the_hour_of_the_days_warming_is_told_from_the_change_over_a_step(
    hour: int, step: int, late: int
) -> None:
    solar = hour - late + LONGITUDE / 15

    def temperature(hours: np.ndarray) -> np.ndarray:
        return 280 + 6 * np.cos(2 * np.pi * (hours - 15) / 24)[None, :] * np.ones_like(SINE)

    change = temperature(solar) - temperature(solar - step)
    time = datetime(2026, 3, 1, hour, tzinfo=UTC)
    error = diurnal_phase_error(change, np.ones_like(SINE), LATITUDE, LONGITUDE, time, step)
    assert error == pytest.approx(late, abs=1e-6)


def test_no_daily_cycle_no_verdict() -> None:
    time = datetime(2026, 3, 1, tzinfo=UTC)
    still = diurnal_phase_error(np.zeros_like(SINE), np.ones_like(SINE), LATITUDE, LONGITUDE, time, 6)
    ocean = diurnal_phase_error(np.ones_like(SINE), np.zeros_like(SINE), LATITUDE, LONGITUDE, time, 6)
    assert np.isnan(still)
    assert np.isnan(ocean)


@pytest.fixture(scope="module")
def gfs(shared_data: Path) -> dict[str, np.ndarray]:
    state, *_ = gfs_state(shared_data)
    frame = state.isel(time=1)
    return {n: frame[n].values for n in frame.data_vars} | {n: frame[n].values for n in frame.coords}


def test_mountains_are_colder_unless_the_field_is_shifted(gfs: dict[str, np.ndarray]) -> None:
    weights = cell_weights(gfs["latitude"])
    temperature, surface = gfs["2m_temperature"], gfs["geopotential_at_surface"]
    assert elevation_correlation(temperature, surface, weights) < -0.4
    for shift in (12, 36, 72, 108):
        assert elevation_correlation(np.roll(temperature, shift, 1), surface, weights) > -0.15
    assert elevation_correlation(temperature[::-1], surface, weights) > -0.15


def test_landmarks_lie_where_they_should_unless_shifted(gfs: dict[str, np.ndarray]) -> None:
    land = gfs["land_sea_mask"]
    coordinates = (gfs["latitude"], gfs["longitude"])
    assert landmark_agreement(land, *coordinates) == 1.0
    assert landmark_agreement(np.roll(land, 72, 1), *coordinates) < 0.8
    assert landmark_agreement(np.roll(land, 12, 1), *coordinates) < 0.8
    assert landmark_agreement(land[::-1], *coordinates) < 0.8


@pytest.mark.parametrize("level", [3, 7, 10])
def test_wind_is_geostrophic_unless_swapped_or_flipped(gfs: dict[str, np.ndarray], level: int) -> None:
    latitude, longitude = gfs["latitude"].astype(float), gfs["longitude"].astype(float)
    weights = cell_weights(latitude)
    u, v = gfs["u_component_of_wind"][level], gfs["v_component_of_wind"][level]
    balanced_u, balanced_v = geostrophic_wind(gfs["geopotential"][level], latitude, longitude)
    assert correlation(u, balanced_u, weights) > 0.85
    assert correlation(v, balanced_v, weights) > 0.85
    assert abs(correlation(v, balanced_u, weights)) < 0.2
    assert abs(correlation(u, balanced_v, weights)) < 0.2
    _, flipped_v = geostrophic_wind(gfs["geopotential"][level][::-1], latitude, longitude)
    assert correlation(v[::-1], flipped_v, weights) < -0.8
