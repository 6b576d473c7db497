from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from infra.errors import StoreError
from infra.prediction_files import PredictionFile
from tests.model.tiny import GRID, TASK


def fields(value: float) -> xr.Dataset:
    surface, upper = ("latitude", "longitude"), ("level", "latitude", "longitude")
    return xr.Dataset(
        {
            "2m_temperature": (surface, np.full(GRID.shape, value, np.float32)),
            "temperature": (upper, np.full((2, *GRID.shape), value, np.float32)),
            "total_precipitation_6hr": (surface, np.full(GRID.shape, value, np.float32)),
        }
    )


def reopen(path: Path) -> xr.Dataset:
    if path.suffix == ".nc":
        return xr.load_dataset(path, decode_timedelta=True)
    return xr.open_zarr(path, consolidated=False, decode_timedelta=True).load()


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
@pytest.mark.parametrize("members", [None, 2])
def test_fields_come_back_in_deepminds_form(tmp_path: Path, suffix: str, members: int | None) -> None:
    path = tmp_path / f"out{suffix}"
    with PredictionFile(path, task=TASK, grid=GRID, steps=2, members=members) as file:
        for member in range(members or 1):
            for step in range(2):
                file.write(fields(10 * member + step), step=step, member=member)
    got = reopen(path)
    leading = ("sample",) if members else ()
    assert got["temperature"].dims == (*leading, "batch", "time", "level", "lat", "lon")
    assert got["2m_temperature"].dims == (*leading, "batch", "time", "lat", "lon")
    np.testing.assert_array_equal(got["time"], np.array([6, 12], dtype="timedelta64[h]"))
    np.testing.assert_array_equal(got["lat"], GRID.latitude)
    last = got["temperature"].isel(time=1, batch=0)
    assert (last.isel(sample=1) == 11).all() if members else (last == 1).all()


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_they_are_seen_when_they_are_whole(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    for value in (1.0, 2.0):  # the second time over what is there
        with PredictionFile(path, task=TASK, grid=GRID, steps=2, members=None) as file:
            before = path.exists()
            file.write(fields(value), step=0)
            if value == 1.0:
                assert not path.exists()
            file.write(fields(value), step=1)
        assert before == (value == 2.0)
        assert float(reopen(path)["2m_temperature"].min()) == value
        assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_a_rollout_that_fails_leaves_what_was_there(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    with PredictionFile(path, task=TASK, grid=GRID, steps=1, members=None) as file:
        file.write(fields(7.0), step=0)
    with (
        pytest.raises(KeyError),
        PredictionFile(path, task=TASK, grid=GRID, steps=2, members=None) as file,
    ):
        file.write(fields(8.0).rename({"temperature": "unknown"}), step=0)
    assert float(reopen(path)["2m_temperature"].max()) == 7.0
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_missing_step_is_not_passed_off_as_a_forecast(tmp_path: Path) -> None:
    with (
        pytest.raises(StoreError, match="1 steps were not written, first step 1 of member 0"),
        PredictionFile(tmp_path / "out.nc", task=TASK, grid=GRID, steps=2, members=None) as file,
    ):
        file.write(fields(1.0), step=0)
    assert not (tmp_path / "out.nc").exists()


def test_other_endings_and_places_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"ending in \.nc or \.zarr, got 'out\.csv'"):
        PredictionFile(tmp_path / "out.csv", task=TASK, grid=GRID, steps=1, members=None)
    with pytest.raises(StoreError, match=r"expected a folder to write into, found none at .*absent"):
        PredictionFile(tmp_path / "absent" / "out.nc", task=TASK, grid=GRID, steps=1, members=None)
