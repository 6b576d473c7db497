"""A nature run's archive: one GRIB2 file an analysis time, and what is needed to go on with the run.

A chunk of the run is written analysis by analysis, then the state it ended in: a run that was killed goes on
from the last such state and writes the chunk it was in again, byte for byte. The archive's description is
written once; going on with other settings is refused.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import xarray as xr

from infra import layout
from infra.errors import CheckpointMismatchError, MissingDataError
from infra.grib import decode
from infra.nature_run.analysis import INTERVAL_HOURS
from infra.nature_run.grib_analyses import encode
from infra.object_store import ObjectStore
from model.times import aware_time

INTERVAL = timedelta(hours=INTERVAL_HOURS)


@dataclass(frozen=True, kw_only=True)
class AnalysisArchive:
    """Analyses below a prefix of an object store.

    Args:
        store: where.
        prefix: the archive's folder in it; default the root itself.
    """

    store: ObjectStore
    prefix: str = ""

    @property
    def url(self) -> str:
        """Where the archive is, for people."""
        return self.store.url(self.prefix).rstrip("/")

    def describe(self, description: Mapping[str, Any]) -> None:
        """Record what decides the archive's values.

        Raises:
            CheckpointMismatchError: the archive was begun with something else.
        """
        key = layout.archive_description(self.prefix)
        wanted = json.loads(json.dumps(dict(description)))
        if self.store.create(key, json.dumps(wanted, indent=1).encode()):
            return
        found = json.loads(self.store.read(key))
        different = sorted(name for name in {**found, **wanted} if found.get(name) != wanted.get(name))
        if different:
            changes = "; ".join(
                f"{name}: {found.get(name)!r} there, {wanted.get(name)!r} now" for name in different
            )
            raise CheckpointMismatchError(
                f"{self.store.url(key)}: the archive was begun with other settings ({changes}); "
                "take another prefix, or remove it"
            )

    def write_statics(self, statics: xr.Dataset, valid_time: datetime) -> str:
        """Write orography and land-sea mask; returns the key."""
        key = layout.archived_statics(self.prefix)
        self.store.write(key, encode(statics, valid_time))
        return key

    def write(self, analyses: xr.Dataset) -> list[str]:
        """Write analyses with dim time, one file each; returns their keys."""
        keys = []
        for index, time in enumerate(analyses.time.values):
            valid_time = aware_time(time)
            key = layout.archived_analysis(self.prefix, valid_time)
            self.store.write(key, encode(analyses.isel(time=index).drop_vars("time"), valid_time))
            keys.append(key)
        return keys

    def save_state(self, state: Path) -> None:
        """Keep the simulation's state: everything before it is in the archive."""
        self.store.write(layout.simulation_state(self.prefix), state.read_bytes())

    def load_state(self, folder: Path) -> Path | None:
        """The kept state as a file in a folder, or None at the start of a run."""
        key = layout.simulation_state(self.prefix)
        if not self.store.exists(key):
            return None
        path = folder / Path(key).name
        path.write_bytes(self.store.read(key))
        return path

    def times(self) -> list[datetime]:
        """Valid times of all analyses, in order."""
        below = f"{self.prefix.rstrip('/')}/" if self.prefix else ""
        times = (layout.archived_time(self.prefix, key) for key in self.store.list(below))
        return sorted(time for time in times if time is not None)

    def statics(self) -> xr.Dataset:
        """Orography and land-sea mask on the archive's own grid."""
        return self._decode([layout.archived_statics(self.prefix)])

    def read(self, times: list[datetime]) -> xr.Dataset:
        """Analyses at some times, decoded, on the archive's own grid.

        Raises:
            MissingDataError: one of them is not in the archive.
        """
        keys = [layout.archived_analysis(self.prefix, time) for time in times]
        absent = [key for key in keys if not self.store.exists(key)]
        if absent:
            raise MissingDataError(f"{self.store.root}: no such analyses: {', '.join(absent)}")
        return self._decode(keys)

    def blocks(self, start: datetime, end: datetime, *, size: int = 40) -> Iterator[xr.Dataset]:
        """Analyses from start up to, but without, end, in blocks of successive times.

        Raises:
            MissingDataError: there are none.
        """
        times = [time for time in self.times() if start <= time < end]
        if not times:
            raise MissingDataError(f"{self.url}: no analyses from {start} to {end}")
        for first in range(0, len(times), size):
            yield self.read(times[first : first + size])

    def _decode(self, keys: list[str]) -> xr.Dataset:
        with tempfile.TemporaryDirectory() as folder:
            paths = []
            for number, key in enumerate(keys):
                path = Path(folder) / f"{number:06d}.grib2"
                path.write_bytes(self.store.read(key))
                paths.append(path)
            return decode(paths).load()
