"""An analysis state in one tidy table: a row per variable, level and time, a column per fact about the field.

The table is what validation judges, what the report shows and what is kept: small, and enough to tell a
damaged or mislabelled field without opening it again. A field that should be there and is not has a row with
``present`` False and nothing else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

import numpy as np
import pandas as pd
import xarray as xr

from model.diagnostics.physical_consistency import (
    area_mean,
    cell_weights,
    correlation,
    diurnal_phase_error,
    elevation_correlation,
    geostrophic_wind,
    landmark_agreement,
    layer_error,
    meridian_seam,
    zonal_mean_strength,
)
from model.diagnostics.physical_limits import FILL_VALUES, physical_limits
from model.grid import Grid
from model.task import TaskConfig
from model.times import numpy_time
from model.variables import VARIABLES

SINGLE_LEVEL = 0
"""The ``level`` of rows of variables without one."""

STATIC = "static"
"""The ``time`` of rows of variables without one."""

GEOSTROPHIC_LEVELS = (100, 925)
"""hPa between which large-scale wind is compared with the geostrophic wind."""


class NormalizationStatistics(Protocol):
    """A checkpoint's own statistics: Datasets by variable and level, as in the ``*_by_level.nc`` files."""

    @property
    def mean(self) -> xr.Dataset:
        """Of the values."""

    @property
    def stddev(self) -> xr.Dataset:
        """Of the values."""

    @property
    def diffs_stddev(self) -> xr.Dataset:
        """Of the change over one model step."""


@dataclass(frozen=True, kw_only=True)
class ExpectedState:
    """What an initial condition should be.

    Args:
        task: the variables and levels of the model.
        grid: the model's grid.
        init_time: the second frame's valid time, UTC; the first lies one model step before.
        statistics: of the checkpoint; None leaves the columns that need them empty.
        earlier_digests: digest of an earlier frame's field → its valid time, to find repeated fields.
        source_kind: which analyses the state is made of.
        trained_on: which analyses the weights know.
    """

    task: TaskConfig
    grid: Grid
    init_time: datetime
    statistics: NormalizationStatistics | None = None
    earlier_digests: Mapping[str, str] = field(default_factory=dict)
    source_kind: str = ""
    trained_on: str = ""

    @property
    def times(self) -> tuple[np.datetime64, np.datetime64]:
        """Valid times of the two frames."""
        return numpy_time(self.init_time - self.task.step), numpy_time(self.init_time)


def field_digest(values: np.ndarray) -> str:
    """Sha256 in hex of a field's float32 values in row order."""
    return hashlib.sha256(np.ascontiguousarray(values, dtype="<f4").tobytes()).hexdigest()


def time_label(time: np.datetime64) -> str:
    """A valid time as the table writes it, e.g. ``2026-01-01T00Z``."""
    return f"{np.datetime_as_string(time, unit='h')}Z"


def field_statistics(state: xr.Dataset, expected: ExpectedState) -> pd.DataFrame:
    """The table of an initial condition.

    Args:
        state: dims (time, [level], latitude, longitude), statics without time; any latitude order and grid is
            described as it is.
        expected: what it should be.

    Returns:
        One row per expected variable × level × time. Columns, NaN or None where they do not apply:

        * ``variable, level (hPa, 0 for single levels), time, present``
        * ``units, expected_units, dtype, points, source_kind, trained_on, grid_mismatch, time_mismatch``
        * ``minimum, maximum`` of finite values with ``lower_limit, upper_limit``; ``mean,
          standard_deviation`` (by area), ``missing_share`` (NaN), ``infinite_share, fill_share, zero_share``
        * ``mean_score``: (grid-point mean − checkpoint's mean) / checkpoint's standard deviation, and
          ``deviation_ratio``: of the standard deviations. Grid-point, not area, because the published
          statistics are (their mean of land_sea_mask is 0.337; the area share of land is 0.29).
        * ``change``: root mean square difference from the frame before; ``change_ratio``: over the
          checkpoint's standard deviation of differences; ``missing_changed_share``: where NaN came or went
        * ``repeats``: valid time of an earlier frame with exactly these values
        * ``zonal_mean_strength, meridian_seam, geostrophic_correlation, surface_wind_correlation``
        * ``hydrostatic_bias, hydrostatic_deviation`` (K), their ``…_limit``, ``thickness_correlation``: of
          the layer from this level down to the next; ``descending_share``: where geopotential does not
          decrease towards it
        * ``mask_mismatch_share``: where NaN is not exactly land (sea surface temperature)
        * ``elevation_correlation, diurnal_phase_error`` (hours; 2 m temperature), ``landmark_agreement``
    """
    table = pd.DataFrame(list(_Table(state, expected).rows()), columns=list(COLUMNS))
    return table.astype({name: np.float64 for name in COLUMNS if name not in _NOT_NUMBERS})


