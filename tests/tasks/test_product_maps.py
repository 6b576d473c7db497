"""Which lead times are drawn, and what the pictures are called."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from model.diagnostics.ensemble_products import Event
from tasks.product_maps import _event_title, mapped_leads


@pytest.mark.parametrize(
    ("hours", "drawn"),
    [
        (range(12, 252, 12), [48, 96, 144, 192, 240]),
        (range(12, 372, 12), [72, 144, 216, 288, 360]),
        (range(6, 126, 6), [24, 48, 72, 96, 120]),
        ([6, 12, 18], [6, 12, 18]),
        ([6, 12, 18, 24, 30], [24]),
    ],
)
def test_whole_days_equally_far_apart_are_drawn_up_to_the_last(
    hours: Sequence[int], drawn: list[int]
) -> None:
    assert [hours[index] for index in mapped_leads(hours)] == drawn


def test_one_map_is_that_of_the_last_day() -> None:
    assert mapped_leads([12, 24, 36, 48, 60], most=1) == [3]


@pytest.mark.parametrize(
    ("event", "title"),
    [
        (Event(quantity="2m_temperature", threshold=273.15, below=True), "2 m temperature below 0 °C"),
        (Event(quantity="total_precipitation", threshold=0.01), "precipitation since start above 10 mm"),
        (Event(quantity="10m_wind_speed", threshold=15.0), "10 m wind speed above 15 m/s"),
        (Event(quantity="temperature_anomaly", threshold=2.0, level=850), "temperature anomaly at 850 hPa above 2 K"),
    ],
)  # fmt: skip
def test_events_are_named_in_the_units_people_use(event: Event, title: str) -> None:
    assert _event_title(event, "-") == f"Probability of {title}"
