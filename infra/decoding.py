"""Raw files of any source to one Dataset in canonical names and units, on the source's own grid.

GRIB is decoded in a child process. ecCodes ends the program where an internal assertion fails on a damaged
message, and the decompressors under it may do worse; a worker must outlive that and say which file it was.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from infra.errors import InvalidFieldError, MissingDataError
from infra.field_files import read_fields
from infra.grib import decode
from infra.grib_program import INVALID_FIELD
from infra.interpolation import upright
from infra.settings import child_environment
from infra.sources.source import FieldRequest, RawFile
from model.grid import Grid
from model.times import numpy_time

DECODE_TIMEOUT_SECONDS = 900.0


def decode_isolated(
    paths: Path | str | Iterable[Path | str],
    *,
    variables: Collection[str] | None = None,
    levels: Collection[int] | None = None,
    valid_times: Collection[datetime] | None = None,
    spectral_grid: Grid | None = None,
    keep_unknown: bool = False,
    timeout: float = DECODE_TIMEOUT_SECONDS,
) -> xr.Dataset:
    """``infra.grib.decode`` in a child process: the same arguments and result, in memory.

    Args:
        paths, variables, levels, valid_times, keep_unknown: as there.
        spectral_grid: where spherical harmonics are evaluated; without it they are refused.
        timeout: seconds until the child is ended; there is damage that makes ecCodes count for hours.

    Raises:
        InvalidFieldError: as there; also where the child died or did not end, with what it said last.
    """
    files = [Path(paths)] if isinstance(paths, (str, Path)) else [Path(path) for path in paths]
    with tempfile.TemporaryDirectory(prefix="foldcast-decode-") as folder:
        out = Path(folder, "fields.nc")
        request = {
            "paths": [str(path.absolute()) for path in files],
            "variables": None if variables is None else sorted(variables),
            "levels": None if levels is None else sorted(map(int, levels)),
            "valid_times": None if valid_times is None else [time.isoformat() for time in valid_times],
            "spectral_grid": None if spectral_grid is None else spectral_grid.resolution,
            "keep_unknown": keep_unknown,
            "out": str(out),
        }
        more = f" and {len(files) - 3} more" if len(files) > 3 else ""
        names = ", ".join(map(str, files[:3])) + more
        try:
            finished = subprocess.run(
                [sys.executable, "-m", "infra.grib_program"],
                input=json.dumps(request),
                env=child_environment(PYTHONPATH=str(Path(__file__).resolve().parent.parent)),
                capture_output=True,
                text=True,
                check=False,
                timeout=timeout,
            )
        except subprocess.TimeoutExpired as error:
            raise InvalidFieldError(
                f"{names}: the decoder did not end within {timeout:g} s: a damaged message, or a stalled disk"
            ) from error
        lines = [line for line in finished.stderr.splitlines() if line.strip()]
        last = lines[-1] if lines else "nothing"
        if finished.returncode == INVALID_FIELD:
            raise InvalidFieldError(last)
        if finished.returncode != 0 or not out.exists():
            raise InvalidFieldError(
                f"{names}: the decoder died on a damaged message (status {finished.returncode}); "
                f"it said: {last}"
            )
        with xr.open_dataset(out, engine="h5netcdf") as dataset:
            return dataset.load()


def decode_files(
    files: Sequence[RawFile], request: FieldRequest, *, grid: Grid, trusted: bool = False
) -> xr.Dataset:
    """All of a request from the raw files of one fetch.

    Args:
        files: what ``Source.fetch`` returned.
        request: what must come out.
        grid: where spherical harmonics, should there be any, are evaluated.
        trusted: GRIB is decoded in this process; for files that Foldcast wrote itself.

    Returns:
        float32 Dataset of exactly the requested variables and levels at the requested time (``time`` of size
        1), on the source's grid; statics without time. ``attrs["messages"]`` (JSON): every raw message's
        sha256 and experiment version.

    Raises:
        MissingDataError: a variable or level did not come; names each.
        InvalidFieldError: a file is damaged, or the files lie on different grids.
    """
    parts = []
    grib = [file.path for file in files if file.format == "grib"]
    if grib:
        wanted: dict[str, Any] = {
            "variables": request.variables,
            "levels": request.levels or None,
            "valid_times": [request.valid_time],
        }
        if trusted:
            parts.append(decode(grib, **wanted))
        else:
            parts.append(decode_isolated(grib, **wanted, spectral_grid=grid))
    for file in files:
        if file.format != "grib":
            fields = read_fields(file.path, file.format, valid_time=request.valid_time)
            if not fields.data_vars:  # of another time
                continue
            fields = upright(fields)
            entry = {
                "field": file.path.name,
                "valid_time": f"{request.valid_time:%Y%m%dT%HZ}",
                "experiment": fields.attrs.get("experiment", ""),
                "sha256": file.sha256[0],
            }
            parts.append(fields.assign_attrs(messages=json.dumps([entry])))
    requested = [_requested(part, request) for part in parts]
    return _merged([part for part in requested if part.data_vars], request)


def _requested(part: xr.Dataset, request: FieldRequest) -> xr.Dataset:
    part = part[[name for name in part.data_vars if name in request.variables]]
    if "time" in part.dims:
        wanted = numpy_time(request.valid_time)
        found = np.flatnonzero(part["time"].values == wanted)
        part = part.isel(time=found) if found.size else part.drop_dims("time")
    if "level" in part.dims:
        part = part.sel(level=[level for level in request.levels if level in part["level"].values])
    return part


def _merged(parts: Sequence[xr.Dataset], request: FieldRequest) -> xr.Dataset:
    stamp = f"{request.valid_time:%Y%m%dT%HZ}"
    missing = []
    for name in request.variables:
        holders = [part[name] for part in parts if name in part]
        if not holders:
            missing.append(name)
        elif name in request.on_levels:
            have = {level for array in holders for level in np.atleast_1d(array["level"].values).tolist()}
            missing += [f"{name} at {level} hPa" for level in request.levels if level not in have]
    absent = [entry for part in parts for entry in json.loads(part.attrs.get("absent", "[]"))]
    missing += [entry for entry in absent if entry.split(" at ")[0].split(",")[0] in request.variables]
    if missing:
        raise MissingDataError(
            f"valid {stamp}: expected {len(request.variables)} variables on {len(request.levels)} levels; "
            f"missing {', '.join(missing)}"
        )
    merged = _merge_on_one_grid(parts, stamp)
    messages = [entry for part in parts for entry in json.loads(part.attrs.get("messages", "[]"))]
    merged.attrs = {"grid": parts[0].attrs.get("grid", ""), "messages": json.dumps(messages)}
    return merged[list(request.variables)].astype(np.float32)


def _merge_on_one_grid(parts: Sequence[xr.Dataset], stamp: str) -> xr.Dataset:
    first = parts[0]
    aligned = []
    for part in parts:
        for name in ("latitude", "longitude"):
            ours, theirs = first[name].values, part[name].values
            if ours.shape != theirs.shape or np.abs(ours - theirs).max() > 1e-3:
                raise InvalidFieldError(
                    f"files of {stamp} lie on different grids: {name} has {ours.size} values "
                    f"{ours[0]:g}…{ours[-1]:g} in one and {theirs.size} values "
                    f"{theirs[0]:g}…{theirs[-1]:g} in another"
                )
        coordinates = {name: (part[name].dims, first[name].values) for name in ("latitude", "longitude")}
        aligned.append(part.assign_coords(coordinates).drop_attrs(deep=False))
    try:
        return xr.merge(aligned, compat="no_conflicts", join="outer")
    except (ValueError, xr.MergeError) as error:
        raise InvalidFieldError(f"files of {stamp} contradict each other: {error}") from error
