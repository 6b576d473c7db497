from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from infra.decoding import decode_files
from infra.errors import InvalidFieldError, MissingDataError
from infra.sources.files import Files
from infra.sources.source import FieldRequest
from model.grid import Grid
from tests.tools.grib_fields import axes, message, weather

TIME = datetime(2026, 1, 1, 6, tzinfo=UTC)
GRID = Grid(resolution=30)


def raw(short_name: str, level: int | None = None, init_time: datetime = TIME, **options) -> bytes:
    latitude, longitude = axes(30.0, first_longitude=0.0)
    field = weather(short_name, level, init_time, latitude, longitude)
    return message(short_name, field, latitude, longitude, init_time=init_time, level=level, **options)


def request(*variables: str) -> FieldRequest:
    return FieldRequest(valid_time=TIME, variables=variables, levels=(500,))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "archive"
    (folder / "inner").mkdir(parents=True)
    other = TIME - timedelta(hours=6)
    (folder / "inner" / "upper.grib2").write_bytes(
        raw("t", 500) + raw("t", 850) + raw("t", 500, other) + raw("r", 500) + raw("2t", edition=1)
    )
    (folder / "rain.grb").write_bytes(raw("tp", None, other, step=6))
    latitude, longitude = np.linspace(90, -90, 7), 30.0 * np.arange(12)
    times = np.array(["2026-01-01T00", "2026-01-01T06"], "datetime64[ns]")
    coords = {"valid_time": times, "latitude": latitude, "longitude": longitude}
    rows = np.arange(2, dtype=np.float32)[:, None, None] + np.zeros((2, 7, 12), np.float32)
    dims = ("valid_time", "latitude", "longitude")
    xr.Dataset({"msl": (dims, rows)}, coords).to_netcdf(folder / "msl.nc", engine="h5netcdf")
    xr.Dataset({"sst": (dims, rows)}, coords).to_zarr(folder / "sst.zarr", consolidated=True)
    (folder / "README.txt").write_text("no data")
    return folder


NAMES = (
    "temperature",
    "specific_humidity",
    "2m_temperature",
    "mean_sea_level_pressure",
    "sea_surface_temperature",
    "total_precipitation_6hr",
)


def test_all_formats_below_a_folder_make_one_state(root: Path, tmp_path: Path) -> None:
    source = Files(root=str(root))
    assert source.available(request(*NAMES)).complete
    files = source.fetch(request(*NAMES), tmp_path / "copies")
    assert {file.format for file in files} == {"grib", "netcdf"}
    upper = next(file for file in files if "upper" in file.path.name)
    assert len(upper.sha256) == 3  # t and r at 500 hPa and 2t at the time, not the other level or time
    dataset = decode_files(files, request(*NAMES), grid=GRID, trusted=True)
    assert tuple(dataset) == NAMES
    assert float(dataset["mean_sea_level_pressure"][0, 0, 0]) == 1  # the second time


def test_an_object_store_prefix_gives_the_same(root: Path, tmp_path: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.put(str(root), "/archive", recursive=True)
    there = Files(root="memory://archive")
    here = Files(root=str(root))
    try:
        from_store = there.fetch(request(*NAMES), tmp_path / "a")
    finally:
        memory.rm("/archive", recursive=True)
    from_folder = here.fetch(request(*NAMES), tmp_path / "b")
    decoded = [
        decode_files(files, request(*NAMES), grid=GRID, trusted=True) for files in (from_store, from_folder)
    ]
    xr.testing.assert_equal(*decoded)


def test_what_is_missing_is_named(root: Path, tmp_path: Path) -> None:
    availability = Files(root=str(root)).available(request("temperature", "vertical_velocity"))
    assert availability.missing == ("vertical_velocity at 500 hPa",)
    with pytest.raises(MissingDataError, match=r"no file matching '\*' holds any of vertical_velocity"):
        Files(root=str(root)).fetch(request("vertical_velocity"), tmp_path)
    with pytest.raises(MissingDataError):
        Files(root=str(root / "nothing")).fetch(request("temperature"), tmp_path)


def test_the_pattern_spares_reading_other_files(root: Path, tmp_path: Path) -> None:
    (root / "damaged_2026010100.grib").write_bytes(b"GRIB rubbish")
    (root / "sound_2026010106.grib").write_bytes(raw("u", 500))
    source = Files(root=str(root), pattern="*_{valid_time:%Y%m%d%H}.grib")
    (file,) = source.fetch(request("u_component_of_wind"), tmp_path)
    assert len(file.sha256) == 1
    with pytest.raises(InvalidFieldError, match=r"damaged_2026010100.grib at byte 0"):
        Files(root=str(root)).fetch(request("u_component_of_wind"), tmp_path)
