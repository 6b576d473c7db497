"""The steps of a nature run: open or go on, simulate and archive a chunk, summarise the archive."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import xarray as xr

from infra import layout
from infra.interpolation import regrid
from infra.nature_run.analysis import to_analyses
from infra.nature_run.archive import INTERVAL, AnalysisArchive
from infra.nature_run.simulation import Simulation, SimulationSettings
from model.diagnostics.climatology import HarmonicBasis
from model.grid import Grid
from model.times import numpy_time
from tasks.archive_statistics import archive_statistics, fit_climatology, write_climatology, write_statistics

CHUNK = timedelta(days=10)
"""Simulated between two saved states."""

CLIMATOLOGY = HarmonicBasis(annual=2, daily=0)
CLIMATOLOGY_VARIANCE = HarmonicBasis(annual=1, daily=0)


@dataclass(frozen=True, kw_only=True)
class NatureRunPlan:
    """From when to when.

    Args:
        seed: of the initial perturbation.
        start: time-zone aware start of the spin-up.
        spin_up: not archived.
        length: archived after it.
        held_out: the end of it that takes no part in statistics.
    """

    seed: int
    start: datetime
    spin_up: timedelta
    length: timedelta
    held_out: timedelta = timedelta(0)

    def __post_init__(self) -> None:
        SimulationSettings(seed=self.seed, start=self.start)
        for name in ("spin_up", "length"):
            if getattr(self, name) % INTERVAL:
                raise ValueError(f"{name}: expected a multiple of {INTERVAL}, got {getattr(self, name)}")
        if self.spin_up < timedelta(0) or not timedelta(0) <= self.held_out < self.length:
            raise ValueError(
                "expected spin-up ≥ 0 and 0 ≤ held-out part < length, "
                f"got {self.spin_up}, {self.held_out} and {self.length}"
            )

    @property
    def begin(self) -> datetime:
        """First archived analysis."""
        return self.start + self.spin_up

    @property
    def end(self) -> datetime:
        """End of the run; the last analysis is here."""
        return self.begin + self.length

    def share_done(self, reached: datetime) -> float:
        """How much of the whole run is done, 0…1."""
        return min(1.0, max(0.0, (reached - self.start) / (self.end - self.start)))


def open_run(archive: AnalysisArchive, plan: NatureRunPlan) -> Simulation:
    """The simulation at its start, or where the archive's last chunk ended.

    Raises:
        CheckpointMismatchError: the archive was begun with other settings.
    """
    settings = SimulationSettings(seed=plan.seed, start=plan.start)
    archive.describe(settings.description() | {"archived_from": plan.begin.isoformat()})
    simulation = Simulation(settings=settings)
    with tempfile.TemporaryDirectory() as folder:
        state = archive.load_state(Path(folder))
        if state is None:
            archive.write_statics(simulation.boundary().statics(), plan.begin)
        else:
            simulation.restore(state)
    return simulation


def simulate_chunk(simulation: Simulation, archive: AnalysisArchive, plan: NatureRunPlan) -> datetime:
    """Simulate the next chunk, archive what lies after the spin-up, save the state; the time reached."""
    length = min(CHUNK, plan.end - simulation.time)
    output = simulation.advance(length // INTERVAL)
    analyses = to_analyses(output, simulation.boundary())
    begin = numpy_time(plan.begin)
    archive.write(analyses.sel(time=analyses.time.values >= begin))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "restart.ckpt"
        simulation.save(path)
        archive.save_state(path)
    return simulation.time


def summarise(archive: AnalysisArchive, plan: NatureRunPlan, grid: Grid) -> list[str]:
    """Write normalisation statistics and climatology of what is not held out; their keys."""

    def blocks() -> Iterator[xr.Dataset]:
        statics = archive.statics()
        for block in archive.blocks(plan.begin, plan.end - plan.held_out):
            yield regrid(
                block.merge(statics, combine_attrs="override", join="override"), grid, method="linear"
            )

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_statistics(archive_statistics(blocks(), grid), folder)
        climatology = fit_climatology(blocks, mean=CLIMATOLOGY, variance=CLIMATOLOGY_VARIANCE)
        write_climatology(climatology, folder / "climatology.nc")
        keys = []
        for path in sorted(path for path in folder.rglob("*.nc")):
            key = layout.archive_summary(archive.prefix, str(path.relative_to(folder)))
            archive.store.write(key, path.read_bytes())
            keys.append(key)
    return keys
