from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest

from model.times import aware_time, numpy_time


def test_a_time_of_another_zone_is_told_in_utc() -> None:
    time = datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=2)))
    assert numpy_time(time) == np.datetime64("2025-12-31T23:00:00")
    assert numpy_time(time).dtype == np.dtype("datetime64[ns]")


@pytest.mark.parametrize("unit", ["h", "s", "us", "ns"])
def test_every_unit_gives_the_same_time(unit: str) -> None:
    assert aware_time(np.datetime64("1959-01-01T06", unit)) == datetime(1959, 1, 1, 6, tzinfo=UTC)


def test_what_is_no_time_is_refused() -> None:
    with pytest.raises(ValueError, match="NaT"):
        aware_time(np.datetime64("NaT", "ns"))
    with pytest.raises(ValueError, match="time-zone aware"):
        numpy_time(datetime(2026, 1, 1))
