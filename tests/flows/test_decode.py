from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from flows.decode import absent_fields, decode_file, describe, print_summary, regrid_file
from infra.errors import InvalidFieldError, UnknownOptionError
from model.grid import Grid
from tests.tools.grib_fields import axes, message, weather

INIT = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def grib(tmp_path: Path) -> Path:
    latitude, longitude = axes(15.0)
    path = tmp_path / "in.grib"
    raws = [
        message(
            name,
            weather(name, level, INIT, latitude, longitude),
            latitude,
            longitude,
            init_time=INIT,
            level=level,
        )
        for name, level in (("t", 500), ("t", 850), ("u", 500))
    ]
    path.write_bytes(b"".join(raws))
    return path


def test_grib_to_netcdf(grib: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.nc"
    written = decode_file(grib, out)
    with xr.open_dataset(out) as read:
        xr.testing.assert_equal(read.load(), written)
    rows = describe(written)
    assert [row[0] for row in rows] == ["temperature", "u_component_of_wind"]
    assert rows[0][1:3] == ("1 time × 2 level × 13 latitude × 24 longitude", "K")
    assert absent_fields(written) == ["u_component_of_wind at 850 hPa, valid 20260101T00Z"]


def test_the_summary_names_what_was_written_and_what_lacked(
    grib: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    print_summary(decode_file(grib, tmp_path / "out.nc"), tmp_path / "out.nc")
    printed = capsys.readouterr().out
    assert "temperature" in printed
    assert "no message for 1 combinations" in printed


def test_netcdf_to_another_grid_as_zarr(tmp_path: Path) -> None:
    latitude, longitude = np.linspace(90, -90, 13), 15.0 * np.arange(24)
    field = weather("t", 500, INIT, latitude, longitude)
    dataset = xr.Dataset(
        {"t2m": (("latitude", "longitude"), field, {"units": "K"})},
        coords={"latitude": latitude, "longitude": longitude},
    )
    dataset.to_netcdf(tmp_path / "in.nc", engine="h5netcdf")
    regrid_file(tmp_path / "in.nc", tmp_path / "out.zarr", resolution=30.0)
    with xr.open_zarr(tmp_path / "out.zarr") as read:
        assert Grid(resolution=30).mismatch(read) is None
        np.testing.assert_array_equal(read["2m_temperature"], field[::2, ::2][::-1].astype(np.float32))


def test_what_cannot_be_done_leaves_nothing_behind(grib: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.grib"
    damaged.write_bytes(grib.read_bytes()[:-2])
    with pytest.raises(InvalidFieldError, match=r"damaged.grib at byte"):
        decode_file(damaged, tmp_path / "out.nc")
    with pytest.raises(InvalidFieldError, match=r"nothing.grib: no such file"):
        decode_file(tmp_path / "nothing.grib", tmp_path / "out.nc")
    with pytest.raises(UnknownOptionError, match=r"ending in .nc or .zarr"):
        decode_file(grib, tmp_path / "out.txt")
    assert not list(tmp_path.glob("*.nc"))
