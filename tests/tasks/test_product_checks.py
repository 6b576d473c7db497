"""The judgement of a cycle's products, over statistics as the aggregate makes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from infra.product_suites import product_table
from tasks.product_checks import judge_products, with_dry_air

LEVELS = (300, 500, 700, 850, 1000)
PRESSURE = 101_100.0


def statistics(
    dry_losses: list[float], vapour_losses: list[float], levels: tuple[int, ...] = LEVELS
) -> pd.DataFrame:
    """Global means at lead times a day apart: so much less dry air and vapour (Pa) than at first.

    Humidity is the same on all levels, so its weight is its share of the column, whatever the levels.
    """
    rows = []
    for number, (dry, wet) in enumerate(zip(dry_losses, vapour_losses)):
        pressure = PRESSURE - dry - wet
        humidity = (300.0 - wet) / pressure
        rows += [("mean_sea_level_pressure_mean", 0, number, pressure)]
        rows += [("specific_humidity_mean", level, number, humidity) for level in levels]
    return pd.DataFrame(
        {
            "product": product, "level": level, "quantile": np.nan, "lead_hours": 24 * (number + 1),
            "minimum": mean, "maximum": mean, "mean": mean, "missing": 0,
        }
        for product, level, number, mean in rows
    )  # fmt: skip


def drift(table: pd.DataFrame) -> list[float]:
    return product_table(with_dry_air(table))["dry_air_drift"].dropna().tolist()


def test_dry_air_is_what_is_left_without_the_vapour() -> None:
    assert drift(statistics([0, 30, -150], [0, 250, 100])) == pytest.approx([0, -30, 150])


def test_without_low_levels_nothing_is_said_of_dry_air() -> None:
    assert drift(statistics([0, 500], [0, 0], levels=(200, 300, 500, 700))) == []
    assert drift(statistics([0, 500], [0, 0]).query("product != 'specific_humidity_mean'")) == []


def test_dry_air_that_vanishes_warns_and_rain_does_not(tmp_path: Path) -> None:
    (tmp_path / "checks").mkdir()
    statistics([0, 0, 150], [0, 140, 140]).to_csv(tmp_path / "checks" / "product_statistics.csv", index=False)
    [finding] = judge_products(tmp_path, members=1)
    assert (finding.check, finding.severity) == ("mass of the dry air steady", "warn")
    assert "+72 h" in str(finding)
