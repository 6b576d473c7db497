"""Climatological mean and spread of a field by day of the year and hour, as a harmonic fit.

A field is modelled as y(t) = Σ c_j B_j(t), with B the products of annual harmonics (in the share of the year
gone by) and daily harmonics (in the share of the day), fitted by least squares over all times at once. The
normal equations are sums over times, so pieces of an archive are reduced apart and added: ``HarmonicSums`` is
a monoid. A second pass over the archive fits the squared anomalies from that mean in the same way, with fewer
harmonics: the variance, whose root is the spread. (Smoothed daily climatologies are what anomaly correlations
are computed against: WMO, Manual on the Global Data-processing and Forecasting System, WMO-No. 485, appendix
2.2.34.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import xarray as xr

COEFFICIENT = "coefficient"
VARIANCE_SUFFIX = "_variance"
VARIANCE_COEFFICIENT = "variance_coefficient"
LEAST_SHARE_OF_VARIANCE = 0.1


@dataclass(frozen=True, kw_only=True)
class HarmonicBasis:
    """Products of annual and daily harmonics.

    Args:
        annual: number of harmonics of the year, 0 for none.
        daily: number of harmonics of the day; at most 1 can be told from six-hourly analyses, with its sine
            and cosine, and 0 fits one value for all hours.
    """

    annual: int
    daily: int

    def __post_init__(self) -> None:
        if self.annual < 0 or self.daily < 0:
            raise ValueError(f"expected harmonics ≥ 0, got {self.annual} annual and {self.daily} daily")

    @property
    def size(self) -> int:
        """Number of basis functions: (1 + 2 annual) × (1 + 2 daily)."""
        return (1 + 2 * self.annual) * (1 + 2 * self.daily)

    def values(self, times: np.ndarray) -> np.ndarray:
        """The functions at datetime64 times, shape (time, coefficient); the first is the constant 1."""
        times = np.asarray(times).astype("datetime64[ns]").reshape(-1)
        years = times.astype("datetime64[Y]")
        start = years.astype("datetime64[ns]")
        length = (years + np.timedelta64(1, "Y")).astype("datetime64[ns]") - start
        of_year = (times - start) / length
        days = times.astype("datetime64[D]")
        of_day = (times - days) / np.timedelta64(1, "D")
        annual, daily = _harmonics(of_year, self.annual), _harmonics(of_day, self.daily)
        return (annual[:, :, np.newaxis] * daily[:, np.newaxis, :]).reshape(times.size, self.size)


def _harmonics(phase: np.ndarray, count: int) -> np.ndarray:
    columns = [np.ones_like(phase)]
    for k in range(1, count + 1):
        columns += [np.cos(2 * np.pi * k * phase), np.sin(2 * np.pi * k * phase)]
    return np.stack(columns, axis=1)


@dataclass(frozen=True, kw_only=True)
class HarmonicSums:
    """What a piece of an archive contributes to the fit.

    Args:
        basis: the functions of time.
        gram: Σ_t B(t) B(t)ᵀ, float64, square.
        fields: Σ_t B(t) y(t), dims (coefficient, …), float64.
    """

    basis: HarmonicBasis
    gram: np.ndarray
    fields: xr.Dataset

    @classmethod
    def of(cls, block: xr.Dataset, basis: HarmonicBasis) -> HarmonicSums:
        """The sums of a block with dim ``time``; variables without time do not take part."""
        functions = basis.values(block.time.values)
        fields = _moving(block).map(_project, functions=functions)
        return cls(basis=basis, gram=functions.T @ functions, fields=fields)

    def combine(self, other: HarmonicSums) -> HarmonicSums:
        """The sums of both pieces together.

        Raises:
            ValueError: the pieces were gathered with different bases, or lie on different grids or levels.
        """
        if self.basis != other.basis:
            raise ValueError(f"basis: expected {self.basis} in both pieces, got {other.basis}")
        with xr.set_options(arithmetic_join="exact"):
            return HarmonicSums(
                basis=self.basis, gram=self.gram + other.gram, fields=self.fields + other.fields
            )

    def coefficients(self) -> xr.Dataset:
        """The least-squares fit, dims (coefficient, …), float32, with the basis in ``attrs``.

        Raises:
            ValueError: too few distinct times for that many harmonics.
        """
        if np.linalg.matrix_rank(self.gram) < self.basis.size:
            raise ValueError(
                f"{round(self.gram[0, 0])} times cannot tell {self.basis.size} harmonics apart: expected more"
            )
        inverse = np.linalg.inv(self.gram)
        fit = self.fields.map(lambda sums: sums.copy(data=np.tensordot(inverse, sums.values, axes=1)))
        return fit.astype(np.float32).assign_attrs(
            annual_harmonics=self.basis.annual, daily_harmonics=self.basis.daily, times=round(self.gram[0, 0])
        )


def squared_anomalies(block: xr.Dataset, mean: xr.Dataset) -> xr.Dataset:
    """(y(t) − fitted mean at t)² of the variables that have a time, dims as in the block."""
    expected = climatological_mean(mean, block.time.values)
    return _moving(block).map(lambda field: (field - expected[field.name].transpose(*field.dims).values) ** 2)


def assemble(mean: xr.Dataset, variance: xr.Dataset) -> xr.Dataset:
    """One Dataset of both fits, small enough to travel with a model.

    Args:
        mean: coefficients of the fields.
        variance: coefficients of their squared anomalies.

    Returns:
        The mean's variables, and the variance's with ``_variance`` appended to the name.
    """
    renamed = variance.rename({name: f"{name}{VARIANCE_SUFFIX}" for name in variance.data_vars})
    attrs = {f"variance_{name}": value for name, value in variance.attrs.items()}
    return xr.merge(
        [mean, renamed.rename({COEFFICIENT: VARIANCE_COEFFICIENT})], join="exact", combine_attrs="drop"
    ).assign_attrs(mean.attrs | attrs)


def climatological_mean(climatology: xr.Dataset, times: np.ndarray) -> xr.Dataset:
    """The mean of each variable at datetime64 times, dims (time, …), float32."""
    names = [name for name in climatology.data_vars if COEFFICIENT in climatology[name].dims]
    return _at(climatology[names], _basis(climatology, ""), times)


def climatological_spread(climatology: xr.Dataset, times: np.ndarray) -> xr.Dataset:
    """The standard deviation of each variable at datetime64 times, dims (time, …), float32.

    A fit of few harmonics can fall below 0 where variance comes in one season: the variance is taken as at
    least a tenth of its mean over the year.
    """
    names = {
        name: str(name).removesuffix(VARIANCE_SUFFIX)
        for name in climatology.data_vars
        if VARIANCE_COEFFICIENT in climatology[name].dims
    }
    variance = climatology[list(names)].rename({**names, VARIANCE_COEFFICIENT: COEFFICIENT})
    least = LEAST_SHARE_OF_VARIANCE * np.maximum(variance.isel({COEFFICIENT: 0}), 0.0)
    bounded = np.maximum(_at(variance, _basis(climatology, "variance_"), times), least)
    return cast(xr.Dataset, np.sqrt(bounded))


def _basis(climatology: xr.Dataset, prefix: str) -> HarmonicBasis:
    return HarmonicBasis(
        annual=int(climatology.attrs[f"{prefix}annual_harmonics"]),
        daily=int(climatology.attrs[f"{prefix}daily_harmonics"]),
    )


def _moving(block: xr.Dataset) -> xr.Dataset:
    return block[[name for name in block.data_vars if "time" in block[name].dims]]


def _at(coefficients: xr.Dataset, basis: HarmonicBasis, times: np.ndarray) -> xr.Dataset:
    functions = basis.values(times)
    times = np.asarray(times).astype("datetime64[ns]").reshape(-1)
    fields = {}
    for name, field in coefficients.data_vars.items():
        values = np.tensordot(functions, field.values.astype(np.float64), axes=1)
        fields[name] = (("time", *field.dims[1:]), values.astype(np.float32))
    return xr.Dataset(fields, coords={**coefficients.coords, "time": times})


def _project(field: xr.DataArray, *, functions: np.ndarray) -> xr.DataArray:
    ordered = field.transpose("time", ...)
    return xr.DataArray(
        np.tensordot(functions.T, ordered.values.astype(np.float64), axes=1),
        dims=(COEFFICIENT, *ordered.dims[1:]),
        coords={name: c for name, c in field.coords.items() if "time" not in c.dims and name != "time"},
    )
