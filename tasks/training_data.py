"""A nature run's archive as what models are trained on: a Zarr store on the model's grid."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import xarray as xr

from infra.interpolation import regrid
from infra.nature_run.archive import AnalysisArchive
from model.grid import Grid
from model.variables import STATICS


def write_training_store(
    archive: AnalysisArchive,
    path: Path,
    grid: Grid,
    *,
    start: datetime,
    end: datetime,
    cache: Path | None = None,
) -> Path:
    """Regrid an archive as ingest does and store it for ``infra.training_archive``; one block is in memory at once.

    An existing store is replaced.

    Args:
        archive: six-hourly analyses.
        path: of the Zarr store.
        start, end: period, the end not included.
        cache: folder for regridding weights.

    Raises:
        MissingDataError: the archive has no analyses in the period.
    """
    statics = archive.statics()
    written = False
    for block in archive.blocks(start, end):
        fields = regrid(
            block.merge(statics, combine_attrs="override", join="override"),
            grid,
            method="linear",
            cache=cache,
        )
        fields = fields.drop_attrs()
        if written:
            _append(fields, path)
        else:
            fields.to_zarr(path, mode="w", consolidated=False)
        written = True
    return path


def _append(fields: xr.Dataset, path: Path) -> None:
    moving = fields.drop_vars([name for name in fields.data_vars if name in STATICS])
    moving.to_zarr(path, mode="a", append_dim="time", consolidated=False)
