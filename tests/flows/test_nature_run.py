"""The nature run's story with a stand-in for the circulation model: archive, kill, go on, same bytes."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import tasks.nature_run
from flows.nature_run import complete_archive, plan_of
from infra.errors import CheckpointMismatchError
from infra.nature_run.analysis import Boundary, ModelOutput, to_analyses
from infra.nature_run.archive import INTERVAL, AnalysisArchive
from infra.nature_run.simulation import SimulationSettings
from infra.object_store import ObjectStore
from model.diagnostics.climatology import HarmonicBasis
from model.grid import Grid
from tasks.nature_run import NatureRunPlan

LATITUDE = np.degrees(np.arcsin([0.960289856, 0.796666477, 0.525532410, 0.183434642]))  # 8 Gaussian rows
LATITUDE = np.concatenate([LATITUDE, -LATITUDE[::-1]])
START = datetime(2001, 1, 1, tzinfo=UTC)
SPIN_UP = timedelta(hours=18)
GRID = Grid(resolution=45.0)


class Killed(Exception):
    """What the stand-in raises where a machine would die."""


class StandIn:
    """A 'circulation model' whose next frame is a seeded function of its last one and the time."""

    die_at: datetime | None = None

    def __init__(self, *, settings: SimulationSettings) -> None:
        self.time = settings.start
        self.value = float(settings.seed)

    def boundary(self) -> Boundary:
        return Boundary(
            latitude=LATITUDE,
            longitude=np.arange(16) * 22.5,
            sigma=np.array([0.1, 0.5, 0.95]),
            geopotential_at_surface=np.zeros((8, 16)),
            land_sea_mask=np.zeros((8, 16)),
            sea_surface_temperature=np.full((365, 8, 16), 285.0),
        )

    def advance(self, intervals: int) -> ModelOutput:
        values = []
        for _ in range(intervals):
            self.time += INTERVAL
            if self.die_at is not None and self.time >= self.die_at:
                raise Killed
            self.value = float(np.cos(3.0 * self.value + self.time.timestamp()))
            values.append(self.value)
        pattern = np.sin(np.radians(LATITUDE))[:, None] + np.cos(np.radians(np.arange(16) * 22.5))
        surface = np.asarray(values)[:, None, None] * pattern
        layers = np.repeat(surface[:, None], 3, axis=1)
        times = [self.time - INTERVAL * (intervals - 1 - i) for i in range(intervals)]
        return ModelOutput(
            time=np.array([t.replace(tzinfo=None) for t in times], dtype="datetime64[ns]"),
            surface_pressure=1.0e5 + 100 * surface,
            temperature=250 + layers,
            geopotential=5e4 + layers,
            specific_humidity=1e-3 + 1e-4 * layers,
            u_component_of_wind=layers,
            v_component_of_wind=-layers,
            precipitation=1e-5 * np.abs(surface),
            near_surface_temperature=280 + surface,
            near_surface_u=surface,
            near_surface_v=surface,
        )

    def save(self, path: Path) -> None:
        path.write_text(json.dumps([self.time.isoformat(), self.value]))

    def restore(self, path: Path) -> None:
        time, self.value = json.loads(path.read_text())
        self.time = datetime.fromisoformat(time)


@pytest.fixture(autouse=True)
def small_chunks_of_the_stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks.nature_run, "Simulation", StandIn)
    monkeypatch.setattr(tasks.nature_run, "CHUNK", timedelta(days=1))
    monkeypatch.setattr(tasks.nature_run, "CLIMATOLOGY", HarmonicBasis(annual=0, daily=0))
    monkeypatch.setattr(tasks.nature_run, "CLIMATOLOGY_VARIANCE", HarmonicBasis(annual=0, daily=0))
    monkeypatch.setattr(tasks.nature_run, "to_analyses", partial(to_analyses, levels=(500,)))
    monkeypatch.setattr(SimulationSettings, "description", lambda self: {"seed": self.seed})


def plan(seed: int = 1) -> NatureRunPlan:
    return NatureRunPlan(
        seed=seed, start=START, spin_up=SPIN_UP, length=timedelta(days=2), held_out=timedelta(hours=12)
    )


def run(folder: Path, seed: int = 1) -> tuple[AnalysisArchive, list[tuple[datetime, float]]]:
    archive = AnalysisArchive(store=ObjectStore(root=str(folder)))
    reports: list[tuple[datetime, float]] = []
    complete_archive(archive, plan(seed), GRID, lambda reached, share: reports.append((reached, share)))
    return archive, reports


def contents(archive: AnalysisArchive) -> dict[str, bytes]:
    return {key: archive.store.read(key) for key in archive.store.list("") if key.endswith(".grib2")}


def test_spin_up_is_dropped_and_the_rest_is_archived(tmp_path: Path) -> None:
    archive, reports = run(tmp_path)
    times = archive.times()
    assert (times[0], times[-1], len(times)) == (START + SPIN_UP, START + SPIN_UP + timedelta(days=2), 9)
    assert [share for _, share in reports] == pytest.approx([24 / 66, 48 / 66, 1.0])  # hours
    mean = archive.store.path("summary/graphcast_stats/mean_by_level.nc")
    with xr.open_dataset(mean, engine="h5netcdf") as statistics:
        assert float(statistics["sea_surface_temperature"]) == pytest.approx(285.0, abs=0.01)
    with xr.open_dataset(archive.store.path("summary/climatology.nc"), engine="h5netcdf") as climatology:
        assert climatology.attrs["times"] == 6  # two days, the last twelve hours held out


def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = run(tmp_path / "whole")
    monkeypatch.setattr(StandIn, "die_at", START + timedelta(hours=42))
    with pytest.raises(Killed):
        run(tmp_path / "killed")
    monkeypatch.setattr(StandIn, "die_at", None)
    resumed, reports = run(tmp_path / "killed")
    assert [reached for reached, _ in reports] == [START + timedelta(days=2), START + timedelta(hours=66)]
    assert contents(resumed) == contents(whole)
    again, reports = run(tmp_path / "killed")
    assert not reports
    assert contents(again) == contents(whole)


def test_seeds_differ_and_do_not_mix(tmp_path: Path) -> None:
    one, _ = run(tmp_path / "one")
    other = StandIn(settings=SimulationSettings(seed=2, start=START))
    values = to_analyses(other.advance(4), other.boundary(), levels=(500,))
    assert not np.allclose(
        values["2m_temperature"][3], one.read([START + timedelta(days=1)])["2m_temperature"]
    )
    with pytest.raises(CheckpointMismatchError, match="seed: 1 there, 2 now"):
        run(tmp_path / "one", seed=2)


def test_plans_that_make_no_sense_are_refused() -> None:
    assert plan_of(years=2, seed=0).length == timedelta(days=730)
    with pytest.raises(ValueError, match="held-out part < length"):
        plan_of(years=1, seed=0, held_out_years=1)
    with pytest.raises(ValueError, match="seed"):
        plan_of(years=1, seed=-1)
