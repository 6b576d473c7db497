"""Predictions as files in DeepMind's form, written field by field as the steps come."""

from __future__ import annotations

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


class PredictionFile(AbstractContextManager["PredictionFile"]):
    """A new file or store of predictions, dims (sample,) batch, time, (level,) lat, lon.

    Args:
        path: ending in ``.nc`` or ``.zarr``.
        task, grid: of the model.
        steps: how many will be written.
        members: how many; None without a dimension ``sample``.

    Raises:
        StoreError: another ending, or the place cannot be written.
    """

    def __init__(self, path: Path, *, task: TaskConfig, grid: Grid, steps: int, members: int | None) -> None:
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
                self._file: Any = h5netcdf.File(path, "w")
                self._file.dimensions = self._sizes
                self._create = self._create_netcdf
            elif path.suffix == ".zarr":
                self._file = zarr.open_group(str(path), mode="w", zarr_format=3)
                self._create = self._create_zarr
            else:
                raise StoreError(f"output: expected a name ending in .nc or .zarr, got {path.name!r}")
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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(self._file, h5netcdf.File):
            self._file.close()

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
