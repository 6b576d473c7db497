"""GRIB files, editions 1 and 2, to the canonical state on their own grid.

Whatever the provider does with names, units, scan order, first longitude, packing, several fields in one
message or several experiment versions ends here. Interpolation to the model's grid is
``infra.interpolation``'s.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import xarray as xr

from infra.accumulation import RunInterval, combine_runs
from infra.errors import InvalidFieldError
from infra.grib_assembly import FieldKey, assemble
from infra.grib_field import SPECTRAL, Header, SourceGrid, header, opened, source_grid, values
from infra.grib_messages import fields, messages
from infra.grib_parameters import ACCUMULATED_PRECIPITATION, RELATIVE_HUMIDITY
from infra.humidity import HUMIDITY_RULE, specific_humidity
from model.variables import STATICS

SpectralTransform = Callable[[Sequence[bytes]], tuple[SourceGrid, list[np.ndarray]]]
"""Spectral messages → the grid they were transformed to and a field for each."""

_ACCUMULATED = {
    "total_precipitation_6hr": timedelta(hours=6),
    "total_precipitation_12hr": timedelta(hours=12),
}
_ROUNDING_OF_TOTALS = 1e-3
"""m; two totals since the start of a run are packed apart, so their difference may be slightly negative."""


@dataclass(frozen=True, kw_only=True)
class _Field:
    """A header, the message it heads and where that came from."""

    header: Header
    message: bytes
    sha256: str
    where: str

    @property
    def name(self) -> str:
        return self.header.parameter.name if self.header.parameter else ""

    @property
    def factor(self) -> float:
        return self.header.parameter.factor if self.header.parameter else 1.0

    @property
    def preference(self) -> tuple[int, timedelta, str]:
        """Lowest is best: direct before converted, analysis before forecast, final ERA5 before ERA5T."""
        rank = self.header.parameter.rank if self.header.parameter else 0
        return rank, self.header.valid_time - self.header.init_time, self.header.experiment


_IntervalKey = tuple[datetime, datetime, datetime, int]  # start of the run, start, end, member
_AnyKey = TypeVar("_AnyKey")


def decode(
    paths: Path | str | Iterable[Path | str],
    *,
    variables: Collection[str] | None = None,
    levels: Collection[int] | None = None,
    valid_times: Collection[datetime] | None = None,
    spectral: SpectralTransform | None = None,
    keep_unknown: bool = False,
    threads: int = 2,
) -> xr.Dataset:
    """Read GRIB files into one Dataset of our variables.

    Args:
        paths: one or several files; together they may hold any mixture of messages we know or not.
        variables: long names to read; default all known. ``specific_humidity`` is made from relative
            humidity where only that is there, precipitation from whatever intervals add up to 6 or 12 hours.
        levels: hPa; default all whole levels there are.
        valid_times: aware; default all.
        spectral: transforms spherical harmonics to a grid; without it spectral messages are refused.
        keep_unknown: also keep relative humidity and what is none of our variables, named
            ``{shortName}_{typeOfLevel}_{level}``, in the message's own units.
        threads: fields unpacked at once.

    Returns:
        float32, dims (time, [number,] [level,] latitude, longitude) or (…, points) with latitude and
        longitude of each point; time is valid time (datetime64[ns], UTC), level ascending hPa (int), latitude
        ascending, longitude 0…360 ascending; statics without time. Combinations for which there is no message
        are NaN and listed in ``attrs["absent"]``. ``attrs["messages"]`` (JSON) gives the sha256 of every raw
        message used, with its experiment version; ``attrs["grid"]`` names a Gaussian or HEALPix grid;
        ``attrs["unused_accumulations"]`` lists precipitation that adds up to no wanted interval.

    Raises:
        InvalidFieldError: a damaged file or message, two different messages for the same field, several
            grids, or none of the wanted variables.
    """
    files = [Path(paths)] if isinstance(paths, (str, Path)) else [Path(path) for path in paths]
    chosen, accumulations = _select(_scan(files, keep_unknown), variables, levels, valid_times)
    if not chosen and not accumulations:
        raise InvalidFieldError(
            f"{_names(files)}: none of the wanted fields is there; wanted {_listed(variables)} "
            f"on levels {_listed(levels)} valid {_listed(valid_times)}"
        )
    everything = [*chosen.values(), *accumulations.values()]
    grid, arrays = _unpack(everything, spectral, threads)
    by_key = dict(zip(chosen, arrays))
    parts = dict(zip(accumulations, arrays[len(chosen) :]))
    used = {key: [field] for key, field in chosen.items()}
    humidity_derived = _derive_humidity(by_key, used, variables, keep_unknown)
    _derive_accumulations(by_key, used, parts, accumulations, variables, valid_times)
    if not by_key:
        raise InvalidFieldError(
            f"{_names(files)}: no variable can be made of these fields; precipitation intervals there are "
            f"{', '.join(sorted(map(_interval, accumulations)))}"
        )
    spare = sorted({_interval(interval) for interval in accumulations} - _intervals(used))
    dataset = assemble(by_key, grid)
    dataset.attrs["messages"] = json.dumps(_message_list(used))
    if spare:
        dataset.attrs["unused_accumulations"] = json.dumps(spare)
    if humidity_derived:
        dataset["specific_humidity"].attrs["derivation"] = HUMIDITY_RULE
    return dataset


def experiment_versions(dataset: xr.Dataset) -> dict[str, list[str]]:
    """Experiment versions (0001 final ERA5 or HRES, 0005 ERA5T) per valid time of a decoded Dataset."""
    found: dict[str, set[str]] = {}
    for entry in json.loads(dataset.attrs.get("messages", "[]")):
        if entry["experiment"]:
            found.setdefault(entry["valid_time"], set()).add(entry["experiment"])
    return {time: sorted(versions) for time, versions in sorted(found.items())}


def _scan(files: Sequence[Path], keep_unknown: bool) -> Iterable[_Field]:
    for path in files:
        for index, message in enumerate(messages(path)):
            where = f"{path}, message {index + 1}"
            sha256 = hashlib.sha256(message).hexdigest()
            for single in fields(message, where=where):
                with opened(single, where=where) as handle:
                    found = header(handle, keep_unknown=keep_unknown)
                yield _Field(header=found, message=single, sha256=sha256, where=where)


def _select(
    scanned: Iterable[_Field],
    variables: Collection[str] | None,
    levels: Collection[int] | None,
    valid_times: Collection[datetime] | None,
) -> tuple[dict[FieldKey, _Field], dict[_IntervalKey, _Field]]:
    wanted = None if variables is None else set(variables)
    if wanted is not None and "specific_humidity" in wanted:
        wanted |= {RELATIVE_HUMIDITY, "temperature"}
    chosen: dict[FieldKey, _Field] = {}
    accumulations: dict[_IntervalKey, _Field] = {}
    for field in scanned:
        parameter = field.header.parameter
        if parameter is None:
            continue
        if parameter.name == ACCUMULATED_PRECIPITATION:
            if field.header.accumulation and (wanted is None or wanted & set(_ACCUMULATED)):
                start, end = field.header.accumulation
                _keep_better(accumulations, (field.header.init_time, start, end, field.header.number), field)
            continue
        level = field.header.level
        if wanted is not None and parameter.name not in wanted:
            continue
        if parameter.on_levels and (level != int(level) or (levels and int(level) not in levels)):
            continue
        if valid_times and parameter.name not in STATICS and field.header.valid_time not in valid_times:
            continue
        key = (
            parameter.name,
            int(level) if parameter.on_levels else 0,
            datetime.min if parameter.name in STATICS else field.header.valid_time,
            0 if parameter.name in STATICS else field.header.number,
        )
        _keep_better(chosen, key, field)
    return chosen, accumulations


def _keep_better(kept: dict[_AnyKey, _Field], key: _AnyKey, field: _Field) -> None:
    other = kept.get(key)
    if other is None or field.preference < other.preference:
        kept[key] = field
    elif field.name not in STATICS and field.preference == other.preference and field.sha256 != other.sha256:
        raise InvalidFieldError(
            f"two different messages for {field.header}: {other.where} (sha256 {other.sha256[:12]}) and "
            f"{field.where} ({field.sha256[:12]})"
        )


def _unpack(
    wanted: Sequence[_Field], spectral: SpectralTransform | None, threads: int
) -> tuple[SourceGrid, list[np.ndarray]]:
    waves = [field for field in wanted if field.header.grid_type == SPECTRAL]
    points = [field for field in wanted if field.header.grid_type != SPECTRAL]
    if waves and spectral is None:
        raise InvalidFieldError(
            f"{waves[0].where}: {waves[0].header} is in spherical harmonics: "
            "expected a target grid to transform it to"
        )
    unpacked: dict[int, np.ndarray] = {}
    grid: SourceGrid | None = None
    if points:
        grids = _grids(points)
        grid = grids[points[0].header.grid_digest]

        def one(field: _Field) -> np.ndarray:
            own = grids[field.header.grid_digest]
            with opened(field.message, where=f"{field.where} ({field.header})") as handle:
                return values(handle, own, factor=field.factor)

        with ThreadPoolExecutor(max_workers=max(1, threads)) as pool:
            unpacked.update(zip(map(id, points), pool.map(one, points)))
    if waves and spectral is not None:
        wave_grid, transformed = spectral([field.message for field in waves])
        if grid is not None and grid.shape != wave_grid.shape:
            raise InvalidFieldError(
                f"expected gridded and spectral fields on one grid, got {grid.shape} and {wave_grid.shape}"
            )
        grid = grid or wave_grid
        for field, array in zip(waves, transformed):
            unpacked[id(field)] = (array * field.factor).astype(np.float32)
    if grid is None:
        raise InvalidFieldError("expected at least one field to unpack, got none")
    return grid, [unpacked[id(field)] for field in wanted]


def _grids(points: Sequence[_Field]) -> dict[str, SourceGrid]:
    """The grid of each way to write it (editions and scan orders differ), all of them the same points."""
    grids: dict[str, SourceGrid] = {}
    first = points[0]
    for field in points:
        if field.header.grid_digest in grids:
            continue
        with opened(field.message, where=field.where) as handle:
            grid = grids[field.header.grid_digest] = source_grid(handle)
        if not grid.same_points(grids[first.header.grid_digest]):
            raise InvalidFieldError(
                f"expected one grid, got {first.header.grid_type} {grids[first.header.grid_digest].shape} in "
                f"{first.where} and {field.header.grid_type} {grid.shape} in {field.where}: "
                "decode them separately"
            )
    return grids


def _derive_humidity(
    arrays: dict[FieldKey, np.ndarray],
    used: dict[FieldKey, list[_Field]],
    variables: Collection[str] | None,
    keep_relative: bool,
) -> bool:
    """Specific humidity where only relative humidity is there; drop what was read for it alone."""
    derived = False
    for key in [key for key in arrays if key[0] == RELATIVE_HUMIDITY]:
        if not keep_relative:
            relative, source = arrays.pop(key), used.pop(key)
        else:
            relative, source = arrays[key], used[key]
        _, level, time, number = key
        target = ("specific_humidity", level, time, number)
        temperature = ("temperature", level, time, number)
        if target in arrays or temperature not in arrays:
            continue
        centre: Literal["ecmwf", "ncep"] = "ncep" if source[0].header.centre == "kwbc" else "ecmwf"
        arrays[target] = specific_humidity(relative, arrays[temperature], level * 100.0, centre=centre)
        used[target] = source + used[temperature]
        derived = True
    if variables is not None and "temperature" not in variables:
        for key in [key for key in arrays if key[0] == "temperature"]:
            del arrays[key], used[key]
    return derived


def _derive_accumulations(
    arrays: dict[FieldKey, np.ndarray],
    used: dict[FieldKey, list[_Field]],
    parts: dict[_IntervalKey, np.ndarray],
    fields_of: dict[_IntervalKey, _Field],
    variables: Collection[str] | None,
    valid_times: Collection[datetime] | None,
) -> None:
    """Precipitation ending at the wanted times, else the other fields' times, else wherever intervals end."""
    others = {key[2] for key in arrays if key[0] not in STATICS}
    times = set(valid_times or others or {end for _, _, end, _ in parts})
    for number in {number for *_, number in parts}:
        intervals = [(run, start, end) for run, start, end, member in parts if member == number]
        for name, length in _ACCUMULATED.items():
            if variables is not None and name not in variables:
                continue
            for time in sorted(times):
                path = combine_runs((time - length, time), intervals)
                if path is None:
                    continue
                total = _total(parts, path, number, where=f"{name}, valid {time:%Y%m%dT%HZ}")
                arrays[(name, 0, time, number)] = total
                used[(name, 0, time, number)] = [fields_of[(*interval, number)] for interval, _ in path]


