"""From model output to analyses, on an atmosphere whose analyses are known."""

from __future__ import annotations

import numpy as np
import pytest

from infra.nature_run.analysis import FREEZING_POINT_OF_SEA_WATER, Boundary, ModelOutput, to_analyses
from infra.nature_run.pressure_levels import GAS_CONSTANT_DRY_AIR

SIGMA = np.array([0.1, 0.3, 0.6, 0.95])
LATITUDE = np.array([55.0, -55.0])
LONGITUDE = np.arange(4) * 90.0
TEMPERATURE = 250.0


def boundary() -> Boundary:
    sst = np.full((365, 2, 4), 280.0) + np.arange(365)[:, None, None]
    sst[:, 0, 3] = 240.0  # as the boundary data have it under sea ice
    return Boundary(
        latitude=LATITUDE,
        longitude=LONGITUDE,
        sigma=SIGMA,
        geopotential_at_surface=np.zeros((2, 4)),
        land_sea_mask=np.array([[1.0, 0.6, 0.4, 0.0], [0.0, 0.0, 0.0, 0.0]]),
        sea_surface_temperature=sst,
    )


def output(times: list[str]) -> ModelOutput:
    """Isothermal and dry, 1000 hPa at the ground."""
    surface = (len(times), 2, 4)
    layers = (len(times), SIGMA.size, 2, 4)
    full = np.broadcast_to(SIGMA[:, None, None], layers)
    return ModelOutput(
        time=np.array(times, dtype="datetime64[ns]"),
        surface_pressure=np.full(surface, 1.0e5),
        temperature=np.full(layers, TEMPERATURE),
        geopotential=-GAS_CONSTANT_DRY_AIR * TEMPERATURE * np.log(full),
        specific_humidity=np.full(layers, -1e-6),
        u_component_of_wind=np.full(layers, 5.0),
        v_component_of_wind=np.zeros(layers),
        precipitation=np.full(surface, 1e-4),
        near_surface_temperature=np.full(surface, 251.0),
        near_surface_u=np.full(surface, 3.0),
        near_surface_v=np.full(surface, -2.0),
    )


def test_fields_of_an_isothermal_atmosphere() -> None:
    analyses = to_analyses(output(["2001-01-01T06", "2001-01-01T12"]), boundary(), levels=(300, 500, 700))
    assert dict(analyses.sizes) == {"time": 2, "level": 3, "latitude": 2, "longitude": 4}
    assert all(field.dtype == np.float32 for field in analyses.data_vars.values())
    exact = GAS_CONSTANT_DRY_AIR * TEMPERATURE * np.log(1000.0 / np.array([300, 500, 700]))
    np.testing.assert_allclose(analyses.geopotential[1, :, 0, 0], exact, rtol=1e-6)
    np.testing.assert_allclose(analyses.mean_sea_level_pressure, 1.0e5)
    # 1e-4 kg m⁻² s⁻¹ for 21,600 s is 2.16 kg m⁻²: 2.16 mm of water.
    np.testing.assert_allclose(analyses.total_precipitation_6hr, 2.16e-3, rtol=1e-6)
    np.testing.assert_array_equal(analyses.specific_humidity, 0.0)  # slightly negative in the model
    np.testing.assert_array_equal(analyses["2m_temperature"], 251.0)
    np.testing.assert_array_equal(analyses["10m_v_component_of_wind"], -2.0)


def test_sea_surface_temperature_is_that_of_the_day_over_water() -> None:
    # 1 March is the 60th day, also in a leap year, in which 29 February takes 28 February's record.
    times = ["2001-03-01T00", "2004-02-28T00", "2004-02-29T00", "2004-03-01T00", "2004-12-31T18"]
    sst = to_analyses(output(times), boundary(), levels=(500,)).sea_surface_temperature.values
    np.testing.assert_array_equal(np.isnan(sst[0]), [[True, True, False, False], [False] * 4])
    np.testing.assert_array_equal(sst[:, 1, 0] - 280.0, [59, 58, 58, 59, 364])
    np.testing.assert_allclose(sst[:, 0, 3], FREEZING_POINT_OF_SEA_WATER, rtol=1e-6)


def test_a_boundary_from_south_to_north_is_refused() -> None:
    with pytest.raises(ValueError, match="north first"):
        Boundary(**{**boundary().__dict__, "latitude": LATITUDE[::-1]})
    with pytest.raises(ValueError, match="sea_surface_temperature: expected shape"):
        Boundary(**{**boundary().__dict__, "sea_surface_temperature": np.zeros((12, 2, 4))})
