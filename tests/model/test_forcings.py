from datetime import UTC, datetime

import numpy as np
import pytest

from model.forcings import GivenForcings, day_progress, forcing_fields, year_progress
from model.grid import Grid

GRID = Grid(resolution=30.0)


def test_year_progress_counts_mean_tropical_years_from_1970() -> None:
    assert year_progress(datetime(1970, 1, 1, tzinfo=UTC)) == 0
    # 2000-01-01 is day 10957, 0.2657 days short of 30 years of 365.24219 days.
    assert year_progress(datetime(2000, 1, 1, tzinfo=UTC)) == pytest.approx(1 - 0.2657 / 365.24219, abs=1e-6)


def test_day_progress_is_local_solar_time() -> None:
    got = day_progress(datetime(2020, 5, 1, 6, tzinfo=UTC), np.array([0.0, 90.0, 270.0]))
    np.testing.assert_allclose(got, [0.25, 0.5, 0.0], atol=1e-6)


def test_fields_have_the_grids_shape_and_waves() -> None:
    fields = forcing_fields(
        ["day_progress_sin", "year_progress_cos"], datetime(1970, 1, 1, 6, tzinfo=UTC), GRID
    )
    np.testing.assert_allclose(fields["day_progress_sin"][:, 0], 1, atol=1e-6)
    np.testing.assert_allclose(fields["year_progress_cos"], np.cos(2 * np.pi * 0.25 / 365.24219), atol=1e-6)
    assert all(field.shape == GRID.shape and field.dtype == np.float32 for field in fields.values())


def test_given_solar_radiation_is_taken_at_its_word() -> None:
    time = datetime(2020, 1, 1, tzinfo=UTC)
    given = GivenForcings(solar_radiation={time: np.full(GRID.shape, 7.0, np.float32)})
    name = "toa_incident_solar_radiation"
    assert (forcing_fields([name], time, GRID, given=given)[name] == 7).all()
    assert forcing_fields([name], time, GRID)[name].max() > 1e6


def test_other_names_are_refused() -> None:
    with pytest.raises(ValueError, match="got 'temperature'"):
        forcing_fields(["temperature"], datetime(2020, 1, 1, tzinfo=UTC), GRID)
