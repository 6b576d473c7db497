"""A nature run's archive becomes a training store that reads back as regridded analyses."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from infra.errors import MissingDataError
from infra.interpolation import regrid
from infra.nature_run.analysis import to_analyses
from infra.nature_run.archive import AnalysisArchive
from infra.nature_run.simulation import SimulationSettings
from infra.object_store import ObjectStore
from infra.training_archive import read_archive
from model.grid import Grid
from tasks.training_data import write_training_store
from tests.flows.test_nature_run import StandIn

START = datetime(2001, 1, 1, tzinfo=UTC)
GRID = Grid(resolution=45.0)
NAMES = ["2m_temperature", "geopotential", "sea_surface_temperature", "total_precipitation_6hr"]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> AnalysisArchive:
    """Ten six-hourly analyses of a stand-in for a circulation model on a Gaussian grid."""
    archive = AnalysisArchive(store=ObjectStore(root=str(tmp_path_factory.mktemp("archive"))))
    simulation = StandIn(settings=SimulationSettings(seed=1, start=START))
    archive.write_statics(simulation.boundary().statics(), START)
    archive.write(to_analyses(simulation.advance(10), simulation.boundary(), levels=(500,)))
    return archive


def test_the_store_holds_the_regridded_period(
    archive: AnalysisArchive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Blocks of four: the store is written in parts, the last one smaller.
    blocks = archive.blocks
    monkeypatch.setattr(
        AnalysisArchive, "blocks", lambda self, start, end: blocks(start, end, size=4), raising=True
    )
    times = archive.times()
    path = write_training_store(archive, tmp_path / "store.zarr", GRID, start=times[1], end=times[8])

    read = read_archive(path, [*NAMES, "geopotential_at_surface", "land_sea_mask"], [500])
    assert read.sizes["time"] == 7
    assert np.unique(np.diff(read["time"].values)) == np.timedelta64(6, "h")
    assert read["land_sea_mask"].dims == ("latitude", "longitude")
    alone = archive.read([times[5]]).merge(archive.statics(), combine_attrs="override", join="override")
    expected = regrid(alone, GRID, method="linear")
    for name in NAMES:
        values = (
            expected[name].squeeze("time", drop=True) if "time" in expected[name].dims else expected[name]
        )
        xr.testing.assert_allclose(
            read[name].isel(time=4, drop=True).drop_attrs(), values.transpose(*read[name].dims[1:]).drop_attrs(),
            rtol=1e-6,
        )  # fmt: skip


def test_an_existing_store_is_replaced(archive: AnalysisArchive, tmp_path: Path) -> None:
    times = archive.times()
    write_training_store(archive, tmp_path / "store.zarr", GRID, start=times[0], end=times[4])
    write_training_store(archive, tmp_path / "store.zarr", GRID, start=times[4], end=times[6])

    read = read_archive(tmp_path / "store.zarr", ["2m_temperature"], [])
    assert read["time"].values.tolist() == [
        np.datetime64(time.replace(tzinfo=None), "ns").astype(int) for time in times[4:6]
    ]


def test_a_period_without_analyses_is_refused(archive: AnalysisArchive, tmp_path: Path) -> None:
    late = START + timedelta(days=100)
    with pytest.raises(MissingDataError, match="no analyses from"):
        write_training_store(archive, tmp_path / "store.zarr", GRID, start=late, end=late + timedelta(days=1))
    assert not (tmp_path / "store.zarr").exists()
