from datetime import UTC, datetime

import numpy as np
import pytest

from model.grid import Grid
from model.solar_radiation import incident_solar_radiation, total_solar_irradiance

GRID = Grid(resolution=10.0)


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        # A year's value stands at its middle (2 July noon of a common year), lowered by 0.35 %.
        (datetime(1951, 7, 2, 12, tzinfo=UTC), 0.9965 * 1365.7765),
        (datetime(1995, 7, 2, 12, tzinfo=UTC), 0.9965 * 1365.6996),
        # 2009 begins a repetition of the cycle of 1996.
        (datetime(2009, 7, 2, 12, tzinfo=UTC), 0.9965 * 1365.6121),
        (datetime(2022, 7, 2, 12, tzinfo=UTC), 0.9965 * 1365.6121),
        # The turn of the year lies half way between two values.
        (datetime(2023, 1, 1, tzinfo=UTC), 0.9965 * (1365.6121 + 1365.7399) / 2),
        # Beyond either end the nearest value holds.
        (datetime(2060, 1, 1, tzinfo=UTC), 0.9965 * 1365.6918),
        (datetime(1940, 1, 1, tzinfo=UTC), 0.9965 * 1365.7765),
    ],
)
def test_irradiance_of_years(time: datetime, expected: float) -> None:
    assert total_solar_irradiance(time) == pytest.approx(expected, abs=2e-3)


def test_globe_receives_a_quarter_of_the_irradiance() -> None:
    # Geometry: the disc of the Earth is a quarter of its surface; in early April the sun is 1 au away.
    time = datetime(2020, 4, 4, 0, tzinfo=UTC)
    field = incident_solar_radiation(time, GRID.latitude, GRID.longitude)
    mean = (field.mean(axis=1) * GRID.area_weights()).sum()
    assert mean == pytest.approx(total_solar_irradiance(time) / 4 * 3600, rel=5e-3)


def test_sun_stands_over_its_longitude_and_declination() -> None:
    # At 12 UTC the hour before noon at Greenwich is centred on 11:30, the sun over 7.5°E but for the equation of
    # time; on 21 June over 23.44°N.
    field = incident_solar_radiation(datetime(2021, 6, 21, 12, tzinfo=UTC), GRID.latitude, GRID.longitude)
    row, column = np.unravel_index(field.argmax(), field.shape)
    assert GRID.latitude[row] == 20
    assert GRID.longitude[column] == 10
    assert (field[GRID.latitude < -70] == 0).all(), "polar night"
    assert (field[GRID.latitude > 70] > 0).all(), "midnight sun"


def test_values_of_the_reference_implementation() -> None:
    # DeepMind's implementation v0.2 for 2022-06-30T18 at (0°, 240°E), (40°N, 270°E) and (80°N, 0°), J m⁻².
    field = incident_solar_radiation(datetime(2022, 6, 30, 18, tzinfo=UTC), GRID.latitude, GRID.longitude)
    got = [field[9, 24], field[13, 27], field[17, 0]]
    assert field.dtype == np.float32
    np.testing.assert_allclose(got, [3404860.5, 4489738.0, 1944188.875], rtol=3e-6)
