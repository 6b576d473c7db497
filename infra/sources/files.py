"""Analyses in files of one's own: GRIB 1 and 2, NetCDF or Zarr below a folder or an object-store prefix.

Wherever they lie, only what describes the fields is read to see what a file holds, and then the messages and
arrays that are wanted.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import fsspec
import xarray as xr
from fsspec.implementations.local import LocalFileSystem

from infra.accumulation import RunInterval, combine_runs
from infra.errors import FoldcastError, InvalidFieldError, MissingDataError
from infra.field_files import canonical, contents, opened
from infra.grib_field import Header
from infra.grib_headers import HeaderReader, header_reader
from infra.grib_messages import check_message, fields
from infra.grib_parameters import ACCUMULATED_PRECIPITATION, RELATIVE_HUMIDITY
from infra.humidity import HUMIDITY_RULE
from infra.object_store import ObjectStore
from infra.retry import RetryPolicy
from infra.sources.field_copies import write_copy
from infra.sources.grib_outlines import outlines
from infra.sources.range_file import RangeFile
from infra.sources.remote import FilesystemRemote, provider_errors
from infra.sources.source import (
    AUXILIARY_VARIABLES,
    Availability,
    FieldRequest,
    RawFile,
    RawFormat,
    SourceKind,
    SourceOffer,
)
from infra.whole_files import whole_when_done
from model.variables import COMPUTED_FORCINGS, LEVELS_13, LEVELS_37, STATICS, VARIABLES

_SUFFIXES: dict[str, RawFormat] = {
    ".grib": "grib",
    ".grib1": "grib",
    ".grib2": "grib",
    ".grb": "grib",
    ".grb2": "grib",
    ".nc": "netcdf",
    ".nc4": "netcdf",
    ".zarr": "zarr",
}
_LONGEST_ACCUMULATION = timedelta(hours=12)
_ACCUMULATED = {"total_precipitation_6hr": 6, "total_precipitation_12hr": 12}
_Result = TypeVar("_Result")
_Held = Mapping[datetime, Mapping[str, tuple[int, ...]]]
"""Valid time → variable → its levels."""

_HOURLY_KIND: SourceKind = "era5"
"""Of these analyses, precipitation in NetCDF and Zarr is that of the hour before; of others nothing says which."""


@dataclass(frozen=True, kw_only=True)
class Files:
    """Whatever of a request the files below a root hold.

    Args:
        name: as configured.
        kind: what the analyses are; the files do not say.
        root: folder or fsspec URL.
        pattern: of the files' paths below the root; may hold ``{valid_time:%Y%m%d%H}``, which spares looking
            into files of other times. For precipitation the 12 hours before count as well.
        options: fsspec storage options.
        timeout: see ``FilesystemRemote``.
        retry: for every read.
    """

    name: str = "files"
    kind: SourceKind = "era5"
    root: str
    pattern: str = "*"
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    timeout: float = 30.0
    retry: RetryPolicy = field(default_factory=RetryPolicy)

    def offers(self) -> SourceOffer:
        """Everything the decoders know; what is really there shows when it is read."""
        derived = {
            "specific_humidity": f"from relative humidity where there is no other: {HUMIDITY_RULE}",
            **dict.fromkeys(_ACCUMULATED, "the sum of the accumulations that make up the interval"),
        }
        known = (frozenset(VARIABLES) | frozenset(AUXILIARY_VARIABLES)) - COMPUTED_FORCINGS
        return SourceOffer(
            direct=known - frozenset(derived),
            derived=derived,
            levels=tuple(sorted({*LEVELS_13, *LEVELS_37})),
        )

    def available(self, request: FieldRequest) -> Availability:
        """Looks at what describes the fields of the matching files; their data are not read."""
        there = _Contents()
        with header_reader() as headers:
            for file in self._matching(request):
                if file.format == "grib":
                    for _, _, found in file.wanted_messages(request, headers):
                        there.add_message(found)
                else:
                    there.add_arrays(file.held(self._times(request)), request)
        missing = there.lacks(request)
        return Availability(complete=not missing, missing=missing, source=self.root)

    def fetch(self, request: FieldRequest, folder: Path) -> tuple[RawFile, ...]:
        """Copies of the messages and arrays of the request; precipitation by the hour is summed."""
        folder.mkdir(parents=True, exist_ok=True)
        copies: list[RawFile | None] = []
        given: set[str] = set()
        rain: dict[datetime, xr.DataArray] = {}
        with header_reader() as headers:
            for file in self._matching(request):
                path = folder / f"{_local_name(file.below)}-{request.digest}"
                if file.format == "grib":
                    copies.append(file.copy_messages(path.with_name(f"{path.name}.grib"), request, headers))
                    continue
                held = file.held(self._times(request))
                if set(held[request.valid_time]) & set(request.variables):
                    copies.append(file.copy_arrays(path.with_name(f"{path.name}.nc"), request))
                    given |= set(held[request.valid_time])
                rain |= file.precipitation(_hours_in(held))
        names = set(_ACCUMULATED) & set(request.variables) - given
        copies += _sums(rain, names, request, folder, self.root)
        found = tuple(copy for copy in copies if copy is not None)
        if not found:
            raise MissingDataError(
                f"{self.root}: no file matching {self._pattern(request.valid_time)!r} holds any of "
                f"{', '.join(request.variables)} valid {request.valid_time:%Y%m%dT%HZ}"
            )
        return found

    def _times(self, request: FieldRequest) -> list[datetime]:
        """Valid times of which arrays are of use: the request's, and the hours before where they add up."""
        return [request.valid_time, *(_hours(request) if self.kind == _HOURLY_KIND else ())]

    def _pattern(self, time: datetime) -> str:
        return self.pattern.format(valid_time=time)

    def _matching(self, request: FieldRequest) -> list[_File]:
        """The files to look into, in order of their paths."""
        patterns = {self._pattern(time) for time in (request.valid_time, *_hours(request))}
        filesystem, base, leaves = self.retry.run(self._listed)
        remote = FilesystemRemote(filesystem, timeout=self.timeout)
        local = isinstance(filesystem, LocalFileSystem)
        files = []
        for path in leaves:
            below = path[len(base) + 1 :]
            file_format = _SUFFIXES.get(Path(path).suffix.lower())
            if file_format is not None and any(fnmatch(below, pattern) for pattern in patterns):
                files.append(
                    _File(source=self, remote=remote, local=local, path=path, below=below, format=file_format)
                )
        return files

    def _listed(self) -> tuple[fsspec.AbstractFileSystem, str, list[str]]:
        with provider_errors(self.root):
            filesystem, base = fsspec.core.url_to_fs(self.root, **self.options)
            base = base.rstrip("/")
            filesystem.invalidate_cache()
            leaves = _leaves(filesystem, base)
        if not leaves:
            raise MissingDataError(f"{self.root}: there is nothing")
        return filesystem, base, sorted(leaves)


