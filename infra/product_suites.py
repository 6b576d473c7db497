"""The suites products are judged by before anybody sees them.

They run over tables of statistics, as those of the initial conditions do: one row per product, level and lead
time, and one per member, field and lead time.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from infra.validation_suites import Check, Severity

_RANGES = {
    "2m_temperature": (170.0, 345.0),
    "sea_surface_temperature": (260.0, 320.0),
    "temperature": (150.0, 345.0),
    "mean_sea_level_pressure": (85000.0, 111000.0),
    "geopotential": (-12000.0, 260000.0),
    "10m_wind_speed": (0.0, 100.0),
    "10m_wind_direction": (0.0, 360.0),
    "10m_u_component_of_wind": (-100.0, 100.0),
    "10m_v_component_of_wind": (-100.0, 100.0),
    "u_component_of_wind": (-200.0, 220.0),
    "v_component_of_wind": (-200.0, 200.0),
    "vertical_velocity": (-80.0, 80.0),
    "wind_speed": (0.0, 200.0),
    "specific_humidity": (-0.01, 0.05),
    "total_precipitation": (0.0, 5.0),
}
"""What a mean or quantile of a quantity can be anywhere on Earth, in its units. Networks do not forbid negative
humidity: as much of it as this blocks, a little warns."""

DRY_AIR_FROM = "mean_sea_level_pressure_mean"
"""The product whose rows hold the drift of the dry air's mass, where humidity is there on enough levels."""

_DRY_AIR_DRIFT = 100.0
"""Pa. Over 15 days of the winter of 2025–26 global mean sea level pressure of ERA5 drifts by 25 Pa at most."""


def product_suite(products: list[str], *, members: int) -> list[Check]:
    """Checks of the product table (see ``product_table``)."""
    checks = [
        Check(
            name="no missing values",
            severity="block",
            column="missing_beyond_mask",
            maximum=0,
            reason="a product has holes that its variable does not have everywhere",
        ),
        *(
            Check(
                name="probabilities within 0 and 1",
                severity="block",
                column=column,
                minimum=0,
                maximum=1,
                reason="a share of members cannot be outside",
            )
            for column in ("lowest_probability", "highest_probability")
        ),
        *(
            Check(
                name="quantiles ordered",
                severity="block",
                column=f"quantile_{column}",
                not_below=f"lower_quantile_{column}",
                reason="a higher quantile lies below a lower one",
            )
            for column in ("minimum", "mean", "maximum")
        ),
        Check(
            name="spread positive",
            severity="block",
            column="spread",
            minimum=0,
            reason="a standard deviation cannot be negative",
        ),
    ]
    for quantity, (lowest, highest) in _RANGES.items():
        own = tuple(
            name
            for name in products
            if name.startswith(quantity)
            and not name.endswith("_standard_deviation")
            and "anomaly" not in name
        )
        if own:
            meaning = "no such value was ever observed"
            checks += [
                Check(
                    name="physical range", severity="block", column="minimum", minimum=lowest,
                    variables=own, reason=meaning,
                ),
                Check(
                    name="physical range", severity="block", column="maximum", maximum=highest,
                    variables=own, reason=meaning,
                ),
            ]  # fmt: skip
    humidity = tuple(
        name for name in products if name.startswith("specific_humidity_") and "anomaly" not in name
    )
    if humidity:
        checks.append(
            Check(
                name="humidity not negative",
                severity="warn",
                column="minimum",
                minimum=-1e-3,
                variables=humidity,
                reason="the network puts less than nothing of water vapour into some cells",
            )
        )
    if DRY_AIR_FROM in products:
        checks.append(
            Check(
                name="mass of the dry air steady",
                severity="warn",
                column="dry_air_drift",
                minimum=-_DRY_AIR_DRIFT,
                maximum=_DRY_AIR_DRIFT,
                variables=(DRY_AIR_FROM,),
                reason="global mean sea level pressure less the water vapour's weight drifts (Pa since the first step)",
            )
        )
    if members > 1:
        checks.append(
            Check(
                name="spread grows",
                severity="warn",
                column="spread_growth",
                minimum=0.5,
                reason="the ensemble collapses: its spread halved between neighbouring lead times",
            )
        )
    return checks


