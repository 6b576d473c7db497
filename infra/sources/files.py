"""Analyses in files of one's own: GRIB 1 and 2, NetCDF or Zarr below a folder or an object-store prefix."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from fnmatch import fnmatch
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import fsspec
import xarray as xr

from infra.errors import InvalidFieldError, MissingDataError, TransientSourceError
from infra.field_files import read_fields
from infra.grib_field import Header
from infra.grib_headers import header_reader
from infra.grib_messages import fields, messages
from infra.grib_parameters import ACCUMULATED_PRECIPITATION, RELATIVE_HUMIDITY
from infra.humidity import HUMIDITY_RULE
from infra.sources.field_copies import write_copy
from infra.sources.source import (
    AUXILIARY_VARIABLES,
    Availability,
    FieldRequest,
    RawFile,
    RawFormat,
    SourceKind,
    SourceOffer,
)
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
_HOURLY = ("total_precipitation_6hr", "total_precipitation_12hr")


@dataclass(frozen=True, kw_only=True)
class Files:
    """Whatever of a request the files below a root hold.

    Args:
        name: as configured.
        kind: what the analyses are; the files do not say.
        root: folder or fsspec URL.
        pattern: of the files' paths below the root; may hold ``{valid_time:%Y%m%d%H}``, which spares reading
            files of other times.
        options: fsspec storage options.
    """

    name: str = "files"
    kind: SourceKind = "era5"
    root: str
    pattern: str = "*"
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def offers(self) -> SourceOffer:
        """Everything the decoders know; what is really there shows when it is read."""
        derived = {
            "specific_humidity": f"from relative humidity where there is no other: {HUMIDITY_RULE}",
            **dict.fromkeys(_HOURLY, "the sum of the accumulations that make up the interval"),
        }
        known = (frozenset(VARIABLES) | frozenset(AUXILIARY_VARIABLES)) - COMPUTED_FORCINGS
        return SourceOffer(
            direct=known - frozenset(derived),
            derived=derived,
            levels=tuple(sorted({*LEVELS_13, *LEVELS_37})),
        )

    def available(self, request: FieldRequest) -> Availability:
        """Reads the headers of the matching files."""
        there: set[tuple[str, int]] = set()
        with self._candidates(request) as candidates:
            for path, file_format, _ in candidates:
                there |= _contents(path, file_format, request)
        missing = []
        for name in request.variables:
            for level in request.levels if name in request.on_levels else (0,):
                if not _given(name, level, there):
                    missing.append(f"{name}{f' at {level} hPa' if level else ''}")
        return Availability(complete=not missing, missing=tuple(missing), source=self.root)

    def fetch(self, request: FieldRequest, folder: Path) -> tuple[RawFile, ...]:
        """Copies of the messages and arrays of the request."""
        folder.mkdir(parents=True, exist_ok=True)
        copies = []
        with self._candidates(request) as candidates:
            for path, file_format, url in candidates:
                name = f"{url.removeprefix(self.root).strip('/').replace('/', '-')}-{request.digest}"
                if file_format == "grib":
                    copy = _copy_messages(path, folder / f"{name}.grib", request, url)
                else:
                    copy = _copy_arrays(path, file_format, folder / f"{name}.nc", request, url)
                if copy is not None:
                    copies.append(copy)
        if not copies:
            raise MissingDataError(
                f"{self.root}: no file matching {self._pattern(request)!r} holds any of "
                f"{', '.join(request.variables)} valid {request.valid_time:%Y%m%dT%HZ}"
            )
        return tuple(copies)

    def _pattern(self, request: FieldRequest) -> str:
        return self.pattern.format(valid_time=request.valid_time)

    @contextmanager
    def _candidates(self, request: FieldRequest) -> Iterator[list[tuple[Path, RawFormat, str]]]:
        """Matching files on this machine, with their formats and where they came from."""
        try:
            filesystem, base = fsspec.core.url_to_fs(self.root, **self.options)
            found = sorted(_leaves(filesystem, base.rstrip("/")))
        except FileNotFoundError as error:
            raise MissingDataError(f"{self.root}: there is nothing") from error
        except OSError as error:
            raise TransientSourceError(f"{self.root}: cannot be listed: {error}") from error
        pattern = self._pattern(request)
        local = isinstance(filesystem, fsspec.implementations.local.LocalFileSystem)
        with TemporaryDirectory(prefix="foldcast-files-") as temporary:
            candidates = []
            for remote in found:
                below = remote[len(base.rstrip("/")) + 1 :]
                file_format = _SUFFIXES.get(Path(remote).suffix.lower())
                if file_format is None or not fnmatch(below, pattern):
                    continue
                path = Path(remote)
                if not local:
                    path = Path(temporary, below.replace("/", "-"))
                    try:
                        filesystem.get(remote, str(path), recursive=file_format == "zarr")
                    except OSError as error:
                        raise TransientSourceError(f"{self.root}/{below}: {error}") from error
                candidates.append((path, file_format, f"{self.root.rstrip('/')}/{below}"))
            yield candidates


def _leaves(filesystem: fsspec.AbstractFileSystem, base: str) -> set[str]:
    """Files, a Zarr group counting as one file."""
    leaves = set()
    for path in filesystem.find(base):
        inside = path.find(".zarr/", len(base))
        leaves.add(path if inside < 0 else path[: inside + len(".zarr")])
    return leaves


def _contents(path: Path, file_format: RawFormat, request: FieldRequest) -> set[tuple[str, int]]:
    if file_format == "grib":
        return {
            (found.parameter.name, int(found.level) if found.parameter.on_levels else 0)
            for _, found in _wanted_messages(path, request)
            if found.parameter is not None
        }
    there = set()
    for name, array in _wanted_arrays(path, file_format, request).data_vars.items():
        levels = array["level"].values.tolist() if "level" in array.dims else [0]
        there |= {(str(name), int(level)) for level in levels}
    return there


def _given(name: str, level: int, there: set[tuple[str, int]]) -> bool:
    if (name, level) in there:
        return True
    if name == "specific_humidity":
        return {(RELATIVE_HUMIDITY, level), ("temperature", level)} <= there
    return name in _HOURLY and (ACCUMULATED_PRECIPITATION, 0) in there


def _wanted_messages(path: Path, request: FieldRequest) -> Iterator[tuple[bytes, Header]]:
    names = set(request.variables)
    if "specific_humidity" in names:
        names |= {RELATIVE_HUMIDITY, "temperature"}
    if names & set(_HOURLY):
        names.add(ACCUMULATED_PRECIPITATION)
    with header_reader() as headers:
        for index, message in enumerate(messages(path)):
            where = f"{path}, message {index + 1}"
            for single in fields(message, where=where):
                found = headers.read(single, where=where)
                if found.parameter is not None and found.parameter.name in names and _timely(found, request):
                    yield single, found


def _timely(found: Header, request: FieldRequest) -> bool:
    name = found.parameter.name if found.parameter else ""
    if name in STATICS:
        return True
    if name == ACCUMULATED_PRECIPITATION:
        age = request.valid_time - found.valid_time
        return timedelta(0) <= age < _LONGEST_ACCUMULATION
    in_request = not (found.parameter and found.parameter.on_levels) or int(found.level) in request.levels
    return found.valid_time == request.valid_time and in_request


def _wanted_arrays(path: Path, file_format: RawFormat, request: FieldRequest) -> xr.Dataset:
    if file_format == "grib":
        raise InvalidFieldError(f"{path}: expected NetCDF or Zarr")
    dataset = read_fields(path, file_format, valid_time=request.valid_time)
    dataset = dataset[[name for name in dataset.data_vars if name in request.variables]]
    if "level" in dataset.dims:
        dataset = dataset.sel(level=[level for level in request.levels if level in dataset["level"].values])
    return dataset


def _copy_messages(path: Path, copy: Path, request: FieldRequest, url: str) -> RawFile | None:
    wanted = [single for single, _ in _wanted_messages(path, request)]
    if not wanted:
        return None
    temporary = copy.with_name(f".writing-{uuid.uuid4().hex}")
    try:
        temporary.write_bytes(b"".join(wanted))
        os.replace(temporary, copy)
    finally:
        temporary.unlink(missing_ok=True)
    return RawFile(
        path=copy,
        format="grib",
        url=url,
        sha256=tuple(sha256(single).hexdigest() for single in wanted),
        size=sum(map(len, wanted)),
    )


def _copy_arrays(
    path: Path, file_format: RawFormat, copy: Path, request: FieldRequest, url: str
) -> RawFile | None:
    dataset = _wanted_arrays(path, file_format, request)
    return write_copy(dataset, copy, url=url) if dataset.data_vars else None
