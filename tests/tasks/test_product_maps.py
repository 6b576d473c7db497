"""Which lead times are drawn, and what the pictures are called."""

from __future__ import annotations

import pytest

from model.diagnostics.ensemble_products import Event
from tasks.product_maps import _event_title, mapped_leads


def test_whole_days_are_drawn_first_and_last_included() -> None:
    hours = list(range(12, 252, 12))
    drawn = [hours[index] for index in mapped_leads(hours)]
    assert drawn == [24, 72, 120, 144, 192, 240]
    assert mapped_leads([6, 12, 18]) == [0, 1, 2]
    assert mapped_leads([6, 12, 18, 24, 30]) == [3]
    assert mapped_leads(hours, most=1) == [1]


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
