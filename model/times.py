"""Aware datetimes, as Foldcast passes them about, and numpy's, as xarray keeps them: UTC without saying so."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np


def numpy_time(time: datetime) -> np.datetime64:
    """A time-zone aware time as numpy's, in nanoseconds, UTC.

    Raises:
        ValueError: the time has no time zone.
    """
    if time.tzinfo is None:
        raise ValueError(f"time: expected a time-zone aware datetime, got {time!r}")
    return np.datetime64(time.astimezone(UTC).replace(tzinfo=None), "ns")


def aware_time(time: np.datetime64 | np.ndarray) -> datetime:
    """A numpy time of any unit as a datetime in UTC; what is finer than a microsecond is cut off.

    Args:
        time: a scalar or an array without dimensions, as ``coordinate.values`` of a scalar coordinate.

    Raises:
        ValueError: it is not a time (NaT).
    """
    if np.isnat(time):
        raise ValueError("time: expected a time, got NaT")
    moment: datetime = time.astype("datetime64[us]").item()
    return moment.replace(tzinfo=UTC)
