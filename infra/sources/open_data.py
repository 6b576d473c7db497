"""ECMWF's real-time open data: IFS and AIFS fields at 0.25°, by their ``.index`` files.

Layout, parameters and mirrors: https://www.ecmwf.int/en/forecasts/datasets/open-data. Since IFS cycle 50r1
(06 UTC of 2026-05-12) all runs are in stream ``oper``; before, the 06 and 18 UTC runs were in ``scda``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from infra.errors import InvalidFieldError, MissingDataError
from infra.humidity import HUMIDITY_RULE
from infra.retry import RetryPolicy
from infra.sources.indexed_grib import IndexedMessage, Mirrors
from infra.sources.remote import Remote
from infra.sources.source import Availability, FieldRequest, RawFile, SourceKind, SourceOffer
from model.variables import LEVELS_13, VARIABLES

MIRRORS = (
    "https://data.ecmwf.int/forecasts",
    "https://ecmwf-forecasts.s3.eu-central-1.amazonaws.com",
    "https://storage.googleapis.com/ecmwf-open-data",
    "https://ai4edataeuwest.blob.core.windows.net/ecmwf",
)
_ONE_STREAM_SINCE = datetime(2026, 5, 12, 6, tzinfo=UTC)
_NO_MODEL_FOLDER = "0p4-beta"
_SST_REASON = (
    "not published: take it from another source, or the skin-temperature proxy "
    "(sea_surface_temperature = 'skin-temperature' in the model's settings)"
)

Recipe = tuple[tuple[str, ...], ...]
"""Alternatives, best first; each the parameters that together give a variable."""

_RECIPES: dict[str, Recipe] = {
    "2m_temperature": (("2t",),),
    "mean_sea_level_pressure": (("msl",),),
    "10m_u_component_of_wind": (("10u",),),
    "10m_v_component_of_wind": (("10v",),),
    "skin_temperature": (("skt",),),
    "land_sea_mask": (("lsm",),),
    "geopotential_at_surface": (("z",),),
    "temperature": (("t",),),
    "u_component_of_wind": (("u",),),
    "v_component_of_wind": (("v",),),
    "vertical_velocity": (("w",),),
    "geopotential": (("z",), ("gh",)),
    "specific_humidity": (("q",), ("r", "t")),
}
_ACCUMULATIONS = {"total_precipitation_6hr": 6, "total_precipitation_12hr": 12}


@dataclass(frozen=True, kw_only=True)
class OpenData:
    """Step 0 of a run is the analysis of its hour; precipitation is from the run 6 (12) hours before.

    Args:
        name: as configured.
        roots: URLs with this layout, in order of preference (HTTP, ``s3://``, a path).
        model: folder of the model: ``ifs``, ``aifs-single`` or ``aifs-ens``.
        resolution: folder of the resolution.
        levels: hPa.
        parallel: requests at once; the AWS mirror refuses more than about 8.
        timeout: seconds without a byte.
        options: fsspec storage options of roots that are not HTTP.
        retry: for each request.
    """

    name: str = "open-data"
    kind: SourceKind = "hres"
    roots: tuple[str, ...] = MIRRORS
    model: str = "ifs"
    resolution: str = "0p25"
    levels: tuple[int, ...] = LEVELS_13
    parallel: int = 4
    timeout: float = 30.0
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    retry: RetryPolicy = field(default_factory=RetryPolicy)

    def offers(self) -> SourceOffer:
        """What the open data hold."""
        derived = {
            "geopotential": "gh × 9.80665 m s-2 where z is not published",
            "specific_humidity": f"from r where q is not published: {HUMIDITY_RULE}",
            "total_precipitation_6hr": "step 6 of the run 6 hours before",
            "total_precipitation_12hr": "step 12 of the run 12 hours before",
        }
        return SourceOffer(
            direct=frozenset(_RECIPES) - frozenset(derived),
            derived=derived,
            unavailable={"sea_surface_temperature": _SST_REASON},
            levels=self.levels,
        )

    def available(self, request: FieldRequest) -> Availability:
        """Whether the indexes list everything and the files are as long as their indexes say."""
        return self._mirrors.available(lambda root, remote: self._complete(root, remote, request))

    def fetch(self, request: FieldRequest, folder: Path) -> tuple[RawFile, ...]:
        """The messages of the request, one file each."""
        return self._mirrors.fetch(folder, lambda root, remote: self._messages(root, remote, request))

    @property
    def _mirrors(self) -> Mirrors:
        return Mirrors(
            roots=self.roots,
            parallel=self.parallel,
            timeout=self.timeout,
            options=self.options,
            retry=self.retry,
        )

    def _complete(self, root: str, remote: Remote, request: FieldRequest) -> list[IndexedMessage]:
        messages = self._messages(root, remote, request)
        ends: dict[str, int] = {}
        for message in messages:
            ends[message.path] = max(ends.get(message.path, 0), message.offset + message.length)
        for path, end in ends.items():
            size = self.retry.run(partial(remote.size, f"{root}/{path}"))
            if size < end:
                raise MissingDataError(f"{root}/{path}: expected at least {end} bytes, there are {size} yet")
        return messages

    def _messages(self, root: str, remote: Remote, request: FieldRequest) -> list[IndexedMessage]:
        lacking = self.offers().lacks(request)
        if lacking:
            raise MissingDataError(f"{self.name} cannot give {'; '.join(lacking)}")
        messages: list[IndexedMessage] = []
        missing: list[str] = []
        for hours, names in _by_accumulation(request).items():
            init_time = request.valid_time - timedelta(hours=hours)
            path = self._path(init_time, hours)
            index = _read_index(root, remote, path, self.retry)
            for name in names:
                for level in request.levels if _on_levels(name) else (None,):
                    found = _find(index, name, level)
                    if found is None:
                        missing.append(
                            f"{_wanted(name)}{'' if level is None else f' at {level} hPa'} in {path}"
                        )
                        continue
                    stamp = f"{init_time:%Y%m%dT%HZ}-{hours}h"
                    messages += [_message(entry, path, level, stamp, request.valid_time) for entry in found]
        if missing:
            raise MissingDataError(f"{root} lacks {'; '.join(missing)}")
        return sorted(set(messages))

    def _path(self, init_time: datetime, step: int) -> str:
        split_streams = self.model == "ifs" and init_time < _ONE_STREAM_SINCE
        stream = "scda" if split_streams and init_time.hour in (6, 18) else "oper"
        model = "" if self.resolution == _NO_MODEL_FOLDER else f"{self.model}/"
        return (
            f"{init_time:%Y%m%d}/{init_time:%H}z/{model}{self.resolution}/{stream}/"
            f"{init_time:%Y%m%d%H}0000-{step}h-{stream}-fc.grib2"
        )


_IndexKey = tuple[str, str, int | None]  # param, levtype, level
_Index = Mapping[_IndexKey, Mapping[str, Any]]


def _on_levels(name: str) -> bool:
    return name in VARIABLES and VARIABLES[name].on_levels


def _by_accumulation(request: FieldRequest) -> dict[int, list[str]]:
    """Variables by the step of the run that holds them: 0 but for accumulations."""
    steps: dict[int, list[str]] = {}
    for name in request.variables:
        steps.setdefault(_ACCUMULATIONS.get(name, 0), []).append(name)
    return steps


def _recipe(name: str) -> Recipe:
    return (("tp",),) if name in _ACCUMULATIONS else _RECIPES[name]


def _wanted(name: str) -> str:
    return f"{' or '.join('+'.join(parameters) for parameters in _recipe(name))} ({name})"


def _find(index: _Index, name: str, level: int | None) -> list[Mapping[str, Any]] | None:
    kind = "sfc" if level is None else "pl"
    for parameters in _recipe(name):
        entries = [index.get((parameter, kind, level)) for parameter in parameters]
        if all(entry is not None for entry in entries):
            return [entry for entry in entries if entry is not None]
    return None


def _message(
    entry: Mapping[str, Any], path: str, level: int | None, stamp: str, valid_time: datetime
) -> IndexedMessage:
    parameter = entry["param"]
    return IndexedMessage(
        path=path,
        offset=entry["_offset"],
        length=entry["_length"],
        label=f"{parameter}-{'sfc' if level is None else level}-{stamp}",
        short_names=(parameter,),
        level=level,
        valid_time=valid_time,
    )


def _read_index(root: str, remote: Remote, path: str, retry: RetryPolicy) -> _Index:
    url = f"{root}/{path.removesuffix('.grib2')}.index"
    lines = retry.run(lambda: remote.read(url)).decode("utf-8", "replace").splitlines()
    index = dict(_entries(lines, url))
    if not index:
        raise MissingDataError(f"{url}: the index is empty")
    return index


def _entries(lines: Sequence[str], url: str) -> Iterator[tuple[_IndexKey, Mapping[str, Any]]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            offset, length, parameter = entry["_offset"], entry["_length"], entry["param"]
            level = int(entry["levelist"]) if entry["levtype"] == "pl" else None
            key = (str(parameter), str(entry["levtype"]), level)
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidFieldError(
                f"{url}, line {number}: expected an index entry with param, levtype, _offset and _length, "
                f"got {line[:120]!r}"
            ) from error
        if not (isinstance(offset, int) and isinstance(length, int) and offset >= 0 and length > 0):
            raise InvalidFieldError(f"{url}, line {number}: impossible range {offset}+{length}")
        if "number" not in entry:  # members of an ensemble are not analyses
            yield key, entry
