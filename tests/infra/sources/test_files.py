from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import fsspec
import numpy as np
import pytest
import xarray as xr
from fsspec.implementations.memory import MemoryFileSystem

from infra.decoding import decode_files
from infra.errors import InvalidFieldError, MissingDataError, TransientSourceError
from infra.retry import RetryPolicy
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
    with pytest.raises(MissingDataError, match="nothing"):
        Files(root=str(root / "nothing")).fetch(request("temperature"), tmp_path)


def test_the_pattern_spares_reading_other_files(root: Path, tmp_path: Path) -> None:
    (root / "damaged_2026010100.grib").write_bytes(b"GRIB rubbish")
    (root / "sound_2026010106.grib").write_bytes(raw("u", 500))
    source = Files(root=str(root), pattern="*_{valid_time:%Y%m%d%H}.grib")
    (file,) = source.fetch(request("u_component_of_wind"), tmp_path)
    assert len(file.sha256) == 1
    with pytest.raises(InvalidFieldError, match=r"damaged_2026010100.grib at byte 0"):
        Files(root=str(root)).fetch(request("u_component_of_wind"), tmp_path)


@dataclass
class Bucket:
    """An object store in memory: bytes read of each object, and how often reading fails from now on."""

    read: Counter[str] = field(default_factory=Counter)
    failing: str = ""
    faults: int = 0


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    state, original = Bucket(), MemoryFileSystem.cat_file

    def cat_file(self: MemoryFileSystem, path: str, start=None, end=None, **options) -> bytes:
        if state.faults and state.failing in path:
            state.faults -= 1
            raise ConnectionResetError("connection reset by peer")
        data = original(self, path, start=start, end=end, **options)
        state.read[path] += len(data)
        return data

    monkeypatch.setattr(MemoryFileSystem, "cat_file", cat_file)
    yield state
    fsspec.filesystem("memory").rm("/bucket", recursive=True)


def put(folder: Path) -> Files:
    fsspec.filesystem("memory").put(str(folder), "/bucket", recursive=True)
    return Files(root="memory://bucket", retry=RetryPolicy(attempts=3, sleep=lambda _: None))


def test_looking_what_is_there_reads_no_data(tmp_path: Path, bucket: Bucket) -> None:
    folder = tmp_path / "archive"
    folder.mkdir()
    latitude, longitude = axes(1.0, first_longitude=0.0)
    values = np.random.default_rng(0).normal(280.0, 10.0, (latitude.size, longitude.size))
    options = {"init_time": TIME, "packing": "grid_simple", "bits": 24}
    upper = [
        message("t", values, latitude, longitude, level=level, **options) for level in (500, 700, 850, 925)
    ]
    (folder / "upper.grib2").write_bytes(b"".join(upper))
    times = np.datetime64("2026-01-01T00", "ns") + np.arange(24) * np.timedelta64(1, "h")
    coords = {"time": times, "latitude": latitude, "longitude": longitude}
    many = np.broadcast_to(values.astype(np.float32), (24, *values.shape)).copy()
    dims = ("time", "latitude", "longitude")
    xr.Dataset({"msl": (dims, many, {"units": "Pa"})}, coords).to_netcdf(folder / "msl.nc", engine="h5netcdf")
    encoding = {"sst": {"chunks": (1, *values.shape)}}
    xr.Dataset({"sst": (dims, many)}, coords).to_zarr(
        folder / "sst.zarr", consolidated=True, encoding=encoding
    )
    source = put(folder)
    wanted = request("temperature", "mean_sea_level_pressure", "sea_surface_temperature")
    assert source.available(wanted).complete
    assert bucket.read["/bucket/upper.grib2"] <= 4 * 4096
    assert bucket.read["/bucket/msl.nc"] < 0.2 * (folder / "msl.nc").stat().st_size
    assert not [path for path in bucket.read if "/sst.zarr/sst/c/" in path]
    bucket.read.clear()
    files = source.fetch(wanted, tmp_path / "copies")
    assert bucket.read["/bucket/upper.grib2"] < len(upper[0]) + 5 * 4096  # the one message at 500 hPa
    assert len([path for path in bucket.read if "/sst.zarr/sst/c/" in path]) == 1
    got = decode_files(files, wanted, grid=Grid(resolution=1), trusted=True)
    np.testing.assert_allclose(got["temperature"][0, 0, ::-1], values, atol=1e-4)
    np.testing.assert_array_equal(got["mean_sea_level_pressure"][0, ::-1], values.astype(np.float32))