@dataclass(frozen=True, kw_only=True)
class _File:
    """One file below the root, or one Zarr group."""

    source: Files
    remote: FilesystemRemote
    local: bool
    path: str
    below: str
    format: RawFormat

    @property
    def url(self) -> str:
        return f"{self.source.root.rstrip('/')}/{self.below}"

    def read(self, start: int, length: int) -> bytes:
        """Some of its bytes."""
        pieces = self.source.retry.run(
            lambda: list(self.remote.stream(self.path, start=start, length=length))
        )
        return b"".join(pieces)

    def size(self) -> int:
        return self.source.retry.run(lambda: self.remote.size(self.path))

    def wanted_messages(
        self, request: FieldRequest, headers: HeaderReader
    ) -> Iterator[tuple[int, int, Header]]:
        """(offset, length) of the messages with wanted fields, and a header for each of those."""
        names = set(request.variables)
        if "specific_humidity" in names:
            names |= {RELATIVE_HUMIDITY, "temperature"}
        if names & set(_ACCUMULATED):
            names.add(ACCUMULATED_PRECIPITATION)
        for outline in outlines(self.read, self.size(), where=self.url):
            where = f"{self.url} at byte {outline.offset}"
            for single in fields(outline.message, where=where):
                found = headers.read(single, where=where)
                if found.parameter is not None and found.parameter.name in names and _timely(found, request):
                    yield outline.offset, outline.length, found

    def copy_messages(self, copy: Path, request: FieldRequest, headers: HeaderReader) -> RawFile | None:
        """The wanted messages, whole, in one file."""
        ranges = {(start, length) for start, length, _ in self.wanted_messages(request, headers)}
        whole = []
        for start, length in sorted(ranges):
            whole.append(self.read(start, length))
            check_message(whole[-1], where=f"{self.url} at byte {start}", length=length)
        if not whole:
            return None
        with whole_when_done(copy) as temporary:
            temporary.write_bytes(b"".join(whole))
        return RawFile(
            path=copy,
            format="grib",
            url=self.url,
            sha256=tuple(hashlib.sha256(message).hexdigest() for message in whole),
            size=sum(map(len, whole)),
        )

    def held(self, times: Sequence[datetime]) -> _Held:
        """What arrays it has at which of the times; they are not read."""

        def look() -> _Held:
            with self._dataset() as dataset:
                return {time: contents(dataset, where=self.url, valid_time=time) for time in times}

        return self._again(look)

    def copy_arrays(self, copy: Path, request: FieldRequest) -> RawFile | None:
        """The wanted arrays in one file."""
        fields_there = self._again(
            lambda: self._fields(request.valid_time, variables=request.variables, levels=request.levels)
        )
        return write_copy(fields_there, copy, url=self.url) if fields_there.data_vars else None

    def precipitation(self, ends: Sequence[datetime]) -> dict[datetime, xr.DataArray]:
        """End of the hour → amount (time, latitude, longitude) in m."""
        name = ACCUMULATED_PRECIPITATION
        return {end: self._again(partial(self._fields, end, variables=(name,)))[name] for end in ends}

    def _fields(self, time: datetime, **wanted: Any) -> xr.Dataset:
        with self._dataset() as dataset:
            return canonical(dataset, where=self.url, valid_time=time, **wanted).load()

    def _again(self, operation: Callable[[], _Result]) -> _Result:
        """Try a Zarr store's reads again; those of files are, range by range."""
        return self.source.retry.run(operation) if self.format == "zarr" else operation()

    @contextmanager
    def _dataset(self) -> Iterator[xr.Dataset]:
        """A NetCDF file or Zarr group as it is; what the network does is told apart from damage."""
        if self.format == "zarr":
            store = ObjectStore(root=self.source.root, options=self.source.options)
            with (
                provider_errors(self.url),
                opened(store.zarr(self.below, read_only=True), "zarr", where=self.url) as dataset,
            ):
                yield dataset
        elif self.local:
            with opened(self.path, "netcdf", where=self.url) as dataset:
                yield dataset
        else:
            file = RangeFile(read=self.read, size=self.size())
            try:
                with opened(io.BufferedReader(file, RangeFile.AT_ONCE), "netcdf", where=self.url) as dataset:
                    yield dataset
            except FoldcastError as error:
                raise file.failure or error from error


