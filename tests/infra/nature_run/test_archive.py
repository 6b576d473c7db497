"""GRIB round trip of an archive on a small Gaussian grid, and how a run goes on."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import eccodes
import numpy as np
import pytest
import xarray as xr

from infra.errors import CheckpointMismatchError, InvalidFieldError, MissingDataError
from infra.nature_run.archive import AnalysisArchive
from infra.nature_run.grib_analyses import encode
from infra.object_store import ObjectStore
from model.variables import VARIABLES

# Gaussian latitudes of 8 rows: arcsin of the zeros of the Legendre polynomial of degree 8 (Abramowitz and
# Stegun, table 25.4).
LATITUDE = np.degrees(np.arcsin([0.960289856, 0.796666477, 0.525532410, 0.183434642]))
LATITUDE = np.concatenate([LATITUDE, -LATITUDE[::-1]])
LONGITUDE = np.arange(16) * 22.5
TIME = datetime(2001, 3, 4, 6, tzinfo=UTC)


def analyses(times: int = 3, seed: int = 0) -> xr.Dataset:
    rng = np.random.default_rng(seed)
    surface = ("time", "latitude", "longitude")
    sst = rng.normal(290, 5, (times, 8, 16))
    sst[:, 2:5, 3] = np.nan
    return xr.Dataset(
        {
            "temperature": (
                ("time", "level", "latitude", "longitude"),
                rng.normal(250, 9, (times, 2, 8, 16)),
            ),
            "geopotential": (
                ("time", "level", "latitude", "longitude"),
                rng.normal(5e4, 2e3, (times, 2, 8, 16)),
            ),
            "2m_temperature": (surface, rng.normal(280, 10, (times, 8, 16))),
            "total_precipitation_6hr": (surface, rng.exponential(1e-3, (times, 8, 16))),
            "sea_surface_temperature": (surface, sst),
        },
        coords={
            "time": np.datetime64("2001-03-04T06", "ns") + np.arange(times) * np.timedelta64(6, "h"),
            "level": [500, 850],
            "latitude": LATITUDE,
            "longitude": LONGITUDE,
        },
    )


def archive(tmp_path: Path, prefix: str = "") -> AnalysisArchive:
    return AnalysisArchive(store=ObjectStore(root=str(tmp_path)), prefix=prefix)


@pytest.mark.parametrize("prefix", ["", "runs/one"])
def test_analyses_come_back(tmp_path: Path, prefix: str) -> None:
    data, kept = analyses(), archive(tmp_path, prefix)
    keys = kept.write(data)
    assert keys[0].removeprefix(f"{prefix}/") == "20010304/06z.grib2"
    assert kept.times() == [TIME, datetime(2001, 3, 4, 12, tzinfo=UTC), datetime(2001, 3, 4, 18, tzinfo=UTC)]
    back = kept.read(kept.times())
    expected = data.sortby("latitude")
    np.testing.assert_allclose(back.latitude, expected.latitude, atol=1e-6)
    assert back.time.values.tolist() == expected.time.values.tolist()
    for name, field in expected.data_vars.items():
        got, values = back[name].transpose(*field.dims).values, field.values
        np.testing.assert_array_equal(np.isnan(got), np.isnan(values), err_msg=str(name))
        # Packing: half a step of at most 2 · range / 2^12 (the step is a power of two).
        step = 2 * (np.nanmax(values) - np.nanmin(values)) / 2**12
        np.testing.assert_allclose(got, values, atol=0.51 * step, err_msg=str(name))
    assert back.attrs["grid"] == "F4"


def test_blocks_cover_a_period(tmp_path: Path) -> None:
    kept = archive(tmp_path)
    kept.write(analyses())
    sizes = [block.sizes["time"] for block in kept.blocks(TIME, datetime(2001, 3, 5, tzinfo=UTC), size=2)]
    assert sizes == [2, 1]
    with pytest.raises(MissingDataError, match="no analyses from"):
        next(kept.blocks(datetime(2002, 1, 1, tzinfo=UTC), datetime(2003, 1, 1, tzinfo=UTC)))
    with pytest.raises(MissingDataError, match="20020101/00z"):
        kept.read([datetime(2002, 1, 1, tzinfo=UTC)])


def test_messages_carry_ecmwf_codes() -> None:
    message = encode(analyses(1).isel(time=0).drop_vars("time")[["total_precipitation_6hr"]], TIME)
    handle = eccodes.codes_new_from_message(message)
    keys = ("shortName", "paramId", "units", "gridType", "N", "dataDate", "dataTime", "stepRange")
    found = {key: eccodes.codes_get(handle, key) for key in keys}
    ends = [eccodes.codes_get(handle, key) for key in ("validityDate", "validityTime")]
    eccodes.codes_release(handle)
    assert found == {
        "shortName": VARIABLES["total_precipitation_6hr"].short_name,
        "paramId": 228,
        "units": "m",
        "gridType": "regular_gg",
        "N": 4,
        "dataDate": 20010304,
        "dataTime": 0,
        "stepRange": "0-6",
    }
    assert ends == [20010304, 600]


def test_the_same_analysis_gives_the_same_bytes() -> None:
    one = analyses(1).isel(time=0).drop_vars("time")
    assert encode(one, TIME) == encode(one.copy(deep=True), TIME)


def test_fields_that_are_no_analysis_are_refused() -> None:
    one = analyses(1).isel(time=0).drop_vars("time")
    corner = (one.latitude == LATITUDE[0]) & (one.longitude == 0)
    holed = one.assign({"2m_temperature": one["2m_temperature"].where(~corner)})
    with pytest.raises(
        InvalidFieldError, match="2m_temperature at 2001-03-04T06Z: expected finite values, got 1"
    ):
        encode(holed, TIME)
    with pytest.raises(InvalidFieldError, match="Gaussian grid from north to south"):
        encode(one.sortby("latitude"), TIME)
    with pytest.raises(InvalidFieldError, match="vertical_velocity"):
        encode(one.rename({"temperature": "vertical_velocity"}), TIME)


def test_an_archive_goes_on_only_with_its_own_settings(tmp_path: Path) -> None:
    kept = archive(tmp_path)
    kept.describe({"seed": 1, "start": "2000-09-01"})
    kept.describe({"seed": 1, "start": "2000-09-01"})
    with pytest.raises(CheckpointMismatchError, match="seed: 1 there, 2 now"):
        kept.describe({"seed": 2, "start": "2000-09-01"})


def test_the_state_is_kept(tmp_path: Path) -> None:
    kept = archive(tmp_path)
    assert kept.load_state(tmp_path) is None
    state = tmp_path / "state"
    state.write_bytes(b"state")
    kept.save_state(state)
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    loaded = kept.load_state(folder)
    assert loaded is not None
    assert loaded.read_bytes() == b"state"
