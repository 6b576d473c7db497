"""What a model needs to know about an archive of analyses: normalisation statistics and a climatology.

Both stream: an archive comes as blocks of consecutive times (any source, any resolution) and is never in
memory at once. The files have DeepMind's layout (``mean_by_level.nc`` and so on), one folder per model
family, since GraphCast's differences span 6 h and GenCast's 12 h.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import xarray as xr

from model.diagnostics.climatology import (
    VARIANCE_SUFFIX,
    HarmonicBasis,
    HarmonicSums,
    assemble,
    squared_anomalies,
)
from model.diagnostics.running_statistics import ArchiveStatistics, accumulate
from model.forcings import forcing_fields
from model.grid import Grid
from model.normalization import TIMESTEP_HOURS
from model.times import aware_time
from model.variables import COMPUTED_FORCINGS

SIX_HOURS, TWELVE_HOURS = timedelta(hours=6), timedelta(hours=12)
FAMILIES = {"graphcast": SIX_HOURS, "gencast": TWELVE_HOURS}
"""Time over which each family's differences are taken: its step."""

Blocks = Callable[[], Iterable[xr.Dataset]]
"""Gives an archive from its start, as often as it is called."""

_NOT_IN_FAMILY = {"graphcast": "total_precipitation_12hr", "gencast": "total_precipitation_6hr"}


def archive_statistics(blocks: Iterable[xr.Dataset], grid: Grid) -> ArchiveStatistics:
    """Statistics over six-hourly analyses, the computed forcings and 12 h precipitation among them.

    Args:
        blocks: in order of time, dims (time, [level,] latitude, longitude), on the grid.
        grid: the model's, on which forcings are computed.
    """
    return accumulate(with_forcings(with_twelve_hour_precipitation(blocks), grid), (SIX_HOURS, TWELVE_HOURS))


def fit_climatology(blocks: Blocks, *, mean: HarmonicBasis, variance: HarmonicBasis) -> xr.Dataset:
    """Harmonic climatology of an archive, read twice: for the mean, then for the variance around it."""
    mean_fit = _fit(HarmonicSums.of(block, mean) for block in blocks())
    return assemble(
        mean_fit, _fit(HarmonicSums.of(squared_anomalies(block, mean_fit), variance) for block in blocks())
    )


def with_twelve_hour_precipitation(blocks: Iterable[xr.Dataset]) -> Iterator[xr.Dataset]:
    """Each block with ``total_precipitation_12hr``, the sum of two successive six-hour amounts.

    It is NaN where the amount six hours before is not in the archive.
    """
    before: xr.DataArray | None = None
    for block in blocks:
        six = block["total_precipitation_6hr"]
        known = six if before is None else xr.concat([before, six], dim="time", join="exact")
        earlier = known.reindex(time=block.time.values - np.timedelta64(6, "h"))
        yield block.assign(total_precipitation_12hr=six + earlier.values)
        before = six.isel(time=slice(-1, None))


def with_forcings(blocks: Iterable[xr.Dataset], grid: Grid) -> Iterator[xr.Dataset]:
    """Each block with the forcings computed from its times and the grid."""
    names = sorted(COMPUTED_FORCINGS)
    for block in blocks:
        fields = [forcing_fields(names, aware_time(time), grid) for time in block.time.values]
        dims = ("time", "latitude", "longitude")
        yield block.assign({name: (dims, np.stack([f[name] for f in fields])) for name in names})


def write_statistics(statistics: ArchiveStatistics, folder: Path) -> tuple[Path, ...]:
    """Write ``{family}_stats/{mean,stddev,diffs_stddev[,min]}_by_level.nc`` below a folder."""
    written = []
    for family, interval in FAMILIES.items():
        datasets = {
            "mean": statistics.mean(),
            "stddev": statistics.standard_deviation(),
            "diffs_stddev": statistics.difference_standard_deviation(interval),
        }
        if family == "gencast":
            datasets["min"] = statistics.minimum()
        target = folder / f"{family}_stats"
        target.mkdir(parents=True, exist_ok=True)
        for name, dataset in datasets.items():
            path = target / f"{name}_by_level.nc"
            kept = dataset.drop_vars(_NOT_IN_FAMILY[family], errors="ignore")
            kept.assign_attrs({TIMESTEP_HOURS: interval // timedelta(hours=1)}).to_netcdf(
                path, engine="h5netcdf"
            )
            written.append(path)
    return tuple(written)


def write_climatology(climatology: xr.Dataset, path: Path) -> None:
    """Write a climatology as compressed NetCDF, its coefficients rounded to what they are worth.

    Means keep 15 bits of their mantissa (2⁻¹⁶ of the value: 4 mK, 3 m² s⁻² at 50 hPa), variances 7.
    """
    rounded = {
        name: _rounded(field, keep=7 if str(name).endswith(VARIANCE_SUFFIX) else 15)
        for name, field in climatology.data_vars.items()
    }
    encoding = {
        str(name): {"compression": "gzip", "compression_opts": 9, "shuffle": True} for name in rounded
    }
    climatology.assign(rounded).to_netcdf(path, engine="h5netcdf", encoding=encoding)


def _rounded(field: xr.DataArray, *, keep: int) -> xr.DataArray:
    """Float32 values rounded to the nearest with so many mantissa bits (of 23)."""
    dropped = 23 - keep
    bits = field.values.astype(np.float32).view(np.uint32)
    rounded = (bits + np.uint32(1 << (dropped - 1))) & np.uint32(0xFFFFFFFF << dropped & 0xFFFFFFFF)
    return field.copy(data=np.where(np.isfinite(field.values), rounded.view(np.float32), field.values))


def _fit(pieces: Iterator[HarmonicSums]) -> xr.Dataset:
    total = next(pieces)
    for piece in pieces:
        total = total.combine(piece)
    return total.coefficients()
