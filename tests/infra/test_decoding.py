from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from infra.decoding import decode_files, decode_isolated
from infra.errors import InvalidFieldError, MissingDataError
from infra.grib import decode
from infra.sources.field_copies import write_copy
from infra.sources.source import FieldRequest, RawFile
from model.grid import Grid
from tests.tools.grib_fields import axes, message, weather

INIT = datetime(2026, 1, 1, tzinfo=UTC)
GRID = Grid(resolution=15)


def raw_grib(path: Path, short_name: str, level: int | None = None, resolution: float = 15.0) -> RawFile:
    latitude, longitude = axes(resolution)
    field = weather(short_name, level, INIT, latitude, longitude)
    data = message(short_name, field, latitude, longitude, init_time=INIT, level=level)
    path.write_bytes(data)
    return RawFile(path=path, format="grib", url="u", sha256=("a",), size=len(data))


def request(*variables: str, levels: tuple[int, ...] = (500,)) -> FieldRequest:
    return FieldRequest(valid_time=INIT, variables=variables, levels=levels)


def test_the_child_gives_what_this_process_would(tmp_path: Path) -> None:
    files = [raw_grib(tmp_path / "t.grib", "t", 500), raw_grib(tmp_path / "lsm.grib", "lsm")]
    paths = [file.path for file in files]
    xr.testing.assert_identical(decode_isolated(paths), decode(paths))


def test_what_kills_the_decoder_is_an_error_that_names_the_file(tmp_path: Path, shared_data: Path) -> None:
    # One wrong byte among the rows of a reduced grid: ecCodes 2.50 aborts on an assertion of its own.
    whole = bytearray((shared_data / "earthkit_data" / "O32_global.grib2").read_bytes())
    whole[92] = 46
    damaged = tmp_path / "damaged.grib2"
    damaged.write_bytes(whole)
    with pytest.raises(InvalidFieldError, match=r"damaged.grib2: the decoder died .* assertion failed"):
        decode_isolated(damaged, keep_unknown=True)


def test_a_decoder_that_does_not_end_is_ended(tmp_path: Path) -> None:
    file = raw_grib(tmp_path / "t.grib", "t", 500)
    with pytest.raises(InvalidFieldError, match=r"t.grib: the decoder did not end within 0.01 s"):
        decode_isolated(file.path, timeout=0.01)


def test_errors_come_through_the_child_unchanged(shared_data: Path) -> None:
    with pytest.raises(InvalidFieldError, match="at byte 0: expected the message to end with '7777'"):
        decode_isolated(shared_data / "cfgrib" / "era5-levels-corrupted.grib")


def test_files_of_several_formats_make_one_state(tmp_path: Path) -> None:
    temperature = raw_grib(tmp_path / "t.grib", "t", 500)
    latitude, longitude = axes(15.0)  # from north to south, from 180°
    mask = xr.Dataset(
        {"land_sea_mask": (("latitude", "longitude"), weather("lsm", None, INIT, latitude, longitude))},
        coords={"latitude": latitude, "longitude": longitude},
    ).sortby(["latitude", "longitude"])
    static = write_copy(mask, tmp_path / "lsm.nc", url="u")
    merged = decode_files(
        [temperature, static], request("temperature", "land_sea_mask"), grid=GRID, trusted=True
    )
    assert list(merged) == ["temperature", "land_sea_mask"]
    assert merged.sizes["time"] == 1
    assert len(json.loads(merged.attrs["messages"])) == 2


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    files = [raw_grib(tmp_path / "t.grib", "t", 500), raw_grib(tmp_path / "u.grib", "u", 850)]
    wanted = request("temperature", "u_component_of_wind", "2m_temperature", levels=(500, 850))
    with pytest.raises(MissingDataError) as caught:
        decode_files(files, wanted, grid=GRID, trusted=True)
    for piece in ("2m_temperature", "temperature at 850 hPa", "u_component_of_wind at 500 hPa"):
        assert piece in str(caught.value)


def test_another_time_counts_as_missing(tmp_path: Path) -> None:
    fields = xr.Dataset(
        {"2m_temperature": (("time", "latitude", "longitude"), np.zeros((1, 2, 4)))},
        coords={
            "time": np.array(["2025-12-31"], "datetime64[ns]"),
            "latitude": [-45.0, 45.0],
            "longitude": [0.0, 90.0, 180.0, 270.0],
        },
    )
    stale = write_copy(fields, tmp_path / "stale.nc", url="u")
    with pytest.raises(MissingDataError, match=r"valid 20260101T00Z: .* missing 2m_temperature"):
        decode_files([stale], request("2m_temperature"), grid=GRID)


def test_files_on_different_grids_are_refused(tmp_path: Path) -> None:
    latitude, longitude = np.linspace(-90, 90, 7), 30.0 * np.arange(12)
    other = xr.Dataset(
        {"land_sea_mask": (("latitude", "longitude"), np.zeros((7, 12)))},
        coords={"latitude": latitude, "longitude": longitude},
    )
    files = [raw_grib(tmp_path / "t.grib", "t", 500), write_copy(other, tmp_path / "lsm.nc", url="u")]
    with pytest.raises(InvalidFieldError, match=r"different grids: latitude has 13 values .* and 7 values"):
        decode_files(files, request("temperature", "land_sea_mask"), grid=GRID, trusted=True)


@pytest.mark.parametrize("seed", range(6))
def test_a_message_with_wrong_bytes_is_read_or_refused_and_never_fatal(tmp_path: Path, seed: int) -> None:
    whole = raw_grib(tmp_path / "t.grib", "t", 500).path.read_bytes()
    random = np.random.default_rng(seed)
    damaged = bytearray(whole)
    for place in random.integers(16, len(whole) - 4, 3):
        damaged[place] = random.integers(256)
    path = tmp_path / "damaged.grib"
    path.write_bytes(damaged)
    refused = ""
    try:
        assert decode_isolated(path, keep_unknown=True, timeout=60.0).data_vars
    except InvalidFieldError as error:
        refused = str(error)
    assert not refused or "damaged.grib" in refused
