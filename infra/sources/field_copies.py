"""Exact copies of a few fields out of large arrays, one NetCDF file each, for sources that are no files."""

from __future__ import annotations

from pathlib import Path

import xarray as xr

from infra.sources.raw_files import raw_file
from infra.sources.source import RawFile
from infra.whole_files import whole_when_done


def write_copy(dataset: xr.Dataset, path: Path, *, url: str) -> RawFile:
    """Write fields under a temporary name and rename: a file under its final name is whole."""
    for variable in dataset.variables.values():
        variable.encoding.clear()  # the archive's chunks and filters are not this file's
    with whole_when_done(path) as temporary:
        dataset.to_netcdf(temporary, engine="h5netcdf")
    return raw_file(path, "netcdf", url=url)