def _total(
    parts: dict[_IntervalKey, np.ndarray], path: Sequence[tuple[RunInterval, int]], number: int, *, where: str
) -> np.ndarray:
    total = np.sum([sign * parts[(*interval, number)] for interval, sign in path], axis=0)
    if total.min() < -_ROUNDING_OF_TOTALS:
        raise InvalidFieldError(
            f"{where}: expected a total that grows with time, got {total.min():g} m as the difference of "
            f"{len(path)} accumulations"
        )
    return np.maximum(total, 0.0).astype(np.float32)


def _message_list(used: dict[FieldKey, list[_Field]]) -> list[dict[str, object]]:
    entries = {
        (field.sha256, field.header.short_name, field.header.level): {
            "field": f"{field.header.short_name} {field.header.level:g}",
            "valid_time": f"{field.header.valid_time:%Y%m%dT%HZ}",
            "init_time": f"{field.header.init_time:%Y%m%dT%HZ}",
            "member": field.header.number,
            "experiment": field.header.experiment,
            "sha256": field.sha256,
        }
        for sources in used.values()
        for field in sources
    }
    return list(entries.values())


def _interval(interval: _IntervalKey) -> str:
    _, start, end, member = interval
    return f"{start:%Y%m%dT%HZ} to {end:%Y%m%dT%HZ}, member {member}"


def _intervals(used: dict[FieldKey, list[_Field]]) -> set[str]:
    return {
        _interval((field.header.init_time, *field.header.accumulation, field.header.number))
        for sources in used.values()
        for field in sources
        if field.header.accumulation
    }


def _listed(wanted: Collection[object] | None) -> str:
    return ", ".join(sorted(map(str, wanted))) if wanted else "any"


def _names(files: Sequence[Path]) -> str:
    return str(files[0]) if len(files) == 1 else f"{files[0]} and {len(files) - 1} more files"
