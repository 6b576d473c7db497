"""Training examples cut from a series of analyses: input window, forcings, targets of a rollout.

Arrays keep the model's dims with an axis over examples in front; variables that do not change have none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

import numpy as np

from model.channels import INPUT_FRAMES
from model.errors import InvalidFieldError
from model.forcings import forcing_fields
from model.grid import Grid
from model.task import TaskConfig
from model.times import aware_time
from model.variables import VARIABLES

_ACCUMULATED = "total_precipitation_"


class Field(Protocol):
    """An array over time, as far as examples need one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Time first."""

    def __getitem__(self, places: np.ndarray) -> np.ndarray:
        """The fields at some times."""


@dataclass(frozen=True, kw_only=True)
class AnalysisSeries:
    """Analyses at equal intervals without a gap.

    Args:
        task: what the model takes and gives.
        grid: on which the fields lie.
        times: datetime64, ascending at equal intervals that divide the task's step.
        fields: float32, (time, [level,] latitude, longitude), the task's levels in order; arrays, or what gives
            them for the times it is indexed with.
        statics: float32, (latitude, longitude).
    """

    task: TaskConfig
    grid: Grid
    times: np.ndarray
    fields: Mapping[str, Field]
    statics: Mapping[str, np.ndarray]

    def __post_init__(self) -> None:
        intervals = np.unique(np.diff(self.times))
        if intervals.size != 1 or np.timedelta64(self.task.step) % intervals[0] != np.timedelta64(0, "ns"):
            raise InvalidFieldError(
                f"times: expected equal intervals that divide the model's step of {self.task.step}, got {intervals[:3]}"
            )
        needed = {*self.task.time_inputs, *self.task.target_variables}
        missing = sorted((needed - set(self.fields)) | (set(self.task.statics) - set(self.statics)))
        if missing:
            raise InvalidFieldError(f"series: the task needs {missing}; it has {sorted(self.fields)}")
        for name in sorted(needed):
            levels = (len(self.task.pressure_levels),) if VARIABLES[name].on_levels else ()
            expected = (self.times.size, *levels, *self.grid.shape)
            if self.fields[name].shape != expected:
                raise InvalidFieldError(f"{name}: expected shape {expected}, got {self.fields[name].shape}")

    @property
    def stride(self) -> int:
        """Analyses from one model step to the next."""
        return int(np.timedelta64(self.task.step) // (self.times[1] - self.times[0]))

    def count(self, rollout_steps: int) -> int:
        """How many examples with so many target frames can be cut out."""
        return max(self.times.size - (INPUT_FRAMES - 1 + rollout_steps) * self.stride, 0)

    def start_time(self, number: int) -> datetime:
        """The time of an example's last input frame."""
        return aware_time(self.times[number + (INPUT_FRAMES - 1) * self.stride])

    def start(self, number: int, steps: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Input window and forcings of a forecast that may reach beyond the series.

        Returns:
            Frames (2, …) and forcings (2 + steps, …) by variable.

        Raises:
            ValueError: the window is not in the series.
        """
        if not 0 <= number < self.count(0):
            raise ValueError(f"number: expected 0 to {self.count(0) - 1}, got {number}")
        places = number + self.stride * np.arange(INPUT_FRAMES)
        first = aware_time(self.times[number])
        names = self.task.forcing_variables
        by_time = [
            forcing_fields(names, first + self.task.step * step, self.grid)
            for step in range(INPUT_FRAMES + steps)
        ]
        return (
            {name: self.fields[name][places] for name in self.task.time_inputs},
            {name: np.stack([fields[name] for fields in by_time]) for name in names},
        )

    def batch(self, numbers: np.ndarray, rollout_steps: int) -> dict[str, dict[str, np.ndarray]]:
        """Examples by number, stacked.

        Args:
            numbers: shape (example,), each below ``count(rollout_steps)``.

        Returns:
            ``frames`` (example, 2, …), ``targets`` (example, step, …) and ``forcings`` (example, 2 + step, …)
            by variable, as ``model.training.losses.autoregressive_loss`` takes them for one example.

        Raises:
            ValueError: a number beyond the last example.
        """
        numbers = np.asarray(numbers)
        if numbers.min() < 0 or numbers.max() >= self.count(rollout_steps):
            raise ValueError(
                f"numbers: expected 0 to {self.count(rollout_steps) - 1}, got {numbers.min()} to {numbers.max()}"
            )
        places = numbers[:, None] + self.stride * np.arange(INPUT_FRAMES + rollout_steps)
        times = [[aware_time(self.times[place]) for place in row] for row in places]
        names = self.task.forcing_variables
        by_time = {time: forcing_fields(names, time, self.grid) for row in times for time in row}
        return {
            "frames": {name: self.fields[name][places[:, :INPUT_FRAMES]] for name in self.task.time_inputs},
            "targets": {
                name: self.fields[name][places[:, INPUT_FRAMES:]] for name in self.task.target_variables
            },
            "forcings": {
                name: np.stack([np.stack([by_time[time][name] for time in row]) for row in times])
                for name in names
            },
        }


def accumulate_precipitation(fields: Mapping[str, np.ndarray], hours: int, interval: timedelta) -> np.ndarray:
    """Precipitation over ``hours``, from that over the interval between analyses; the first few are NaN.

    Args:
        fields: with ``total_precipitation_{interval}hr``, (time, latitude, longitude).
        hours: a multiple of the interval.

    Raises:
        InvalidFieldError: there is no such field.
    """
    every = int(interval.total_seconds()) // 3600
    name = f"{_ACCUMULATED}{every}hr"
    if name not in fields or hours % every:
        raise InvalidFieldError(f"precipitation over {hours} h: expected {name}, got {sorted(fields)}")
    values, total = fields[name], fields[name].copy()
    for shift in range(1, hours // every):
        total[shift:] += values[:-shift]
    total[: hours // every - 1] = np.nan
    return total