COLUMNS = (
    "variable", "level", "time", "present", "units", "expected_units", "dtype", "points", "source_kind",
    "trained_on", "grid_mismatch", "time_mismatch", "minimum", "maximum", "lower_limit", "upper_limit",
    "mean", "standard_deviation", "missing_share", "infinite_share", "fill_share", "zero_share",
    "mean_score", "deviation_ratio", "change", "change_ratio", "missing_changed_share", "repeats",
    "zonal_mean_strength", "meridian_seam", "geostrophic_correlation", "surface_wind_correlation",
    "hydrostatic_bias", "hydrostatic_bias_lower_limit", "hydrostatic_bias_upper_limit",
    "hydrostatic_deviation", "hydrostatic_deviation_limit",
    "thickness_correlation", "descending_share", "mask_mismatch_share", "elevation_correlation",
    "diurnal_phase_error", "landmark_agreement", "digest",
)  # fmt: skip
"""The table's columns in order."""

_NOT_NUMBERS = frozenset(
    {
        "variable", "level", "time", "present", "units", "expected_units", "dtype", "source_kind",
        "trained_on", "grid_mismatch", "time_mismatch", "repeats", "digest",
    }
)  # fmt: skip
_SEAM_VARIABLES = frozenset({"geopotential", "temperature", "2m_temperature", "mean_sea_level_pressure"})
_WINDS = {"u_component_of_wind": 0, "v_component_of_wind": 1}
_SURFACE_WINDS = {
    "10m_u_component_of_wind": "u_component_of_wind",
    "10m_v_component_of_wind": "v_component_of_wind",
}


