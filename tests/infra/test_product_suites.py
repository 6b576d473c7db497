"""The tables products are judged by hold what the checks are about, and the checks' bounds tell bad from good."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from infra.product_suites import member_suite, member_table, product_suite, product_table


def product_rows(product: str, *, means: list[float], quantiles: list[float] | None = None) -> list[dict]:
    """One row per lead time (24 h apart) and quantile."""
    return [
        {
            "product": product, "level": 0, "quantile": quantile, "lead_hours": 24 * (number + 1),
            "minimum": mean - 1 + step, "maximum": mean + 1 + step, "mean": mean + step, "missing": 0,
        }
        for number, mean in enumerate(means)
        for step, quantile in enumerate(quantiles or [np.nan])
    ]  # fmt: skip


def test_quantiles_are_compared_with_the_one_below() -> None:
    table = product_table(
        pd.DataFrame(product_rows("2m_temperature_quantile", means=[280, 281], quantiles=[0.1, 0.5, 0.9]))
    )
    assert table["lower_quantile_mean"].isna().sum() == 2
    known = table.dropna(subset="lower_quantile_mean")
    assert (known["quantile_mean"] - known["lower_quantile_mean"]).tolist() == [1, 1, 1, 1]
    assert table["time"].iloc[1] == "+24 h, quantile 0.5"


def test_spread_is_compared_with_the_lead_time_before() -> None:
    table = product_table(pd.DataFrame(product_rows("2m_temperature_standard_deviation", means=[1, 2, 0.5])))
    assert table["spread_growth"].tolist()[1:] == [2.0, 0.25]
    rain = product_table(pd.DataFrame(product_rows("total_precipitation_standard_deviation", means=[2, 1])))
    assert rain["spread_growth"].isna().all()


def test_only_the_sea_may_have_holes() -> None:
    rows = product_rows("sea_surface_temperature_mean", means=[290, 290]) + product_rows(
        "2m_temperature_mean", means=[280, 280]
    )
    table = pd.DataFrame(rows)
    table["missing"] = [30, 31, 0, 2]
    assert product_table(table)["missing_beyond_mask"].tolist() == [0, 1, 0, 2]


@pytest.mark.parametrize(
    ("product", "checked"),
    [
        ("2m_temperature_mean", True),
        ("2m_temperature_standard_deviation", False),
        ("2m_temperature_anomaly_mean", False),
        ("total_precipitation_6hr_quantile", True),
    ],
)
def test_ranges_are_for_values_not_for_spreads_or_anomalies(product: str, checked: bool) -> None:
    suite = product_suite([product], members=8)
    ranges = [check for check in suite if check.name == "physical range"]
    assert any(product in check.variables for check in ranges) == checked


def members(means: list[list[float]], distances: list[float], checksums: list[int]) -> pd.DataFrame:
    """means: per lead time and member; distances and checksums per member."""
    return pd.DataFrame(
        {
            "field": "mean_sea_level_pressure", "lead_hours": 24 * (lead + 1), "member": member,
            "mean": mean, "distance": distances[member], "checksum": checksums[member],
        }
        for lead, row in enumerate(means)
        for member, mean in enumerate(row)
    )  # fmt: skip


def test_members_are_told_apart_and_held_against_the_others() -> None:
    table = member_table(
        members([[101100, 101100, 101100], [101100, 101400, 99000]], [1.0, 2.0, 40.0], [7, 8, 7])
    )
    assert table["copies"].tolist() == [2, 1, 2] * 2
    assert table["relative_distance"].tolist() == [0.5, 1.0, 20.0] * 2
    assert table["pressure_drift"].tolist() == [0, 0, 0, 0, 300, -2100]
    assert table["temperature_drift"].isna().all()
    by_name = {(check.name, check.severity): check for check in member_suite()}
    drift = by_name["mass of the air steady", "block"]
    assert drift.minimum is not None
    assert -2100 < drift.minimum < 300
    assert 20.0 > (by_name["no outlier", "warn"].maximum or 0) > 1.0


def test_a_little_negative_humidity_warns_and_much_blocks() -> None:
    suite = product_suite(["specific_humidity_mean"], members=8)
    bounds = {
        check.severity: check.minimum for check in suite if check.column == "minimum" and check.variables
    }
    assert bounds == {"block": -0.01, "warn": -0.001}
