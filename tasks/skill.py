"""The skill of a params file: forecasts from many dates, scored, and a long one watched for stability."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from infra.demo import RESOLUTION, bundled
from infra.errors import MissingDataError
from infra.grib import decode
from infra.interpolation import regrid
from model.checkpoint_file import CheckpointFile, read_checkpoint
from model.grid import Grid
from model.networks import checkpoint_grid
from model.training.evaluation import evaluate, make_forecast
from model.training.examples import AnalysisSeries
from tasks.training import build_family, read_series, series_of


@dataclass(frozen=True, kw_only=True)
class Stability:
    """A long forecast's fields, summed up.

    Args:
        finite: whether every value is finite.
        global_means: area means by field label, (first, last) lead time.
        small_scale_ratio: by field label, variance in zonal wave numbers 10 and above at the end over that of
            the analyses; 1 is right, below 1 the fields are too smooth, far above 1 they are noise.
    """

    finite: bool
    global_means: dict[str, tuple[float, float]]
    small_scale_ratio: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class ModelUnderTest:
    """A params file with the analyses to forecast.

    Args:
        checkpoint: read.
        statistics: folder of its normalisation statistics.
        series: analyses; examples of it are starts.
        climatology: harmonic climatology, or None.
    """

    checkpoint: CheckpointFile
    statistics: Path
    series: AnalysisSeries
    climatology: xr.Dataset | None

    @classmethod
    def read(
        cls,
        params: Path,
        statistics: Path,
        *,
        archive: Path | None = None,
        climatology: Path | None = None,
        resolution: float = RESOLUTION,
    ) -> ModelUnderTest:
        """Read everything; without an archive the bundled analyses serve.

        Raises:
            FoldcastError: something is missing or does not fit.
        """
        if not params.is_file():
            raise MissingDataError(f"{params}: expected a params file, found none")
        checkpoint = read_checkpoint(params.read_bytes(), name=params.name)
        grid = checkpoint_grid(checkpoint, Grid(resolution=resolution))
        if archive is None:
            series = series_of(bundled_analyses(grid), checkpoint.task, grid, name="bundled analyses")
        else:
            series = read_series(archive, checkpoint.task, grid, in_memory=True)
        usual = None
        if climatology is not None:
            with xr.open_dataset(climatology, engine="h5netcdf") as opened:
                usual = opened.load()
        return cls(checkpoint=checkpoint, statistics=statistics, series=series, climatology=usual)

    def scores(
        self, variables: tuple[str, ...], *, lead: timedelta, starts: int, members: int = 1, seed: int = 0
    ) -> xr.Dataset:
        """Scores up to a lead time of forecasts from evenly spread dates, as many as there are up to ``starts``."""
        steps = lead // self.checkpoint.task.step
        family, _ = build_family(self.checkpoint, self.series.grid, self.statistics, self.series.statics)
        count = self.series.count(steps)
        if count < 1:
            raise MissingDataError(
                f"analyses: expected more than {lead}, got {self.series.times[0]} to {self.series.times[-1]}"
            )
        params = jax.tree.map(jnp.asarray, self.checkpoint.params)
        return evaluate(
            make_forecast(family, variables, steps=steps),
            params,
            self.series,
            np.unique(np.linspace(0, count - 1, starts).astype(int)).tolist(),
            variables,
            steps=steps,
            members=members,
            seed=seed,
            climatology=self.climatology,
        )

    def stability(self, variables: tuple[str, ...], *, lead: timedelta, seed: int = 0) -> Stability:
        """One forecast from the first date over a long time; no truth is needed, the forcings go on."""
        steps = lead // self.checkpoint.task.step
        family, _ = build_family(self.checkpoint, self.series.grid, self.statistics, self.series.statics)
        frames, forcings = self.series.start(0, steps)
        fields = make_forecast(family, variables, steps=steps)(
            jax.tree.map(jnp.asarray, self.checkpoint.params),
            {name: jnp.asarray(field) for name, field in frames.items()},
            {name: jnp.asarray(field) for name, field in forcings.items()},
            jax.random.PRNGKey(seed)[None],
        )
        weights = self.series.grid.area_weights()[:, None] / self.series.grid.shape[1]
        means, ratios, finite = {}, {}, True
        for label, forecast, truth in _by_level(self.series, variables, fields):
            finite &= _finite_where_known(forecast, truth)
            first, last = (float((forecast[at] * weights).sum()) for at in (0, -1))
            means[label] = (first, last)
            ratios[label] = _small_scale_variance(forecast[-1:]) / _small_scale_variance(truth)
        return Stability(finite=finite, global_means=means, small_scale_ratio=ratios)


def bundled_analyses(grid: Grid) -> xr.Dataset:
    """The analyses that come with the package, as ingest makes them of the GRIB files."""
    files = sorted(bundled("analyses").rglob("*.grib2"))
    return regrid(decode(files), grid)


def _by_level(
    series: AnalysisSeries, variables: Iterable[str], fields: dict[str, jax.Array]
) -> Iterable[tuple[str, np.ndarray, np.ndarray]]:
    """Label, forecast (lead time, latitude, longitude) and analyses (time, …) of each field."""
    for name in variables:
        forecast, truth = np.asarray(fields[name])[0], np.asarray(series.fields[name])
        if forecast.ndim == 3:
            yield name, forecast, truth
            continue
        for index, level in enumerate(series.task.pressure_levels):
            yield f"{name} {level}", forecast[:, index], truth[:, index]


def _small_scale_variance(fields: np.ndarray) -> float:
    """Variance in zonal wave numbers from 10 on, between 60° S and 60° N."""
    rows = fields.shape[-2]
    band = fields[..., rows // 6 : rows - rows // 6, :]
    spectrum = np.abs(np.fft.rfft(np.nan_to_num(band), axis=-1)) ** 2
    return float(spectrum[..., 10:].sum(axis=-1).mean())


def _finite_where_known(forecast: np.ndarray, truth: np.ndarray) -> bool:
    """Whether a forecast has values wherever the analyses have them (sea surface temperature: at sea)."""
    known = ~np.isnan(truth).any(axis=0)
    return bool(np.isfinite(forecast[:, known]).all())