class _Contents:
    """What files hold, as far as their descriptions say."""

    def __init__(self) -> None:
        self._there: set[tuple[str, int]] = set()
        self._intervals: set[RunInterval] = set()
        self._hours: frozenset[datetime] = frozenset()

    def add_message(self, found: Header) -> None:
        if found.parameter is None:
            return
        if found.parameter.name == ACCUMULATED_PRECIPITATION and found.accumulation is not None:
            self._intervals.add((found.init_time, *found.accumulation))
        else:
            level = int(found.level) if found.parameter.on_levels else 0
            self._there.add((found.parameter.name, level))

    def add_arrays(self, held: _Held, request: FieldRequest) -> None:
        for name, levels in held[request.valid_time].items():
            self._there |= {(name, level) for level in levels or (0,)}
        self._hours |= frozenset(_hours_in(held))

    def lacks(self, request: FieldRequest) -> tuple[str, ...]:
        missing = []
        for name in request.variables:
            for level in request.levels if name in request.on_levels else (0,):
                if not self._gives(name, level, request.valid_time):
                    missing.append(f"{name}{f' at {level} hPa' if level else ''}")
        return tuple(missing)

    def _gives(self, name: str, level: int, time: datetime) -> bool:
        if (name, level) in self._there:
            return True
        if name == "specific_humidity":
            return {(RELATIVE_HUMIDITY, level), ("temperature", level)} <= self._there
        if name in _ACCUMULATED:
            start = time - timedelta(hours=_ACCUMULATED[name])
            by_the_hour = self._hours.issuperset(_ends(name, time))
            return by_the_hour or combine_runs((start, time), self._intervals) is not None
        return False


