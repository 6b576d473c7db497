"""NOAA's GFS and GDAS analyses on pressure levels, by their ``.idx`` files.

https://registry.opendata.aws/noaa-gfs-bdp-pds. A line of the inventory is
``number:offset:d=2026010100:TMP:500 mb:anl:``; a message ends where the next one starts. u and v may share a
message, and then its offset. Precipitation is there twice, in the bucket of the last hours and since the start of
the run; the sixth column tells them apart (``0-12 hour acc fcst``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from infra.errors import InvalidFieldError, MissingDataError
from infra.grib_messages import message_length
from infra.humidity import HUMIDITY_RULE
from infra.retry import RetryPolicy
from infra.sources.indexed_grib import IndexedMessage, Mirrors
from infra.sources.remote import Remote
from infra.sources.source import Availability, FieldRequest, RawFile, SourceKind, SourceOffer
from model.variables import LEVELS_13, VARIABLES

MIRRORS = (
    "https://noaa-gfs-bdp-pds.s3.amazonaws.com",
    "https://nomads.ncep.noaa.gov/pub/data/nccf/com/gfs/prod",
)

_SURFACE = {
    "2m_temperature": ("TMP", "2 m above ground", ("2t",)),
    "10m_u_component_of_wind": ("UGRD", "10 m above ground", ("10u",)),
    "10m_v_component_of_wind": ("VGRD", "10 m above ground", ("10v",)),
    "mean_sea_level_pressure": ("PRMSL", "mean sea level", ("prmsl", "msl")),
    "skin_temperature": ("TMP", "surface", ("t", "skt")),
    "sea_ice_cover": ("ICEC", "surface", ("ci", "icec", "siconc")),
    "land_sea_mask": ("LAND", "surface", ("lsm",)),
    "geopotential_at_surface": ("HGT", "surface", ("orog", "gh")),
}
_ON_LEVELS = {
    "temperature": (("TMP", ("t",)),),
    "u_component_of_wind": (("UGRD", ("u",)),),
    "v_component_of_wind": (("VGRD", ("v",)),),
    "vertical_velocity": (("VVEL", ("w",)),),
    "geopotential": (("HGT", ("gh",)),),
    "specific_humidity": (("SPFH", ("q",)),),
}
_HUMIDITY_FROM_RELATIVE = (("RH", ("r",)), ("TMP", ("t",)))
_LONGEST_INDICATOR = 16
"""Bytes of section 0, which state the length of a message."""

_PRECIPITATION = {"total_precipitation_6hr": 6, "total_precipitation_12hr": 12}
_LONGEST_FORECAST = {"gfs": 12, "gdas": 6}
"""Hours of the run whose precipitation is taken at once; GDAS ends after 9."""


@dataclass(frozen=True, kw_only=True)
class Gfs:
    """Analyses of GFS or GDAS; precipitation from the first hours of the run before.

    Args:
        name: as configured.
        roots: URLs in order of preference.
        product: ``gfs`` or ``gdas`` (later, with more observations).
        resolution: as in the file names.
        levels: hPa.
        parallel, timeout, options, retry: see ``Mirrors``.
    """

    name: str = "gfs"
    kind: SourceKind = "gfs"
    roots: tuple[str, ...] = MIRRORS
    product: Literal["gfs", "gdas"] = "gfs"
    resolution: str = "0p25"
    levels: tuple[int, ...] = LEVELS_13
    parallel: int = 4
    timeout: float = 30.0
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    retry: RetryPolicy = field(default_factory=RetryPolicy)

    def offers(self) -> SourceOffer:
        """What the pressure-level files hold."""
        derived = {
            "geopotential": "HGT × 9.80665 m s-2",
            "geopotential_at_surface": "HGT × 9.80665 m s-2",
            "specific_humidity": f"from RH where SPFH is not there: {HUMIDITY_RULE}",
            "total_precipitation_6hr": "APCP of hour 6 of the run 6 hours before",
            "total_precipitation_12hr": "APCP from the start to hour 12 of the run 12 hours before"
            if self._longest == 12
            else "APCP of hour 6 of the runs 12 and 6 hours before",
        }
        return SourceOffer(
            direct=(frozenset(_SURFACE) | frozenset(_ON_LEVELS)) - frozenset(derived),
            derived=derived,
            unavailable={"sea_surface_temperature": "not in these files: use the skin-temperature proxy"},
            levels=self.levels,
        )

    def available(self, request: FieldRequest) -> Availability:
        """Whether the inventories list everything and the files are whole."""
        return self._mirrors.available(lambda root, remote: self._messages(root, remote, request))

    def fetch(self, request: FieldRequest, folder: Path) -> tuple[RawFile, ...]:
        """The messages of the request, one file each."""
        return self._mirrors.fetch(folder, lambda root, remote: self._messages(root, remote, request))

    @property
    def _longest(self) -> int:
        return _LONGEST_FORECAST[self.product]

    @property
    def _mirrors(self) -> Mirrors:
        return Mirrors(
            roots=self.roots,
            parallel=self.parallel,
            timeout=self.timeout,
            options=self.options,
            retry=self.retry,
        )

    def _path(self, init_time: datetime, hour: int) -> str:
        return (
            f"{self.product}.{init_time:%Y%m%d}/{init_time:%H}/atmos/"
            f"{self.product}.t{init_time:%H}z.pgrb2.{self.resolution}.f{hour:03d}"
        )

    def _messages(self, root: str, remote: Remote, request: FieldRequest) -> list[IndexedMessage]:
        lacking = self.offers().lacks(request)
        if lacking:
            raise MissingDataError(f"{self.name} cannot give {'; '.join(lacking)}")
        found: list[IndexedMessage] = []
        missing: list[str] = []
        for (init_time, hour), names in self._forecasts(request).items():
            path = self._path(init_time, hour)
            inventory = _read_inventory(root, remote, path, self.retry)
            stamp = f"{init_time:%Y%m%dT%HZ}-{hour}h"
            for name in names:
                for wanted, level, short_names in _wanted(name, request.levels, inventory, hour):
                    entry = inventory.get(wanted)
                    if entry is None:
                        missing.append(f"{wanted[0]}:{wanted[1]} ({name}) in {path}")
                        continue
                    label = f"{wanted[0].lower()}-{wanted[1].replace(' ', '-').replace(':', '-')}-{stamp}"
                    found.append(
                        IndexedMessage(
                            path=path,
                            offset=entry[0],
                            length=entry[1],
                            label=label,
                            short_names=short_names,
                            level=level,
                            valid_time=init_time + timedelta(hours=hour),
                        )
                    )
        if missing:
            raise MissingDataError(f"{root} lacks {'; '.join(missing)}")
        return sorted(set(found))

    def _forecasts(self, request: FieldRequest) -> dict[tuple[datetime, int], list[str]]:
        """(start of the run, hour) of each file → the variables taken from it."""
        files: dict[tuple[datetime, int], list[str]] = {}
        for name in request.variables:
            total = _PRECIPITATION.get(name, 0)
            hour = min(total, self._longest)
            for back in range(total, 0, -hour) if hour else (0,):
                files.setdefault((request.valid_time - timedelta(hours=back), hour), []).append(name)
        return dict(sorted(files.items()))


_Wanted = tuple[tuple[str, str], int | None, tuple[str, ...]]
_Inventory = Mapping[tuple[str, str], tuple[int, int]]
"""(parameter, level) → (offset, length); of precipitation (parameter, level:interval)."""


def _wanted(name: str, levels: Sequence[int], inventory: _Inventory, hour: int) -> list[_Wanted]:
    if name in _PRECIPITATION:
        return [(("APCP", f"surface:0-{hour} hour acc fcst"), None, ("tp",))]
    if name in _SURFACE:
        parameter, level_text, short_names = _SURFACE[name]
        return [((parameter, level_text), None, short_names)]
    pieces: list[_Wanted] = []
    for level in levels if VARIABLES[name].on_levels else ():
        recipe: tuple[tuple[str, tuple[str, ...]], ...] = _ON_LEVELS[name]
        if name == "specific_humidity" and ("SPFH", f"{level} mb") not in inventory:
            recipe = _HUMIDITY_FROM_RELATIVE
        pieces += [((parameter, f"{level} mb"), level, short_names) for parameter, short_names in recipe]
    return pieces


def _read_inventory(root: str, remote: Remote, path: str, retry: RetryPolicy) -> _Inventory:
    url = f"{root}/{path}.idx"
    lines = retry.run(lambda: remote.read(url)).decode("utf-8", "replace").splitlines()
    entries: list[tuple[int, str, str]] = []
    for number, line in enumerate(lines, start=1):
        parts = line.split(":")
        if len(parts) < 6 or not parts[1].isdigit():
            raise InvalidFieldError(f"{url}, line {number}: expected number:offset:date:…, got {line[:80]!r}")
        level = f"{parts[4]}:{parts[5]}" if parts[3] == "APCP" else parts[4]
        entries.append((int(parts[1]), parts[3], level))
    if not entries:
        raise MissingDataError(f"{url}: the inventory is empty")
    starts = sorted({offset for offset, _, _ in entries})
    end = _end(f"{root}/{path}", remote, starts[-1], retry)
    following = dict(zip(starts, [*starts[1:], end]))
    inventory: dict[tuple[str, str], tuple[int, int]] = {}
    for offset, parameter, level in entries:  # where bucket and total are the same, APCP comes twice
        inventory.setdefault((parameter, level), (offset, following[offset] - offset))
    return inventory


def _end(url: str, remote: Remote, last: int, retry: RetryPolicy) -> int:
    """Where the last message of a file ends; the inventory names its start alone."""
    size = retry.run(lambda: remote.size(url))
    if size < last + _LONGEST_INDICATOR:
        raise MissingDataError(f"{url}: expected more than {last} bytes, there are {size} yet")
    start = retry.run(lambda: b"".join(remote.stream(url, start=last, length=_LONGEST_INDICATOR)))
    end = last + message_length(start, where=f"{url} at byte {last}")
    if size < end:
        raise MissingDataError(f"{url}: expected {end} bytes, there are {size} yet")
    return end
