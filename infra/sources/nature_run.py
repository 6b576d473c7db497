"""A nature run's archive as a source: one GRIB file an analysis time, in a folder or an object store.

Without a root it serves the analyses bundled with Foldcast. Any archive with that layout will do
(``infra.layout``: ``{yyyymmdd}/{HH}z.grib2`` and ``statics.grib2``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from infra import layout
from infra.demo import bundled
from infra.errors import MissingDataError
from infra.grib_messages import messages
from infra.nature_run.analysis import PRESSURE_LEVELS
from infra.object_store import ObjectStore
from infra.sources.source import Availability, FieldRequest, RawFile, SourceKind, SourceOffer
from infra.whole_files import whole_when_done
from model.variables import STATICS

_DIRECT = frozenset(
    {
        "2m_temperature",
        "10m_u_component_of_wind",
        "10m_v_component_of_wind",
        "mean_sea_level_pressure",
        "sea_surface_temperature",
        "total_precipitation_6hr",
        "temperature",
        "geopotential",
        "u_component_of_wind",
        "v_component_of_wind",
        "specific_humidity",
        "geopotential_at_surface",
        "land_sea_mask",
    }
)
_SIX_HOURS = timedelta(hours=6)


@dataclass(frozen=True, kw_only=True)
class NatureRun:
    """Analyses of a free model run, complete as soon as their file is there.

    Args:
        name: as configured.
        kind: ``nature-run``, unless the archive was made of something else.
        roots: folders or URLs of archives, in order of preference; default the bundled one.
        levels: hPa of the archive.
        options: fsspec storage options of the roots.
    """

    name: str = "nature-run"
    kind: SourceKind = "nature-run"
    roots: tuple[str, ...] = ()
    levels: tuple[int, ...] = PRESSURE_LEVELS
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def offers(self) -> SourceOffer:
        """Every variable of the archive; there is no vertical velocity."""
        return SourceOffer(
            direct=_DIRECT,
            levels=self.levels,
            derived={
                "total_precipitation_12hr": "sum of the two six-hour amounts that end at the valid time"
            },
            unavailable={"vertical_velocity": "the nature run's archive does not hold it"},
        )

    def available(self, request: FieldRequest) -> Availability:
        """Whether all files of the request are in one of the archives."""
        missing: tuple[str, ...] = ()
        for store in self._stores():
            absent = tuple(key for key in _keys(request) if not store.exists(key))
            if not absent:
                lacking = self.offers().lacks(request)
                return Availability(complete=not lacking, missing=lacking, source=store.url(""))
            missing = missing or absent
        return Availability(
            complete=False, missing=missing, source=", ".join(s.url("") for s in self._stores())
        )

    def fetch(self, request: FieldRequest, folder: Path) -> tuple[RawFile, ...]:
        """Copy the request's files into a folder, each message checked.

        Raises:
            MissingDataError: no archive has them all, or a variable or level is in none.
            InvalidFieldError: a file is damaged.
        """
        lacking = self.offers().lacks(request)
        if lacking:
            raise MissingDataError(f"{self.name}: {'; '.join(lacking)}")
        keys = _keys(request)
        for store in self._stores():
            if all(store.exists(key) for key in keys):
                return tuple(_copy(store, key, folder) for key in keys)
        raise MissingDataError(
            f"{self.name}: expected {', '.join(keys)} in {', '.join(s.url('') for s in self._stores())}; "
            "no archive has them all"
        )

    def _stores(self) -> tuple[ObjectStore, ...]:
        roots = self.roots or (str(bundled("analyses")),)
        return tuple(ObjectStore(root=root, options=self.options) for root in roots)


def _keys(request: FieldRequest) -> tuple[str, ...]:
    """Keys of the files that together hold the request."""
    moving = [name for name in request.variables if name not in STATICS]
    times: list[datetime] = [request.valid_time] if moving else []
    if "total_precipitation_12hr" in moving:
        times.insert(0, request.valid_time - _SIX_HOURS)
    keys = [layout.archived_analysis("", time) for time in times]
    if len(moving) < len(request.variables):
        keys.append(layout.archived_statics(""))
    return tuple(keys)


def _copy(store: ObjectStore, key: str, folder: Path) -> RawFile:
    path = folder / key.replace("/", "_")
    data = store.read(key)
    if not path.exists() or path.read_bytes() != data:
        with whole_when_done(path) as temporary:
            temporary.write_bytes(data)
    digests = tuple(hashlib.sha256(message).hexdigest() for message in messages(path))
    return RawFile(path=path, format="grib", url=store.url(key), sha256=digests, size=len(data))
