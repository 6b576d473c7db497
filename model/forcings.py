"""Forcings known beforehand at every time: progress of year and day, solar radiation.

They are computed from time and position as the published checkpoints were trained with; a DeepMind example file
that carries solar radiation of its own is taken at its word (``GivenForcings``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np

from model.grid import Grid
from model.solar_radiation import incident_solar_radiation

SECONDS_PER_DAY = 86400
DAYS_PER_YEAR = 365.24219
"""Mean tropical year."""

SOLAR_RADIATION = "toa_incident_solar_radiation"


def year_progress(time: datetime) -> np.float32:
    """Share of the mean tropical year gone by since the turn of one, counted from 1970-01-01, in [0, 1)."""
    years = _seconds_since_1970(time) / SECONDS_PER_DAY / np.float64(DAYS_PER_YEAR)
    return np.float32(np.mod(years, 1.0))


def day_progress(time: datetime, longitude: np.ndarray) -> np.ndarray:
    """Share of the local solar day gone by, in [0, 1), float32, shape (longitude,).

    Args:
        time: time-zone aware.
        longitude: degrees east, shape (longitude,).
    """
    greenwich = np.mod(_seconds_since_1970(time), SECONDS_PER_DAY) / SECONDS_PER_DAY
    return np.mod(greenwich + np.deg2rad(longitude) / (2 * np.pi), 1.0).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class GivenForcings:
    """Solar radiation that came with a data set, by valid time.

    Args:
        solar_radiation: J m⁻², float32, shape (latitude, longitude), by UTC time.
    """

    solar_radiation: Mapping[datetime, np.ndarray] = field(default_factory=dict)


def forcing_fields(
    names: Sequence[str], time: datetime, grid: Grid, *, given: GivenForcings | None = None
) -> dict[str, np.ndarray]:
    """The forcings at one time, each float32 of shape (latitude, longitude).

    Args:
        names: which, from ``model.variables.COMPUTED_FORCINGS``.
        time: valid time, time-zone aware.
        given: solar radiation to take where it has this time.

    Raises:
        ValueError: an unknown name.
    """
    time = time.astimezone(UTC)
    fields = {}
    for name in names:
        if name == SOLAR_RADIATION:
            taken = given.solar_radiation.get(time) if given else None
            values = incident_solar_radiation(time, grid.latitude, grid.longitude) if taken is None else taken
        else:
            quantity, _, wave = name.rpartition("_")
            if quantity == "year_progress":
                progress = np.asarray(year_progress(time))
            elif quantity == "day_progress":
                progress = day_progress(time, grid.longitude)
            else:
                raise ValueError(f"expected the name of a computed forcing, got {name!r}")
            values = (np.sin if wave == "sin" else np.cos)(progress * np.float32(2 * np.pi))
        fields[name] = np.ascontiguousarray(np.broadcast_to(values, grid.shape), dtype=np.float32)
    return fields


def _seconds_since_1970(time: datetime) -> int:
    return int(time.timestamp())
