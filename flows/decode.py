"""The ingest steps on their own: ``foldcast decode`` and ``foldcast regrid``."""

from __future__ import annotations

import json
from pathlib import Path

import xarray as xr

from infra.decoding import decode_isolated
from infra.errors import InvalidFieldError, UnknownOptionError
from infra.field_files import read_fields
from infra.interpolation import Method, regrid
from infra.object_store import ObjectStore
from infra.terminal import FoldingTable, command_console
from infra.version import code_version
from model.grid import Grid


def decode_file(source: Path, out: Path, *, spectral_resolution: float | None = None) -> xr.Dataset:
    """GRIB of either edition to NetCDF (or Zarr) in canonical names, units and order, on its own grid.

    Args:
        source: GRIB file.
        out: ``.nc`` or ``.zarr``; written under a temporary name and renamed.
        spectral_resolution: degrees of the regular grid that spherical harmonics are evaluated on.

    Returns:
        What was written: our variables, and parameters unknown to us under ecCodes' names.

    Raises:
        InvalidFieldError: not a GRIB file, or a damaged one; says where.
        UnknownOptionError: ``out`` ends in something else.
    """
    _check_out(out)
    grid = None if spectral_resolution is None else Grid(resolution=spectral_resolution)
    dataset = decode_isolated(_existing(source), spectral_grid=grid, keep_unknown=True)
    return _written(dataset, source, out)


def regrid_file(
    source: Path, out: Path, *, resolution: float, method: Method = "auto", cache: Path | None = None
) -> xr.Dataset:
    """Bring a GRIB, NetCDF or Zarr file to a regular grid with both poles.

    Args:
        source: the file; NetCDF and Zarr in any of the known naming conventions.
        out: ``.nc`` or ``.zarr``.
        resolution: degrees; must divide 180.
        method: ``auto``, ``subset``, ``linear``, ``conservative`` or ``nearest``.
        cache: folder that keeps interpolation weights.

    Raises:
        InvalidFieldError: the file is damaged, or its grid is not understood.
        UnknownOptionError: no such method, or ``out`` ends in something else.
        ValueError: the resolution does not divide 180.
    """
    _check_out(out)
    grid = Grid(resolution=resolution)
    path = _existing(source)
    if path.suffix in (".nc", ".nc4"):
        fields = read_fields(path, "netcdf")
    elif path.suffix == ".zarr":
        fields = read_fields(path, "zarr")
    else:
        fields = decode_isolated(path, spectral_grid=grid, keep_unknown=True)
    return _written(regrid(fields, grid, method=method, cache=cache), source, out)


def _existing(path: Path) -> Path:
    if not path.exists():
        raise InvalidFieldError(f"{path}: no such file")
    return path


def _check_out(out: Path) -> None:
    if out.suffix not in (".nc", ".zarr"):
        raise UnknownOptionError(f"{out}: expected a name ending in .nc or .zarr")


def _written(dataset: xr.Dataset, source: Path, out: Path) -> xr.Dataset:
    dataset.attrs |= {"Conventions": "CF-1.11", "source": str(source), "code_version": code_version()}
    store = ObjectStore(root=str(out.absolute().parent))
    if out.suffix == ".zarr":
        store.delete(f"{out.name}/")
        dataset.to_zarr(store.zarr(out.name), mode="w", consolidated=True)
    else:
        store.write(out.name, bytes(dataset.to_netcdf(engine="h5netcdf")))
    return dataset


def describe(dataset: xr.Dataset) -> list[tuple[str, str, str, str]]:
    """Rows (variable, dims, units, range) for a table of what was written."""
    rows = []
    for name, array in sorted(dataset.data_vars.items(), key=lambda item: str(item[0])):
        sizes = " × ".join(f"{size} {dim}" for dim, size in array.sizes.items())
        span = f"{float(array.min()):.6g} … {float(array.max()):.6g}"
        rows.append((str(name), sizes, str(array.attrs.get("units", "")), span))
    return rows


def absent_fields(dataset: xr.Dataset) -> list[str]:
    """Combinations of variable, level and time for which a GRIB file had no message (NaN in the result)."""
    return list(json.loads(dataset.attrs.get("absent", "[]")))


def print_summary(dataset: xr.Dataset, out: Path) -> None:
    """Say on the terminal what was written, and what the file lacked."""
    table = FoldingTable("variable", "dimensions", "units", "range", title=str(out))
    for row in describe(dataset):
        table.add_row(*row)
    console = command_console()
    console.print(table)
    absent = absent_fields(dataset)
    if absent:
        shown = "; ".join(absent[:5]) + ("; …" if len(absent) > 5 else "")
        console.print(f"no message for {len(absent)} combinations (NaN): {shown}", markup=False)