def _ends(name: str, time: datetime) -> list[datetime]:
    """Ends of the hours of which an accumulation is the sum."""
    return [time - timedelta(hours=hour) for hour in range(_ACCUMULATED[name])]


def _hours(request: FieldRequest) -> list[datetime]:
    """Ends of all hours that some accumulation of the request takes, and the end of the longest before it."""
    if not set(_ACCUMULATED) & set(request.variables):
        return []
    hours = range(int(_LONGEST_ACCUMULATION / timedelta(hours=1)) + 1)
    return [request.valid_time - timedelta(hours=hour) for hour in hours]


def _hours_in(held: _Held) -> list[datetime]:
    """Ends of the hours whose precipitation is there."""
    return [time for time, names in held.items() if ACCUMULATED_PRECIPITATION in names]


def _sums(
    rain: Mapping[datetime, xr.DataArray],
    names: Collection[str],
    request: FieldRequest,
    folder: Path,
    url: str,
) -> list[RawFile]:
    sums = {}
    for name in names:
        ends = _ends(name, request.valid_time)
        if set(ends) <= set(rain):
            amounts = [rain[end].isel(time=0, drop=True) for end in ends]
            try:
                total = xr.concat(amounts, dim="hour", join="exact").sum("hour", skipna=False)
            except ValueError as error:
                raise InvalidFieldError(
                    f"{url}: hours of {name} before {request.valid_time:%Y%m%dT%HZ} lie on different grids: {error}"
                ) from error
            time = rain[request.valid_time]["time"]
            sums[name] = total.expand_dims(time=time).assign_attrs(units="m")
    if not sums:
        return []
    return [write_copy(xr.Dataset(sums), folder / f"precipitation-{request.digest}.nc", url=url)]


def _local_name(below: str) -> str:
    """A file name that people recognise; distinct for distinct paths."""
    digest = hashlib.sha256(below.encode()).hexdigest()[:8]
    return f"{re.sub(r'[^A-Za-z0-9._-]+', '-', below)[-100:]}-{digest}"


def _leaves(filesystem: fsspec.AbstractFileSystem, base: str) -> set[str]:
    """Files, a Zarr group counting as one file."""
    leaves = set()
    for folder, folders, files in filesystem.walk(base, topdown=True, on_error="raise"):
        groups = [name for name in folders if name.endswith(".zarr")]
        for name in groups:
            folders.remove(name)  # its chunks, maybe millions, need not be listed
        leaves |= {f"{folder}/{name}" for name in (*groups, *files)}
    return leaves


def _timely(found: Header, request: FieldRequest) -> bool:
    name = found.parameter.name if found.parameter else ""
    if name in STATICS:
        return True
    if name == ACCUMULATED_PRECIPITATION:  # 12 h may be the difference of 0–24 and 0–12
        return timedelta(0) <= request.valid_time - found.valid_time <= _LONGEST_ACCUMULATION
    in_request = not (found.parameter and found.parameter.on_levels) or int(found.level) in request.levels
    return found.valid_time == request.valid_time and in_request
