"""Mean, variance, minimum and differences in time, gathered from pieces of any size.

``Moments`` is a monoid: ``combine`` is associative and ``Moments.empty`` its neutral element, so an archive
can be reduced in blocks, on several workers, and in any grouping. The update is that of Chan, Golub and
LeVeque (1979), "Updating formulae and a pairwise algorithm for computing sample variances".

Statistics run over grid points with equal weights, as DeepMind's published ``*_by_level.nc`` do: their mean
of the land-sea mask is the share of land among grid points, not of the Earth's area.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import numpy as np
import xarray as xr


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Count, mean, sum of squared deviations and minimum of finite values; one common shape, float64."""

    count: np.ndarray
    mean: np.ndarray
    squared_deviations: np.ndarray
    minimum: np.ndarray

    @classmethod
    def empty(cls, shape: tuple[int, ...] = ()) -> Moments:
        """The moments of no values."""
        return cls(
            count=np.zeros(shape),
            mean=np.zeros(shape),
            squared_deviations=np.zeros(shape),
            minimum=np.full(shape, np.inf),
        )

    @classmethod
    def of(cls, values: np.ndarray, axis: tuple[int, ...]) -> Moments:
        """Moments over some axes; NaN (sea surface temperature over land) does not count."""
        values = np.asarray(values, dtype=np.float64)
        finite = np.isfinite(values)
        count = finite.sum(axis=axis).astype(np.float64)
        total = np.where(finite, values, 0.0).sum(axis=axis, keepdims=True)
        mean = total / np.maximum(count.reshape(total.shape), 1.0)
        deviations = np.where(finite, values - mean, 0.0)
        return cls(
            count=count,
            mean=mean.reshape(count.shape),
            squared_deviations=(deviations**2).sum(axis=axis),
            minimum=np.where(finite, values, np.inf).min(axis=axis, initial=np.inf),
        )

    def combine(self, other: Moments) -> Moments:
        """The moments of both sets of values together."""
        count = self.count + other.count
        share = other.count / np.maximum(count, 1.0)
        step = other.mean - self.mean
        return Moments(
            count=count,
            mean=self.mean + step * share,
            squared_deviations=self.squared_deviations
            + other.squared_deviations
            + step**2 * self.count * share,
            minimum=np.minimum(self.minimum, other.minimum),
        )

    @property
    def standard_deviation(self) -> np.ndarray:
        """Population standard deviation; NaN where there were no values."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.sqrt(self.squared_deviations / self.count)


_REDUCED = ("time", "latitude", "longitude")


@dataclass(frozen=True, kw_only=True)
class ArchiveStatistics:
    """Statistics of every variable of an archive, per level where there are levels.

    Args:
        values: moments of the fields, by variable name, shape (level,) or ().
        differences: for each interval, moments of the change over it (variables without time are absent).
        levels: hPa, ascending.
    """

    values: dict[str, Moments] = field(default_factory=dict)
    differences: dict[timedelta, dict[str, Moments]] = field(default_factory=dict)
    levels: tuple[int, ...] = ()

    def combine(self, other: ArchiveStatistics) -> ArchiveStatistics:
        """The statistics of both pieces together (differences across their seam are in neither).

        Raises:
            ValueError: the pieces lie on different levels.
        """
        if self.levels and other.levels and self.levels != other.levels:
            raise ValueError(f"levels: expected {self.levels} in both pieces, got {other.levels}")
        return ArchiveStatistics(
            values=_merge(self.values, other.values),
            differences={
                interval: _merge(self.differences.get(interval, {}), other.differences.get(interval, {}))
                for interval in {**self.differences, **other.differences}
            },
            levels=self.levels or other.levels,
        )

    def mean(self) -> xr.Dataset:
        """Means, in DeepMind's layout: dim ``level`` or none, float32."""
        return self._dataset({name: moments.mean for name, moments in self.values.items()})

    def standard_deviation(self) -> xr.Dataset:
        """Standard deviations, same layout."""
        return self._dataset({name: moments.standard_deviation for name, moments in self.values.items()})

    def minimum(self) -> xr.Dataset:
        """Minima, same layout."""
        return self._dataset({name: moments.minimum for name, moments in self.values.items()})

    def difference_standard_deviation(self, interval: timedelta) -> xr.Dataset:
        """Standard deviations of the change over an interval, same layout.

        Raises:
            KeyError: that interval was not asked for.
        """
        return self._dataset(
            {name: moments.standard_deviation for name, moments in self.differences[interval].items()}
        )

    def _dataset(self, fields: dict[str, np.ndarray]) -> xr.Dataset:
        return xr.Dataset(
            {
                name: (("level",) if values.ndim else (), values.astype(np.float32))
                for name, values in fields.items()
            },
            coords={"level": np.asarray(self.levels, dtype=np.int32)} if self.levels else None,
        )