def member_suite() -> list[Check]:
    """Checks of the member table (see ``member_table``)."""
    return [
        Check(
            name="members distinct",
            severity="block",
            column="copies",
            maximum=1,
            reason="two members hold the same values",
        ),
        Check(
            name="no outlier",
            severity="warn",
            column="relative_distance",
            maximum=9.0,
            reason="its squared distance to the mean is far beyond the other members'",
        ),
        _steady_mass("block", 1500.0),
        _steady_mass("warn", 200.0),
        Check(
            name="global mean steady",
            severity="warn",
            column="temperature_drift",
            minimum=-3.0,
            maximum=3.0,
            reason="the global mean temperature drifts (K since the first step)",
        ),
    ]


def _steady_mass(severity: Severity, bound: float) -> Check:
    return Check(
        name="mass of the air steady",
        severity=severity,
        column="pressure_drift",
        minimum=-bound,
        maximum=bound,
        reason="the global mean sea level pressure drifts (Pa since the first step)",
    )


def product_table(statistics: pd.DataFrame) -> pd.DataFrame:
    """The aggregate's statistics as a table that suites can judge.

    Args:
        statistics: columns product, level, quantile, lead_hours, minimum, maximum, mean, missing; dry_air, the
            pressure of the dry air in Pa, in the rows of ``DRY_AIR_FROM`` where it is known.
    """
    table = statistics.rename(columns={"product": "variable"}).copy()
    if "dry_air" not in table:
        table["dry_air"] = np.nan
    name = table["variable"]
    which = table["quantile"].map(lambda value: "" if np.isnan(value) else f", quantile {value:g}")
    table["time"] = "+" + table["lead_hours"].astype(str) + " h" + which
    table["spread"] = table["mean"].where(name.str.endswith("_standard_deviation"))
    previous = _previous(table, by=["variable", "level"], along="lead_hours", column="spread")
    growth = table["spread"] / previous.where(previous > 0)
    table["spread_growth"] = growth.where(~name.str.startswith("total_precipitation_"))
    is_quantile = name.str.endswith("_quantile")
    for column in ("minimum", "mean", "maximum"):
        own = table[column].where(is_quantile)
        table[f"quantile_{column}"] = own
        table[f"lower_quantile_{column}"] = _previous(
            table, by=["variable", "lead_hours"], along="quantile", column=f"quantile_{column}"
        )
    first = table.sort_values("lead_hours").groupby("variable")["dry_air"].transform("first")
    table["dry_air_drift"] = table["dry_air"] - first
    is_probability = name.str.startswith("probability_")
    table["lowest_probability"] = table["minimum"].where(is_probability)
    table["highest_probability"] = table["maximum"].where(is_probability)
    least = table.groupby(["variable", "level"])["missing"].transform("min")
    mask = least.where(name.str.startswith("sea_surface") & table["mean"].notna(), 0)  # never the whole globe
    table["missing_beyond_mask"] = table["missing"] - mask
    return table


def member_table(statistics: pd.DataFrame) -> pd.DataFrame:
    """The aggregate's statistics per member as a table that suites can judge.

    Args:
        statistics: columns field, lead_hours, member, mean, distance, checksum.
    """
    table = statistics.rename(columns={"field": "variable"}).copy()
    table["level"] = 0
    table["time"] = "+" + table["lead_hours"].astype(str) + " h, member " + table["member"].astype(str)
    table["copies"] = table.groupby(["variable", "lead_hours", "checksum"])["member"].transform("count")
    median = table.groupby(["variable", "lead_hours"])["distance"].transform("median")
    table["relative_distance"] = table["distance"] / median.where(median > 0)
    first = table.sort_values("lead_hours").groupby(["variable", "member"])["mean"].transform("first")
    drift = table["mean"] - first
    table["pressure_drift"] = drift.where(table["variable"] == "mean_sea_level_pressure")
    table["temperature_drift"] = drift.where(table["variable"].isin(["2m_temperature", "temperature_850hPa"]))
    return table


def _previous(table: pd.DataFrame, *, by: list[str], along: str, column: str) -> pd.Series:
    """The column's value in the row before, within each group and in the order of another column."""
    return table.sort_values(along).groupby(by)[column].shift(1).reindex(table.index)
