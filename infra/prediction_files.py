"""Predictions as files in DeepMind's form, written field by field as the steps come, seen when they are whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

import h5netcdf
import numpy as np
import xarray as xr
import zarr

from infra.errors import StoreError
from model.grid import Grid
from model.task import TaskConfig
from model.variables import VARIABLES

SUFFIXES = (".nc", ".zarr")
"""What a file of predictions may end in."""

UNFINISHED = ".writing-"
"""Predictions that are being written have a name that begins so, beside the one they get in the end."""


def check_output(path: Path, *, suffixes: tuple[str, ...] = ()) -> None:
    """Whether a file can be written there, before anything is computed for it; with any ending if none is given.

    Raises:
        StoreError: the name ends otherwise, or its folder is not there or not writable.
    """
    if suffixes and path.suffix not in suffixes:
        raise StoreError(f"output: expected a name ending in {' or '.join(suffixes)}, got {path.name!r}")
    folder = path.absolute().parent
    if not folder.is_dir():
        raise StoreError(f"output {path}: expected a folder to write into, found none at {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StoreError(f"output {path}: folder {folder} cannot be written")


class PredictionFile(AbstractContextManager["PredictionFile"]):
    """A new file or store of predictions, dims (sample,) batch, time, (level,) lat, lon.

    Used as a context manager. It is written under a temporary name beside ``path``, which it gets when the block
    ends and every field was written; if the block fails, what was written is removed.

    Args:
        path: ending in ``.nc`` or ``.zarr``.
        task, grid: of the model.
        steps: how many will be written.
        members: how many; None without a dimension ``sample``.

    Raises:
        StoreError: another ending, or the place cannot be written.
    """

    def __init__(self, path: Path, *, task: TaskConfig, grid: Grid, steps: int, members: int | None) -> None:
        check_output(path, suffixes=SUFFIXES)
        self._path = path
        self._unfinished = path.with_name(f"{UNFINISHED}{path.name}")
        self._awaited = {(member, step) for member in range(members or 1) for step in range(steps)}
        self._members = members
        sizes = {} if members is None else {"sample": members}
        self._sizes = {
            **sizes,
            "batch": 1,
            "time": steps,
            "level": len(task.pressure_levels),
            "lat": grid.shape[0],
            "lon": grid.shape[1],
        }
        hours = int(task.step / timedelta(hours=1))
        coordinates: dict[str, np.ndarray] = {
            "time": np.arange(1, steps + 1) * hours,
            "level": np.array(task.pressure_levels, dtype=np.int32),
            "lat": grid.latitude,
            "lon": grid.longitude,
        }
        if members is not None:
            coordinates["sample"] = np.arange(members)
        try:
            if path.suffix == ".nc":
                self._file: Any = h5netcdf.File(self._unfinished, "w")
                self._file.dimensions = self._sizes
                self._create = self._create_netcdf
            else:
                self._file = zarr.open_group(str(self._unfinished), mode="w", zarr_format=3)
                self._create = self._create_zarr
        except OSError as error:
            raise StoreError(f"output {path}: cannot be written: {error}") from error
        for name, values in coordinates.items():
            # Lead times as xarray writes them: read back as timedelta64.
            attributes = {"units": "hours", "dtype": "timedelta64[ns]"} if name == "time" else {}
            self._create(name, (name,), values.dtype, attributes)[...] = values
        for name in task.target_variables:
            levels = ("level",) if VARIABLES[name].on_levels else ()
            dims = (*sizes, "batch", "time", *levels, "lat", "lon")
            self._create(name, dims, np.dtype(np.float32), {"units": VARIABLES[name].units})

    def write(self, fields: xr.Dataset, *, step: int, member: int = 0) -> None:
        """Write one member's fields of one step (from 0)."""
        place = (0, step) if self._members is None else (member, 0, step)
        for name, field in fields.data_vars.items():
            self._file[str(name)][place] = field.values
        self._awaited.discard((member, step))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(self._file, h5netcdf.File):
            self._file.close()
        if kind is not None:
            _remove(self._unfinished)
            return
        if self._awaited:
            member, step = min(self._awaited)
            raise StoreError(
                f"output {self._path}: {len(self._awaited)} steps were not written, first step {step} of "
                f"member {member}; what there is lies at {self._unfinished}"
            )
        try:
            if self._path.is_dir():
                _remove(self._path)
            self._unfinished.replace(self._path)
        except OSError as error:
            raise StoreError(f"output {self._path}: cannot be written: {error}") from error

    def _create_netcdf(
        self, name: str, dims: tuple[str, ...], dtype: np.dtype, attributes: Mapping[str, str]
    ) -> Any:
        variable = self._file.create_variable(name, dims, dtype, chunks=self._chunks(dims))
        variable.attrs.update(attributes)
        return variable

    def _create_zarr(
        self, name: str, dims: tuple[str, ...], dtype: np.dtype, attributes: Mapping[str, str]
    ) -> Any:
        return self._file.create_array(
            name,
            shape=tuple(self._sizes[dim] for dim in dims),
            chunks=self._chunks(dims),
            dtype=dtype,
            dimension_names=dims,
            attributes=dict(attributes),
        )

    def _chunks(self, dims: tuple[str, ...]) -> tuple[int, ...]:
        if len(dims) == 1:
            return (self._sizes[dims[0]],)
        return tuple(1 if dim in ("sample", "batch", "time") else self._sizes[dim] for dim in dims)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
