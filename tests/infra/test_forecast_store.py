"""The forecast store: laid out once, grown without loss, written by whole chunks, verified by checksums."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from infra.errors import IncompleteCycleError, InvalidFieldError, StoreError
from infra.forecast_store import (
    ForecastWriter,
    chunk_key,
    chunk_step,
    create_forecast_store,
    damaged_chunks,
    expected_chunks,
    open_forecast,
    verify_member,
)
from infra.object_store import ObjectStore
from model.grid import Grid
from tests.fakes.pass_through import TASK

KEY = "runs/x/forecast.zarr"
GRID = Grid(resolution=30.0)
INIT_TIME = datetime(2026, 1, 1, 12, tzinfo=UTC)
TEMPERATURE = chunk_key("temperature", 1, 2, column=True)


def lay_out(store: ObjectStore, *, members: int = 2, steps: int = 3, grid: Grid = GRID) -> None:
    create_forecast_store(
        store,
        KEY,
        task=TASK,
        grid=grid,
        init_time=INIT_TIME,
        members=members,
        steps=steps,
        attrs={"run": "x"},
    )


def fields(seed: int = 0) -> xr.Dataset:
    random = np.random.default_rng(seed)
    return xr.Dataset(
        {
            "2m_temperature": (("latitude", "longitude"), random.random(GRID.shape, dtype=np.float32)),
            "temperature": (
                ("level", "latitude", "longitude"),
                random.random((2, *GRID.shape), dtype=np.float32),
            ),
        }
    )


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    store = ObjectStore(root=str(tmp_path))
    lay_out(store)
    return store


@pytest.fixture
def writer(store: ObjectStore) -> ForecastWriter:
    return ForecastWriter(store=store, key=KEY, variables=TASK.target_variables)


def test_coordinates_say_what_lies_where(store: ObjectStore) -> None:
    forecast = open_forecast(store, KEY)
    assert dict(forecast.sizes) == {
        "member": 2, "lead_time": 3, "level": 2, "latitude": 7, "longitude": 12
    }  # fmt: skip
    assert forecast["lead_time"].values.tolist() == [
        np.timedelta64(timedelta(hours=h), "ns").item() for h in (6, 12, 18)
    ]
    assert forecast["init_time"].values == np.datetime64("2026-01-01T12")
    assert forecast["level"].values.tolist() == [500, 850]
    assert forecast["temperature"].dims == ("member", "lead_time", "level", "latitude", "longitude")
    assert forecast["temperature"].attrs["units"] == "K"
    assert forecast["temperature"].encoding["chunks"] == (1, 1, 2, 7, 12)


def test_a_written_step_is_read_back_and_the_rest_is_missing(
    store: ObjectStore, writer: ForecastWriter
) -> None:
    writer.write_step(1, 2, fields())
    forecast = open_forecast(store, KEY)
    for name in TASK.target_variables:
        np.testing.assert_array_equal(forecast[name].values[1, 2], fields()[name].values)
    assert np.isnan(forecast["temperature"].values[0]).all()
    assert np.isnan(forecast["temperature"].values[1, :2]).all()


def test_dimensions_in_another_order_are_put_right(store: ObjectStore, writer: ForecastWriter) -> None:
    writer.write_step(0, 0, fields().transpose("longitude", "latitude", "level"))
    np.testing.assert_array_equal(
        open_forecast(store, KEY)["temperature"].values[0, 0], fields()["temperature"].values
    )


def test_checksums_are_of_the_stored_bytes_and_repeat(store: ObjectStore, writer: ForecastWriter) -> None:
    first = writer.write_step(1, 2, fields())
    assert sorted(first) == sorted(expected_chunks(TASK, 1, [2]))
    assert damaged_chunks(store, KEY, first) == {}
    again: dict[str, str] = {}
    thread = threading.Thread(target=lambda: again.update(writer.write_step(1, 2, fields())))
    thread.start()
    thread.join()
    assert again == first, "the same values give the same bytes, whichever thread writes them"


def test_a_field_of_nothing_but_nan_is_stored_too(store: ObjectStore, writer: ForecastWriter) -> None:
    checksums = writer.write_step(0, 0, xr.full_like(fields(), np.nan))
    assert damaged_chunks(store, KEY, checksums) == {}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (fields().drop_vars("temperature"), "expected variables"),
        (fields().assign(more=fields()["2m_temperature"]), "expected variables"),
        (fields().astype(np.float64), r"expected float32 .* got float64"),
        (fields().isel(latitude=slice(1, None)), "expected float32"),
    ],
)
def test_a_step_that_does_not_fit_is_refused(writer: ForecastWriter, wrong: xr.Dataset, message: str) -> None:
    with pytest.raises(InvalidFieldError, match=message):
        writer.write_step(1, 2, wrong)


def test_growing_keeps_what_is_there(store: ObjectStore, writer: ForecastWriter) -> None:
    checksums = writer.write_step(1, 2, fields())
    lay_out(store, members=5, steps=9)
    lay_out(store, members=1, steps=1)
    forecast = open_forecast(store, KEY)
    assert (forecast.sizes["member"], forecast.sizes["lead_time"]) == (5, 9)
    np.testing.assert_array_equal(forecast["temperature"].values[1, 2], fields()["temperature"].values)
    assert damaged_chunks(store, KEY, checksums) == {}
    assert open_forecast(store, KEY, members=[4])["member"].values.tolist() == [4]


@pytest.mark.parametrize("listed", [TASK.target_variables, TASK.target_variables[::-1]])
def test_variables_come_in_one_order_however_the_store_lists_them(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, listed: tuple[str, ...]
) -> None:
    whole = xr.open_zarr(store.zarr(KEY, read_only=True), chunks=None, consolidated=False)
    monkeypatch.setattr(xr, "open_zarr", lambda *_, **__: whole[list(listed)])
    assert list(open_forecast(store, KEY).data_vars) == sorted(TASK.target_variables)


def test_another_grid_under_the_same_key_is_refused(store: ObjectStore) -> None:
    with pytest.raises(InvalidFieldError, match="latitude differs"):
        lay_out(store, grid=Grid(resolution=15.0))


def test_a_store_that_was_not_laid_out_is_refused(tmp_path: Path) -> None:
    store = ObjectStore(root=str(tmp_path / "empty"))
    with pytest.raises(StoreError, match="was not laid out"):
        ForecastWriter(store=store, key=KEY, variables=("temperature",)).write_step(0, 0, fields())
    with pytest.raises(StoreError, match="could not be opened"):
        open_forecast(store, KEY)


def test_verification_names_the_missing_and_the_damaged(store: ObjectStore, writer: ForecastWriter) -> None:
    checksums: dict[str, str] = {}
    for step in range(3):
        checksums |= writer.write_step(1, step, fields(step))
    verify_member(store, KEY, TASK, member=1, steps=3, checksums=checksums)
    data = store.read(f"{KEY}/{TEMPERATURE}")
    store.write(f"{KEY}/{TEMPERATURE}", data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(IncompleteCycleError, match=r"1 of 6 chunks .*temperature/c/1/2.*expected sha256"):
        verify_member(store, KEY, TASK, member=1, steps=3, checksums=checksums)
    store.delete(f"{KEY}/{TEMPERATURE}")
    with pytest.raises(IncompleteCycleError, match="no such object"):
        verify_member(store, KEY, TASK, member=1, steps=3, checksums=checksums)
    with pytest.raises(IncompleteCycleError, match="manifest lacks 2"):
        verify_member(store, KEY, TASK, member=1, steps=4, checksums=checksums)


def test_a_chunk_key_says_its_step() -> None:
    assert chunk_step(TEMPERATURE) == 2
    assert chunk_step(chunk_key("2m_temperature", 12, 39, column=False)) == 39
