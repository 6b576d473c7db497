"""Exact copies of a few fields out of large arrays, one NetCDF file each, for sources that are no files."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import xarray as xr

from infra.sources.raw_files import raw_file
from infra.sources.source import RawFile


def write_copy(dataset: xr.Dataset, path: Path, *, url: str) -> RawFile:
    """Write fields under a temporary name and rename: a file under its final name is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".writing-{uuid.uuid4().hex}")
    for variable in dataset.variables.values():
        variable.encoding.clear()  # the archive's chunks and filters are not this file's
    try:
        dataset.to_netcdf(temporary, engine="h5netcdf")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return raw_file(path, "netcdf", url=url)