class _Table:
    """Walks over the expected fields of one state."""

    def __init__(self, state: xr.Dataset, expected: ExpectedState) -> None:
        self._state = state
        self._expected = expected
        axes = ("latitude", "longitude")
        self._on_grid = all(name in state.coords and state[name].ndim == 1 for name in axes)
        nothing = np.zeros(0)
        self._latitude = state["latitude"].values.astype(np.float64) if self._on_grid else nothing
        self._longitude = state["longitude"].values.astype(np.float64) if self._on_grid else nothing
        self._weights = cell_weights(self._latitude) if self._on_grid else nothing
        self._grid_mismatch = expected.grid.mismatch(state)
        self._times = np.asarray(state["time"].values) if "time" in state.coords else np.zeros(0, "M8[ns]")
        self._time_mismatch = self._compare_times()
        self._fields: dict[tuple[str, int, int | None], np.ndarray | None] = {}
        self._digests: dict[tuple[str, int, int | None], str] = {}

    def rows(self) -> Iterator[dict[str, object]]:
        """One row per expected field."""
        task = self._expected.task
        for name in task.time_inputs:
            levels = task.pressure_levels if VARIABLES[name].on_levels else (SINGLE_LEVEL,)
            for index in range(2):
                for level in levels:
                    yield self._row(name, level, index)
        for name in task.statics:
            yield self._row(name, SINGLE_LEVEL, None)

    def _compare_times(self) -> str | None:
        wanted = [time_label(time) for time in self._expected.times]
        got = [time_label(time) for time in np.atleast_1d(self._times)]
        if wanted == got:
            return None
        return f"expected {' and '.join(wanted)}, got {' and '.join(got) or 'none'}"

    def _values(self, name: str, level: int, index: int | None) -> np.ndarray | None:
        """A field as (latitude, longitude), or None if the state lacks it."""
        key = (name, level, index)
        if key not in self._fields:
            self._fields[key] = self._look_up(name, level, index)
        return self._fields[key]

    def _look_up(self, name: str, level: int, index: int | None) -> np.ndarray | None:
        if name not in self._state or not self._on_grid:
            return None
        array = self._state[name]
        if index is not None and "time" in array.dims:
            wanted = self._expected.times[index]
            places = np.flatnonzero(self._times == wanted)
            # Frames with wrong times are still described, in their order; time_mismatch says so.
            place = int(places[0]) if places.size else index
            if place >= array.sizes["time"]:
                return None
            array = array.isel(time=place)
        if level != SINGLE_LEVEL:
            if "level" not in array.dims or level not in array["level"].values:
                return None
            array = array.sel(level=level)
        if set(array.dims) != {"latitude", "longitude"}:
            return None
        return array.transpose("latitude", "longitude").values

    def _row(self, name: str, level: int, index: int | None) -> dict[str, object]:
        expected = self._expected
        limits = physical_limits(name, level)
        label = STATIC if index is None else time_label(expected.times[index])
        row: dict[str, object] = dict.fromkeys(COLUMNS)
        row |= {
            "variable": name, "level": level, "time": label, "present": False,
            "expected_units": VARIABLES[name].units, "source_kind": expected.source_kind or None,
            "trained_on": expected.trained_on or None, "grid_mismatch": self._grid_mismatch,
            "time_mismatch": None if index is None else self._time_mismatch,
            "lower_limit": limits[0] if limits else None, "upper_limit": limits[1] if limits else None,
        }  # fmt: skip
        values = self._values(name, level, index)
        if values is None:
            return row
        row |= {"present": True, "units": self._state[name].attrs.get("units"), "dtype": str(values.dtype)}
        row |= self._plain(values) | {"digest": self._digest(name, level, index, values)}
        row |= self._against_checkpoint(name, level, values)
        row |= self._against_frame_before(name, level, index, values)
        if name in _SEAM_VARIABLES:
            row["meridian_seam"] = meridian_seam(values)
        if name in _WINDS:
            row |= self._wind(name, level, index, values)
        elif name in _SURFACE_WINDS:
            lowest = self._values(_SURFACE_WINDS[name], expected.task.pressure_levels[-1], index)
            if lowest is not None:
                row["surface_wind_correlation"] = correlation(values, lowest, self._weights)
        elif name == "geopotential":
            row |= self._layer(level, index)
        elif name == "sea_surface_temperature":
            row |= self._mask(values)
        elif name == "2m_temperature":
            row |= self._near_surface(index, values)
        elif name == "land_sea_mask":
            row["landmark_agreement"] = landmark_agreement(values, self._latitude, self._longitude)
        return row

    def _plain(self, values: np.ndarray) -> dict[str, object]:
        finite = np.isfinite(values)
        sound = values if finite.all() else values[finite]
        filled = np.isin(values, np.asarray(FILL_VALUES, values.dtype))
        mean = area_mean(values, self._weights)
        # In double precision: a fill value's square would overflow float32.
        squares = (values.astype(np.float64) - mean) ** 2
        return {
            "points": values.size,
            "minimum": float(sound.min()) if sound.size else None,
            "maximum": float(sound.max()) if sound.size else None,
            "mean": mean if np.isfinite(mean) else None,
            "standard_deviation": float(np.sqrt(area_mean(squares, self._weights))),
            "missing_share": float(np.isnan(values).mean()),
            "infinite_share": float(np.isinf(values).mean()),
            "fill_share": float(filled.mean()),
            "zero_share": float((values == 0).mean()),
        }

    def _digest(self, name: str, level: int, index: int | None, values: np.ndarray) -> str:
        key = (name, level, index)
        if key not in self._digests:
            self._digests[key] = field_digest(values)
        return self._digests[key]

    def _statistic(self, dataset: xr.Dataset, name: str, level: int) -> float | None:
        if name not in dataset:
            return None
        array = dataset[name]
        if "level" in array.dims:
            if level not in array["level"].values:
                return None
            array = array.sel(level=level)
        return float(array)

    def _against_checkpoint(self, name: str, level: int, values: np.ndarray) -> dict[str, object]:
        statistics = self._expected.statistics
        if statistics is None:
            return {}
        mean = self._statistic(statistics.mean, name, level)
        deviation = self._statistic(statistics.stddev, name, level)
        sound = values[np.isfinite(values)].astype(np.float64)
        if mean is None or not deviation or not sound.size:
            return {}
        return {
            "mean_score": float((sound.mean() - mean) / deviation),
            "deviation_ratio": float(sound.std() / deviation),
        }

    def _against_frame_before(
        self, name: str, level: int, index: int | None, values: np.ndarray
    ) -> dict[str, object]:
        if index is None:
            return {}
        digest = self._digest(name, level, index, values)
        facts: dict[str, object] = {"repeats": self._expected.earlier_digests.get(digest)}
        before = self._values(name, level, 0) if index == 1 else None
        if before is None or before.shape != values.shape:
            return facts
        if digest == self._digest(name, level, 0, before):
            facts["repeats"] = time_label(self._expected.times[0])
        change = values.astype(np.float64) - before
        size = float(np.sqrt(area_mean(change**2, self._weights)))
        facts |= {
            "change": size if np.isfinite(size) else None,
            "missing_changed_share": float((np.isnan(values) != np.isnan(before)).mean()),
        }
        if self._expected.statistics is not None:
            usual = self._statistic(self._expected.statistics.diffs_stddev, name, level)
            facts["change_ratio"] = size / usual if usual and np.isfinite(size) else None
        return facts

    def _wind(self, name: str, level: int, index: int | None, values: np.ndarray) -> dict[str, object]:
        facts: dict[str, object] = {"zonal_mean_strength": zonal_mean_strength(values, self._weights)}
        geopotential = self._values("geopotential", level, index)
        if geopotential is not None and GEOSTROPHIC_LEVELS[0] <= level <= GEOSTROPHIC_LEVELS[1]:
            balanced = geostrophic_wind(geopotential, self._latitude, self._longitude)[_WINDS[name]]
            facts["geostrophic_correlation"] = correlation(values, balanced, self._weights)
        return facts

    def _layer(self, level: int, index: int | None) -> dict[str, object]:
        """Facts of the layer between this level and the next one below it."""
        levels = self._expected.task.pressure_levels
        below = levels.index(level) + 1
        if below == len(levels):
            return {}
        pair = (level, levels[below])
        heights = self._pair("geopotential", pair, index)
        if heights is None:
            return {}
        facts: dict[str, object] = {"descending_share": float((heights[0] <= heights[1]).mean())}
        temperatures = self._pair("temperature", pair, index)
        if temperatures is None:
            return facts
        humidities = self._pair("specific_humidity", pair, index)
        error = layer_error(heights, temperatures, humidities, pair, self._weights)
        # The mean of two levels stands for the layer's mean: the deeper the layer, and above all one with the
        # tropopause in it, the further off. ERA5 and GFS stay within a third of these.
        return facts | {
            "hydrostatic_bias": error.bias,
            "hydrostatic_bias_lower_limit": -(2.0 + 5.0 * error.logarithmic_depth),
            "hydrostatic_bias_upper_limit": 2.0 + 5.0 * error.logarithmic_depth,
            "hydrostatic_deviation": error.deviation,
            "hydrostatic_deviation_limit": 4.0 + 5.0 * error.logarithmic_depth,
            "thickness_correlation": error.correlation,
        }

    def _pair(self, name: str, levels: tuple[int, int], index: int | None) -> np.ndarray | None:
        """A variable on two levels, (2, latitude, longitude), or None if either is absent."""
        fields = [self._values(name, level, index) for level in levels]
        present = [each for each in fields if each is not None]
        return np.stack(present) if len(present) == len(levels) else None

    def _mask(self, values: np.ndarray) -> dict[str, object]:
        land = self._values("land_sea_mask", SINGLE_LEVEL, None)
        if land is None:
            return {}
        return {"mask_mismatch_share": float((np.isnan(values) != (land > 0.5)).mean())}

    def _near_surface(self, index: int | None, values: np.ndarray) -> dict[str, object]:
        facts: dict[str, object] = {}
        surface = self._values("geopotential_at_surface", SINGLE_LEVEL, None)
        if surface is not None:
            facts["elevation_correlation"] = elevation_correlation(values, surface, self._weights)
        land = self._values("land_sea_mask", SINGLE_LEVEL, None)
        before = self._values("2m_temperature", SINGLE_LEVEL, 0) if index == 1 else None
        if land is not None and before is not None:
            facts["diurnal_phase_error"] = diurnal_phase_error(
                values.astype(np.float64) - before, land, self._latitude, self._longitude,
                self._expected.init_time, self._expected.task.step.total_seconds() / 3600.0,
            )  # fmt: skip
        return facts
