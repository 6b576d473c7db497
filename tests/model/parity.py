"""The parity cases: published-form files with what DeepMind's implementation (v0.2, float32) made of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from model.deepmind_format import Example, read_example
from model.normalization import Statistics


@dataclass(frozen=True, kw_only=True)
class ParityCase:
    """One case in memory."""

    folder: Path
    statistics: Statistics
    example: Example
    predictions: xr.Dataset

    @property
    def params(self) -> Path:
        """Its params file."""
        return self.folder / "params.npz"

    def deviation(self, fields: xr.Dataset, *, step: int, member: int = 0) -> float:
        """Largest difference to the reference, in units of the spread of differences."""
        expected = self.predictions.isel(time=step, batch=0)
        if "sample" in expected.dims:
            expected = expected.isel(sample=member)
        expected = expected.rename(lat="latitude", lon="longitude")
        worst = 0.0
        for name, field in expected.data_vars.items():
            got = fields[name]
            assert (np.isnan(got.values) == np.isnan(field.transpose(*got.dims).values)).all(), name
            worst = max(worst, float((abs(got - field) / self.statistics.diffs_stddev[name]).max()))
        return worst


def load_case(folder: Path) -> ParityCase:
    """Read a case."""

    def load(name: str) -> xr.Dataset:
        return xr.load_dataset(folder / f"{name}.nc", decode_timedelta=True)

    minimum = folder / "min_by_level.nc"
    return ParityCase(
        folder=folder,
        statistics=Statistics(
            mean=load("mean_by_level"),
            stddev=load("stddev_by_level"),
            diffs_stddev=load("diffs_stddev_by_level"),
            minimum=xr.load_dataset(minimum) if minimum.is_file() else None,
        ),
        example=read_example(load("dataset")),
        predictions=load("predictions"),
    )
