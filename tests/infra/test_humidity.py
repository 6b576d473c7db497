from __future__ import annotations

import numpy as np
import pytest

from infra.humidity import saturation_vapour_pressure, specific_humidity


@pytest.mark.parametrize(
    ("celsius", "pascal"),
    [
        # Guide to Instruments and Methods of Observation (WMO-No. 8), annex 4.B: over water at 20, 10 and
        # 30 °C, over ice at −40 and −60 °C; agreement within 0.5 % is what Tetens' formula gives.
        (20.0, 2339.0),
        (10.0, 1228.0),
        (30.0, 4247.0),
        (-40.0, 12.84),
        (-60.0, 1.080),
    ],
)
def test_saturation_pressure_agrees_with_published_tables(celsius: float, pascal: float) -> None:
    got = saturation_vapour_pressure(np.array(celsius + 273.15))
    assert got == pytest.approx(pascal, rel=6e-3)


def test_at_the_triple_point_water_and_ice_meet() -> None:
    assert saturation_vapour_pressure(np.array(273.16)) == pytest.approx(611.21)


def test_the_mixed_phase_lies_between_ice_and_water_and_differs_between_centres() -> None:
    temperature = np.array(260.0)
    ice = 611.21 * np.exp(22.587 * (260.0 - 273.16) / (260.0 + 0.7))
    water = 611.21 * np.exp(17.502 * (260.0 - 273.16) / (260.0 - 32.19))
    ecmwf, ncep = (saturation_vapour_pressure(temperature, centre=c) for c in ("ecmwf", "ncep"))
    assert ice < ecmwf < water
    assert ecmwf == pytest.approx(ice + ((260 - 250.16) / 23.0) ** 2 * (water - ice))
    assert ncep == pytest.approx(ice + (260 - 253.16) / 20.0 * (water - ice))


def test_specific_humidity_by_hand() -> None:
    # e = 0.5 × e_s(293.15 K); q = ε e / (p − (1 − ε) e) with ε = 0.621981
    vapour = 0.5 * 611.21 * np.exp(17.502 * 19.99 / (293.15 - 32.19))
    expected = 0.621981 * vapour / (100000.0 - 0.378019 * vapour)
    got = specific_humidity(np.array([50.0]), np.array([293.15]), 100000.0)
    assert got[0] == pytest.approx(expected, rel=1e-5)
    assert got.dtype == np.float32


def test_packing_errors_below_zero_count_as_dry_and_thin_air_stays_finite() -> None:
    got = specific_humidity(np.array([-1.0, 150.0]), np.array([300.0, 320.0]), 1000.0)
    assert got[0] == 0.0
    assert 0.0 < got[1] <= 1.0
