"""DeepMind's example datasets: ``source-{era5|hres}_date-…_res-…_levels-…_steps-….nc``.

Dimensions ``batch, time, level, lat, lon`` with a ``datetime`` coordinate; statics without time. Solar
radiation that such a file carries is taken at its word.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC
from functools import cached_property
from pathlib import Path
from typing import get_args

import pandas as pd
import xarray as xr

from infra.errors import MissingDataError
from infra.field_files import read_fields
from infra.sources.field_copies import write_copy
from infra.sources.source import Availability, FieldRequest, RawFile, SourceKind, SourceOffer


@dataclass(frozen=True, kw_only=True)
class DeepMindDataset:
    """One example file as a source of the times it holds.

    Args:
        name: as configured.
        path: of the file.
        kind: default: as the file's name says (``source-era5_…``).
    """

    path: Path
    name: str = "deepmind"
    kind: SourceKind = "era5"

    @classmethod
    def from_name(cls, path: Path, *, name: str = "deepmind") -> DeepMindDataset:
        """The kind of analyses from the published file name; ERA5 if it does not say."""
        said = re.match(r"source-([a-z0-9]+)_", path.name)
        kinds = {str(kind): kind for kind in get_args(SourceKind)}
        return cls(path=path, name=name, kind=kinds.get(said[1] if said else "era5", "era5"))

    def offers(self) -> SourceOffer:
        """What is in the file."""
        levels = self._fields["level"].values.tolist() if "level" in self._fields.coords else []
        return SourceOffer(direct=frozenset(map(str, self._fields.data_vars)), levels=tuple(levels))

    def available(self, request: FieldRequest) -> Availability:
        """Whether the file has the time, the variables and the levels."""
        missing = list(self.offers().lacks(request))
        if "time" not in self._fields[self._held(request)].dims:
            return Availability(complete=not missing, missing=tuple(missing), source=str(self.path))
        times = [stamp.replace(tzinfo=UTC) for stamp in pd.DatetimeIndex(self._fields["time"].values)]
        if request.valid_time not in times:
            span = f"{times[0]:%Y%m%dT%HZ} to {times[-1]:%Y%m%dT%HZ}"
            missing.append(f"{request.valid_time:%Y%m%dT%HZ}: the file has {span}")
        return Availability(complete=not missing, missing=tuple(missing), source=str(self.path))

    def fetch(self, request: FieldRequest, folder: Path) -> tuple[RawFile, ...]:
        """A copy of that time."""
        availability = self.available(request)
        if not availability.complete:
            raise MissingDataError(f"{self.path}: {'; '.join(availability.missing)}")
        fields = self._fields[self._held(request)]
        if "time" in fields.dims:
            fields = fields.sel(time=[pd.Timestamp(request.valid_time).tz_localize(None)])
        if request.on_levels:
            fields = fields.sel(level=list(request.levels))
        return (write_copy(fields, folder / f"{self.path.stem}-{request.digest}.nc", url=str(self.path)),)

    def _held(self, request: FieldRequest) -> list[str]:
        return [name for name in request.variables if name in self._fields]

    @cached_property
    def _fields(self) -> xr.Dataset:
        return read_fields(self.path, "netcdf")
