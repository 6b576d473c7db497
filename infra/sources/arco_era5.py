"""ERA5 as an analysis-ready Zarr archive in the cloud (Google's ARCO-ERA5): hourly, 0.25°, 37 levels.

https://github.com/google-research/arco-era5. The archive is allocated ahead of its data: beyond the times its
attributes state it holds fill values, so such times are refused. Precipitation is hourly and summed here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from infra.errors import InvalidFieldError, MissingDataError
from infra.retry import RetryPolicy
from infra.sources.field_copies import write_copy
from infra.sources.raw_files import raw_file
from infra.sources.remote import provider_errors
from infra.sources.source import (
    AUXILIARY_VARIABLES,
    Availability,
    FieldRequest,
    RawFile,
    SourceKind,
    SourceOffer,
)
from model.times import numpy_time
from model.variables import COMPUTED_FORCINGS, LEVELS_37, STATICS, VARIABLES

ARCHIVE = "gs://gcp-public-data-arco-era5/ar/full_37-1h-0p25deg-chunk-1.zarr-v3"
_HOURLY_PRECIPITATION = "total_precipitation"
_SUMMED = {"total_precipitation_6hr": 6, "total_precipitation_12hr": 12}


@dataclass(frozen=True, kw_only=True)
class ArcoEra5:
    """An ERA5 Zarr archive with GraphCast's variable names and dims time, level, latitude, longitude.

    Args:
        name: as configured.
        root: URL of the Zarr group.
        preliminary: whether ERA5T (about a week behind, may still be corrected) is taken, or only final ERA5
            (about three months behind).
        options: fsspec storage options.
        retry: for opening the archive, and for every variable.
    """

    name: str = "arco-era5"
    kind: SourceKind = "era5"
    root: str = ARCHIVE
    preliminary: bool = True
    options: Mapping[str, Any] = field(default_factory=lambda: {"token": "anon"}, repr=False)
    retry: RetryPolicy = field(default_factory=RetryPolicy)

    def offers(self) -> SourceOffer:
        """All of ERA5 that the models take."""
        rule = "the sum of the hourly accumulations that end in the interval"
        direct = (frozenset(VARIABLES) | frozenset(AUXILIARY_VARIABLES)) - COMPUTED_FORCINGS
        return SourceOffer(
            direct=direct - frozenset(_SUMMED),
            derived={name: f"{rule} of {hours} h" for name, hours in _SUMMED.items()},
            levels=LEVELS_37,
        )

    def available(self, request: FieldRequest) -> Availability:
        """Whether the time lies within what the archive declares valid."""
        with self.retry.run(self._open) as archive:
            reason = self._refusal(archive, request)
        return Availability(complete=reason is None, missing=(reason,) if reason else (), source=self.root)

    def fetch(self, request: FieldRequest, folder: Path) -> tuple[RawFile, ...]:
        """One NetCDF file for each variable."""
        with self.retry.run(self._open) as archive:
            reason = self._refusal(archive, request)
            if reason is not None:
                raise MissingDataError(reason)
            experiment = self._experiment(archive, request.valid_time)
            return tuple(self._one(archive, request, name, experiment, folder) for name in request.variables)

    def _one(
        self, archive: xr.Dataset, request: FieldRequest, name: str, experiment: str, folder: Path
    ) -> RawFile:
        levels = "-".join(map(str, request.levels)) if name in request.on_levels else "surface"
        path = folder / f"{name}-{request.valid_time:%Y%m%dT%HZ}-{levels}-{experiment}.nc"
        url = f"{self.root}#{name}"
        if path.exists():  # written under a temporary name: what is there is whole
            return raw_file(path, "netcdf", url=url)
        fields = self.retry.run(lambda: self._read(archive, request, name))
        if not bool(np.isfinite(fields.values).any()):
            raise InvalidFieldError(f"{url} at {request.valid_time:%Y%m%dT%HZ}: nothing but fill values")
        dataset = fields.to_dataset(name=name)
        dataset.attrs = {"experiment": experiment}
        return write_copy(dataset, path, url=url)

    def _read(self, archive: xr.Dataset, request: FieldRequest, name: str) -> xr.DataArray:
        with provider_errors(f"{self.root}#{name}"):
            return self._values(archive, request, name)

    def _values(self, archive: xr.Dataset, request: FieldRequest, name: str) -> xr.DataArray:
        end = numpy_time(request.valid_time)
        hours = _SUMMED.get(name)
        array = archive[_HOURLY_PRECIPITATION if hours else name]
        if name in request.on_levels:
            array = array.sel(level=list(request.levels))
        try:
            if hours:
                ends = [end - np.timedelta64(hour, "h") for hour in range(hours)]
                total = array.sel(time=ends).load().sum("time", skipna=False)
                return total.expand_dims(time=[end]).assign_attrs(units="m")
            if "time" in array.dims:
                array = array.sel(time=[end])
                array = array.isel(time=0, drop=True) if name in STATICS else array
            return array.load()
        except KeyError as error:
            raise MissingDataError(f"{self.root}: {name} has no {error}") from error

    def _open(self) -> xr.Dataset:
        options = dict(self.options) if "://" in self.root else None
        with provider_errors(self.root):
            try:
                return xr.open_zarr(self.root, chunks=None, storage_options=options)
            except FileNotFoundError as error:
                raise MissingDataError(f"{self.root}: no Zarr archive there") from error

    def _refusal(self, archive: xr.Dataset, request: FieldRequest) -> str | None:
        start, final, preliminary = (
            _edge(archive, key) for key in ("valid_time_start", "valid_time_stop", "valid_time_stop_era5t")
        )
        stop = preliminary if self.preliminary and preliminary else final
        if stop is None:
            return f"{self.root}: expected the attribute valid_time_stop, which says where the data end"
        if request.valid_time >= stop + timedelta(days=1) or (start and request.valid_time < start):
            which = "ERA5T" if stop is preliminary else "final ERA5"
            return (
                f"{request.valid_time:%Y%m%dT%HZ} lies outside {which} in {self.root}: "
                f"{archive.attrs.get('valid_time_start', 'its start')} to {stop:%Y-%m-%d}"
            )
        names = {_HOURLY_PRECIPITATION if name in _SUMMED else name for name in request.variables}
        lacking = sorted(names - set(map(str, archive.data_vars)))
        return f"{self.root} lacks {', '.join(lacking)}" if lacking else None

    def _experiment(self, archive: xr.Dataset, valid_time: datetime) -> str:
        final = _edge(archive, "valid_time_stop")
        return "0001" if final and valid_time < final + timedelta(days=1) else "0005"


def _edge(archive: xr.Dataset, attribute: str) -> datetime | None:
    text = archive.attrs.get(attribute)
    return datetime.fromisoformat(str(text)[:10]).replace(tzinfo=UTC) if text else None