@pytest.mark.parametrize("failing", ["upper.grib2", "msl.nc", "sst.zarr/sst/c", "sst.zarr/zarr.json"])
def test_what_the_network_does_is_tried_again(
    root: Path, tmp_path: Path, bucket: Bucket, failing: str
) -> None:
    source, wanted = put(root), request("temperature", "mean_sea_level_pressure", "sea_surface_temperature")
    bucket.failing, bucket.faults = failing, 2
    files = source.fetch(wanted, tmp_path / "copies")
    assert set(decode_files(files, wanted, grid=GRID, trusted=True)) == set(wanted.variables)
    bucket.faults = 10**6
    with pytest.raises(TransientSourceError, match=r"after 3 attempts"):
        source.fetch(wanted, tmp_path / "never")


def test_distinct_paths_have_distinct_copies(root: Path, tmp_path: Path) -> None:
    (root / "inner" / "wind.grib").write_bytes(raw("u", 500))
    (root / "inner-wind.grib").write_bytes(raw("v", 500))
    wanted = request("u_component_of_wind", "v_component_of_wind")
    files = Files(root=str(root)).fetch(wanted, tmp_path / "copies")
    assert len({file.path for file in files}) == 2
    assert set(decode_files(files, wanted, grid=GRID, trusted=True)) == set(wanted.variables)


def hourly(folder: Path, hours: range) -> Path:
    """Precipitation of the hour that ends so many hours before ``TIME``, one more mm every hour back."""
    folder.mkdir(parents=True, exist_ok=True)
    latitude, longitude = np.linspace(90, -90, 7), 30.0 * np.arange(12)
    for hour in hours:
        end = TIME - timedelta(hours=hour)
        stamp = np.array([end.replace(tzinfo=None)], "datetime64[ns]")
        coords = {"valid_time": stamp, "latitude": latitude, "longitude": longitude}
        amount = np.full((1, 7, 12), 1e-3 * (hour + 1), np.float32)
        dims = ("valid_time", "latitude", "longitude")
        dataset = xr.Dataset({"tp": (dims, amount, {"units": "m"})}, coords)
        dataset.to_netcdf(folder / f"tp_{end:%Y%m%d%H}.nc", engine="h5netcdf")
    return folder


def test_hours_of_precipitation_in_netcdf_add_up(tmp_path: Path) -> None:
    pattern = "tp_{valid_time:%Y%m%d%H}.nc"
    source = Files(root=str(hourly(tmp_path / "rain", range(12))), pattern=pattern)
    for name, hours in (("total_precipitation_6hr", 6), ("total_precipitation_12hr", 12)):
        wanted = request(name)
        assert source.available(wanted).complete
        dataset = decode_files(source.fetch(wanted, tmp_path / name), wanted, grid=GRID)
        np.testing.assert_allclose(dataset[name], 1e-3 * hours * (hours + 1) / 2, rtol=1e-6)


def test_too_few_hours_or_hours_of_who_knows_what_do_not_add_up(tmp_path: Path) -> None:
    wanted = request("total_precipitation_6hr")
    few = Files(root=str(hourly(tmp_path / "few", range(5))))
    unknown = Files(root=str(hourly(tmp_path / "unknown", range(6))), kind="hres")  # HRES: since the start
    for source in (few, unknown):
        assert source.available(wanted).missing == ("total_precipitation_6hr",)
        with pytest.raises(MissingDataError):
            source.fetch(wanted, tmp_path / "copies")


def test_twelve_hours_are_the_difference_of_totals_since_the_start(tmp_path: Path) -> None:
    folder, start = tmp_path / "archive", TIME - timedelta(hours=24)
    folder.mkdir()
    latitude, longitude = axes(30.0, first_longitude=0.0)

    def total(hours: int, metres: float) -> bytes:
        field = np.full((latitude.size, longitude.size), metres)
        return message("tp", field, latitude, longitude, init_time=start, step=hours, packing="grid_simple")

    (folder / "day.grib2").write_bytes(total(24, 0.03))
    wanted = request("total_precipitation_12hr")
    assert Files(root=str(folder)).available(wanted).missing == ("total_precipitation_12hr",)
    (folder / "half.grib2").write_bytes(total(12, 0.01))
    source = Files(root=str(folder))
    assert source.available(wanted).complete
    dataset = decode_files(source.fetch(wanted, tmp_path / "copies"), wanted, grid=GRID, trusted=True)
    np.testing.assert_allclose(dataset["total_precipitation_12hr"], 0.02, rtol=1e-4)
