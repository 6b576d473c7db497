from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from infra.decoding import decode_files
from infra.errors import MissingDataError
from infra.initial_conditions import load_initial_condition
from infra.settings import ModelSettings, RunSettings, Settings, SourceSettings, StoreSettings
from infra.sources.deepmind_dataset import DeepMindDataset
from infra.sources.source import FieldRequest
from model.cycle import Cycle
from model.grid import Grid
from tasks.initial_conditions import prepare_initial_condition
from tests.fakes.synthetic_source import GRID, LOADER, TASK
from tests.model.diagnostics.atmospheres import INIT_TIME, synthetic_state


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Laid out as the published example datasets are."""
    rows, columns = 7, 12
    fields = np.arange(2, dtype=np.float32)[None, :, None, None] + np.zeros((1, 2, rows, columns), np.float32)
    upper = np.stack([fields, fields + 10], axis=2)
    dataset = xr.Dataset(
        {
            "2m_temperature": (("batch", "time", "lat", "lon"), fields),
            "temperature": (("batch", "time", "level", "lat", "lon"), upper),
            "land_sea_mask": (("lat", "lon"), np.ones((rows, columns), np.float32)),
        },
        coords={
            "lat": np.linspace(-90, 90, rows, dtype=np.float32),
            "lon": 30 * np.arange(columns, dtype=np.float32),
            "level": np.array([500, 850], np.int32),
            "time": np.array([0, 6], "timedelta64[h]").astype("timedelta64[ns]"),
            "datetime": (("batch", "time"), np.array([["2022-01-01T00", "2022-01-01T06"]], "datetime64[ns]")),
        },
    )
    file = tmp_path / "source-hres_date-2022-01-01_res-1.0_levels-13_steps-01.nc"
    dataset.to_netcdf(file, engine="h5netcdf")
    return file


def request(hour: int, *variables: str) -> FieldRequest:
    levels = (850,) if "temperature" in variables else ()
    time = datetime(2022, 1, 1, hour, tzinfo=UTC)
    return FieldRequest(valid_time=time, variables=variables, levels=levels)


def test_a_time_of_the_file_is_an_analysis(path: Path, tmp_path: Path) -> None:
    source = DeepMindDataset.from_name(path)
    assert source.kind == "hres"
    wanted = request(6, "2m_temperature", "temperature", "land_sea_mask")
    assert source.available(wanted).complete
    dataset = decode_files(source.fetch(wanted, tmp_path / "copy"), wanted, grid=Grid(resolution=30))
    assert float(dataset["temperature"].sel(level=850)[0, 0, 0]) == 11
    assert "time" not in dataset["land_sea_mask"].dims


def test_what_the_file_lacks_is_named(path: Path, tmp_path: Path) -> None:
    source = DeepMindDataset.from_name(path)
    with pytest.raises(MissingDataError, match="20220101T12Z: the file has 20220101T00Z to 20220101T06Z"):
        source.fetch(request(12, "2m_temperature"), tmp_path)
    assert "geopotential" in source.available(request(6, "geopotential_at_surface")).missing[0]


def test_statics_alone_are_of_no_time(path: Path, tmp_path: Path) -> None:
    source, wanted = DeepMindDataset.from_name(path), request(6, "land_sea_mask")
    assert source.available(wanted).complete
    (file,) = source.fetch(wanted, tmp_path / "copy")
    dataset = decode_files([file], wanted, grid=Grid(resolution=30))
    assert dataset["land_sea_mask"].dims == ("latitude", "longitude")


def test_an_example_dataset_becomes_an_initial_condition(tmp_path: Path) -> None:
    state = synthetic_state(TASK, GRID, init_time=INIT_TIME)
    published = state.rename(latitude="lat", longitude="lon").drop_attrs()
    published = published.assign_coords(
        time=published["time"] - published["time"][0], datetime=("time", state["time"].values)
    )
    moving = [name for name in published.data_vars if "time" in published[name].dims]
    published = published.assign({name: published[name].expand_dims("batch") for name in moving})
    published = published.assign_coords(datetime=published["datetime"].expand_dims("batch"))
    path = tmp_path / "source-era5_date-2026-01-01_res-10.0_levels-4_steps-00.nc"
    published.to_netcdf(path, engine="h5netcdf")
    settings = Settings(
        store=StoreSettings(root=str(tmp_path / "store")),
        run=RunSettings(cache=str(tmp_path / "cache")),
        sources={"example": SourceSettings(type="deepmind", kind="era5", roots=(str(path),))},
        models={
            "synthetic": ModelSettings(
                checkpoint="none",
                statistics="none",
                loader=LOADER,
                trained_on="era5",
                source="example",
                steps=1,
            )
        },
    )
    cycle = Cycle(model="synthetic", init_time=INIT_TIME)
    prepare_initial_condition(cycle, settings)
    stored = load_initial_condition(settings.store.open(), cycle)
    for name in state.data_vars:
        np.testing.assert_array_equal(stored[name].values, state[name].values, err_msg=str(name))
