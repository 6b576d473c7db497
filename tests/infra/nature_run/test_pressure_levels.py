"""Vertical interpolation against analytic atmospheres."""

from __future__ import annotations

import numpy as np
import pytest

from infra.nature_run.pressure_levels import (
    GAS_CONSTANT_DRY_AIR,
    LAPSE_RATE,
    SigmaFields,
    mean_sea_level_pressure,
    to_pressure_levels,
)
from model.variables import STANDARD_GRAVITY

SIGMA = np.array([0.025, 0.095, 0.2, 0.34, 0.51, 0.685, 0.835, 0.95])
LEVELS = (10, 50, 100, 200, 300, 500, 700, 850, 925, 1000)


def column(temperature_of_pressure, geopotential_of_pressure, surface_pressure, surface_geopotential=0.0):
    ps = np.asarray(surface_pressure, dtype=np.float64)
    p = SIGMA.reshape((-1,) + (1,) * ps.ndim) * ps
    return SigmaFields(
        sigma=SIGMA,
        surface_pressure=ps,
        surface_geopotential=np.broadcast_to(surface_geopotential, ps.shape),
        temperature=temperature_of_pressure(p),
        geopotential=geopotential_of_pressure(p),
        specific_humidity=np.zeros_like(p),
        u_component_of_wind=np.log(p),
        v_component_of_wind=0 * p + 3.0,
    )


def test_isothermal_atmosphere_is_exact_wherever_it_is_above_the_lowest_level() -> None:
    t0, surface = 260.0, np.array([1013.0e2, 700.0e2])
    fields = column(lambda p: 0 * p + t0, lambda p: GAS_CONSTANT_DRY_AIR * t0 * np.log(surface / p), surface)
    result = to_pressure_levels(fields, LEVELS)
    for index, level in enumerate(LEVELS):
        inside = 100.0 * level <= SIGMA[-1] * surface  # above the top level too: isothermal there by rule
        exact = GAS_CONSTANT_DRY_AIR * t0 * np.log(surface / (100.0 * level))
        got = result["geopotential"][index]
        np.testing.assert_allclose(got[inside], exact[inside], rtol=1e-12, atol=1e-6)
        np.testing.assert_allclose(result["temperature"][index][inside], t0, rtol=1e-12)


def test_temperature_linear_in_log_pressure_is_exact_inside() -> None:
    # T = a + b ln(p/p0) integrates to Φ = −R (a s + b s²/2) with s = ln(p/p0).
    p0, a, b = 1.0e5, 288.0, 25.0
    fields = column(
        lambda p: a + b * np.log(p / p0),
        lambda p: -GAS_CONSTANT_DRY_AIR * (a * np.log(p / p0) + b * np.log(p / p0) ** 2 / 2),
        np.array([1.0e5]),
    )
    levels = (50, 100, 200, 300, 500, 700, 850, 925)
    result = to_pressure_levels(fields, levels)
    s = np.log(np.array(levels) * 100.0 / p0)
    np.testing.assert_allclose(result["temperature"][:, 0], a + b * s, rtol=1e-12)
    exact = -GAS_CONSTANT_DRY_AIR * (a * s + b * s**2 / 2)
    np.testing.assert_allclose(result["geopotential"][:, 0], exact, rtol=1e-10)
    wind = result["u_component_of_wind"][:, 0]
    np.testing.assert_allclose(wind, np.log(np.array(levels) * 100.0), rtol=1e-12)
    np.testing.assert_allclose(result["v_component_of_wind"], 3.0)


def test_constant_lapse_rate_is_exact_below_ground_and_gives_the_sea_level_pressure() -> None:
    # The standard atmosphere's troposphere: T = T0 (p/p0)^(RΓ/g), gz = (g T0/Γ) (1 − (p/p0)^(RΓ/g)).
    t0, p0 = 288.15, 1013.25e2
    exponent = GAS_CONSTANT_DRY_AIR * LAPSE_RATE / STANDARD_GRAVITY

    def temperature(p):
        return t0 * (p / p0) ** exponent

    def geopotential(p):
        return STANDARD_GRAVITY * t0 / LAPSE_RATE * (1 - (p / p0) ** exponent)

    surface = np.array([1013.25e2, 600.0e2])
    fields = column(temperature, geopotential, surface, geopotential(surface))
    result = to_pressure_levels(fields, (700, 850, 1000))
    p = np.array([700e2, 850e2, 1000e2])
    np.testing.assert_allclose(result["geopotential"][:, 1], geopotential(p), rtol=1e-9, atol=1e-6)
    np.testing.assert_allclose(result["temperature"][:, 1], temperature(p), rtol=1e-12)
    np.testing.assert_allclose(result["u_component_of_wind"][:, 1], np.log(SIGMA[-1] * 600e2))
    np.testing.assert_allclose(mean_sea_level_pressure(fields), p0, rtol=1e-10)


def test_humidity_raises_the_thickness() -> None:
    dry = column(
        lambda p: 0 * p + 290.0, lambda p: -GAS_CONSTANT_DRY_AIR * 290.0 * np.log(p), np.array([7.0e4])
    )
    moist = SigmaFields(**{**dry.__dict__, "specific_humidity": np.full_like(dry.temperature, 0.01)})
    below = [to_pressure_levels(f, (850,))["geopotential"].item() for f in (dry, moist)]
    # Below the ground the column of virtual temperature T (1 + 0.608 q) is 0.608 % deeper.
    lowest = float(dry.geopotential[-1].item())
    assert (lowest - below[1]) / (lowest - below[0]) == pytest.approx(1.00608, rel=1e-9)


def test_shapes_are_checked() -> None:
    good = column(lambda p: 0 * p + 260.0, lambda p: 0 * p, np.array([1.0e5]))
    with pytest.raises(ValueError, match="temperature: expected shape"):
        SigmaFields(**{**good.__dict__, "temperature": np.zeros((3, 1))})
    with pytest.raises(ValueError, match="ascending"):
        SigmaFields(**{**good.__dict__, "sigma": SIGMA[::-1]})
