"""A provider whose analyses are the synthetic atmosphere, and a model that takes them; for tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import xarray as xr

from infra.errors import MissingDataError
from infra.settings import ModelSettings
from infra.sources.raw_files import raw_file
from infra.sources.source import Availability, FieldRequest, RawFile, SourceKind, SourceOffer
from model.grid import Grid
from model.task import TaskConfig
from tests.model.diagnostics.atmospheres import SURFACE, UPPER_AIR, synthetic_state, task

GRID = Grid(resolution=10.0)
TASK = task("sea_surface_temperature", levels=(200, 500, 850, 1000))
LOADER = "tests.fakes.synthetic_source:load_model"

Mutation = Callable[[xr.Dataset], xr.Dataset]


def load_model(settings: ModelSettings, device: object) -> SimpleNamespace:
    """What a loader gives, as far as preparing inputs needs it."""
    return SimpleNamespace(
        family="gencast", task=TASK, grid=GRID, description="synthetic", sha256="0" * 64, options={}
    )


@dataclass(frozen=True, kw_only=True)
class SyntheticSource:
    """Writes NetCDF files of the synthetic atmosphere; counts what it is asked for.

    Args:
        name, kind: as of any source.
        config: the variables and levels it has.
        grid: on which its files lie.
        published_until: no analyses after this time.
        lacks: variables it does not have.
        mutate: what goes wrong with a frame on its way.
        fetched: every request it served.
    """

    name: str = "synthetic"
    kind: SourceKind = "era5"
    config: TaskConfig = TASK
    grid: Grid = GRID
    published_until: datetime | None = None
    lacks: frozenset[str] = frozenset()
    mutate: Mutation = field(default=lambda frame: frame)
    fetched: list[FieldRequest] = field(default_factory=list)

    def offers(self) -> SourceOffer:
        names = {*SURFACE, *UPPER_AIR, "geopotential_at_surface", "land_sea_mask"}
        names |= {"sea_surface_temperature", "skin_temperature"}
        return SourceOffer(direct=frozenset(names - self.lacks), levels=self.config.pressure_levels)

    def available(self, request: FieldRequest) -> Availability:
        if self.published_until is not None and request.valid_time > self.published_until:
            return Availability(complete=False, missing=(f"analysis of {request.valid_time:%Y%m%dT%HZ}",))
        return Availability(complete=True)

    def fetch(self, request: FieldRequest, folder: Path) -> tuple[RawFile, ...]:
        missing = self.available(request).missing
        if missing:
            raise MissingDataError(f"{self.name}: {', '.join(missing)}")
        self.fetched.append(request)
        frame = synthetic_state(self.config, self.grid, init_time=request.valid_time).isel(time=[1])
        frame["skin_temperature"] = frame["2m_temperature"].assign_attrs(units="K")
        frame = self.mutate(frame)[list(request.variables)]
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{request.digest}.nc"
        frame.to_netcdf(path, engine="h5netcdf")
        return (raw_file(path, "netcdf", url=f"memory://{self.name}/{path.name}"),)


def write_statistics(folder: Path, config: TaskConfig = TASK) -> Path:
    """Statistics of the synthetic atmosphere in the published files' layout."""
    from datetime import UTC

    from tests.model.diagnostics.atmospheres import statistics_of

    state = synthetic_state(config, GRID, init_time=datetime(2026, 1, 2, tzinfo=UTC))
    statistics = statistics_of(state)
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("mean", "stddev", "diffs_stddev"):
        getattr(statistics, name).to_netcdf(folder / f"{name}_by_level.nc", engine="h5netcdf")
    return folder


def poison(name: str, value: float) -> Mutation:
    """Put a value into one point of a field."""

    def change(frame: xr.Dataset) -> xr.Dataset:
        values = frame[name].values.copy()
        values.reshape(-1)[7] = np.float32(value)
        return frame.assign({name: frame[name].copy(data=values)})

    return change