def _merge(one: dict[str, Moments], other: dict[str, Moments]) -> dict[str, Moments]:
    return {
        name: one[name].combine(other[name]) if name in one and name in other else (one | other)[name]
        for name in {**one, **other}
    }


def accumulate(
    blocks: Iterable[xr.Dataset], intervals: Sequence[timedelta] = (timedelta(hours=6), timedelta(hours=12))
) -> ArchiveStatistics:
    """Reduce an archive that comes in blocks of consecutive times; the last of many from ``running``.

    Args:
        blocks: in order of time, dims (time, [level,] latitude, longitude); what has no time counts once.
        intervals: over which differences are taken, across the seams of blocks too, where both times exist.

    Raises:
        ValueError: blocks overlap, are out of order or lie on different levels.
        IndexError: there is no block.
    """
    return deque(running(blocks, intervals), maxlen=1).pop()


def running(blocks: Iterable[xr.Dataset], intervals: Sequence[timedelta]) -> Iterator[ArchiveStatistics]:
    """As ``accumulate``, but gives the statistics so far after every block."""
    total = ArchiveStatistics()
    tail: xr.Dataset | None = None
    longest = max((np.timedelta64(interval) for interval in intervals), default=np.timedelta64(0, "h"))
    for block in blocks:
        moving = block[[name for name in block.data_vars if "time" in block[name].dims]]
        constant = block.drop_vars([*moving.data_vars, "time"])
        if tail is not None and block.sizes["time"] and block.time.values[0] <= tail.time.values[-1]:
            raise ValueError(
                f"blocks: expected times after {tail.time.values[-1]}, got one from {block.time.values[0]}"
            )
        levels = tuple(int(level) for level in block["level"].values) if "level" in block.coords else ()
        if total.levels and levels != total.levels:
            raise ValueError(f"levels: expected {total.levels} as in the blocks before, got {levels}")
        window = moving if tail is None else xr.concat([tail, moving], dim="time", join="exact")
        piece = ArchiveStatistics(
            values={str(name): _moments(field) for name, field in moving.data_vars.items()}
            | {str(n): _moments(f) for n, f in constant.data_vars.items() if n not in total.values},
            differences={
                interval: _differences(window, np.timedelta64(interval), since=moving.time.values[:1])
                for interval in intervals
            },
            levels=levels,
        )
        total = total.combine(piece)
        yield total
        tail = window.sel(time=window.time >= window.time.values[-1] - longest)


def _moments(field: xr.DataArray) -> Moments:
    return Moments.of(field.values, tuple(i for i, name in enumerate(field.dims) if name in _REDUCED))


def _differences(window: xr.Dataset, interval: np.timedelta64, *, since: np.ndarray) -> dict[str, Moments]:
    """Changes over an interval that end in the newest block."""
    times = window.time.values
    ends = times[(times >= since[0]) & np.isin(times - interval, times)] if since.size else times[:0]
    if not ends.size:
        return {}
    later, earlier = window.sel(time=ends), window.sel(time=ends - interval)
    return {
        str(name): _moments(later[name].astype(np.float64) - earlier[name].values)
        for name in window.data_vars
    }
