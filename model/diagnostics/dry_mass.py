"""The mass of dry air, which nothing in a few weeks of weather changes, from pressure and humidity.

A column's surface pressure is the weight of its dry air and of its water vapour. The vapour's share,
∫ q dp, varies with the weather; what is left over the whole globe does not (Trenberth and Smith, 2005, "The mass
of the atmosphere: a constraint on global analyses").
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_LOWEST_LEVEL = 850
"""hPa; without a level as low as this the levels miss most of the vapour."""

_PASCAL = 100.0


def vapour_pressure_of_columns(
    levels: Sequence[int], specific_humidity: np.ndarray, pressure: float
) -> float | None:
    """Weight of the water vapour above a unit of area, as a pressure in Pa.

    By the trapezoidal rule over the levels; above the highest one humidity is taken as constant, and so it is between
    the lowest one and the ground. The rule is linear in humidity, so global means give the global mean.

    Args:
        levels: pressure levels in hPa, in any order.
        specific_humidity: on them, kg/kg, shape (levels,).
        pressure: where the column ends, Pa. With mean sea level pressure the column runs on below the ground of
            mountains, as fields on pressure levels do.

    Returns:
        The weight; None if the levels do not reach low enough (850 hPa), or are less than three.
    """
    if len(levels) < 3 or max(levels) < _LOWEST_LEVEL or not np.isfinite(specific_humidity).all():
        return None
    order = np.argsort(levels)
    at = np.asarray(levels, dtype=np.float64)[order] * _PASCAL
    humidity = np.asarray(specific_humidity, dtype=np.float64)[order]
    inside = float(np.trapezoid(humidity, at))
    return float(inside + humidity[0] * at[0] + humidity[-1] * (pressure - at[-1]))
