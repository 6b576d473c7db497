from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from infra.errors import InvalidFieldError
from infra.field_files import canonical, contents, read_fields

LATITUDE, LONGITUDE = np.array([45.0, -45.0]), np.array([0.0, 90.0, 180.0, 270.0])


def array(dims: tuple[str, ...], units: str = "", value: float = 1.0) -> xr.DataArray:
    sizes = {"latitude": 2, "lat": 2, "longitude": 4, "lon": 4}
    return xr.DataArray(np.full([sizes.get(d, 2) for d in dims], value), dims=dims, attrs={"units": units})


def test_the_data_stores_names_and_axes() -> None:
    raw = xr.Dataset(
        {
            "t2m": array(("valid_time", "latitude", "longitude"), "K", 280.0),
            "z": array(("valid_time", "pressure_level", "latitude", "longitude"), "m**2 s**-2"),
            "lsm": array(("valid_time", "latitude", "longitude"), "(0 - 1)"),
            "something": array(("latitude", "longitude")),
        },
        coords={
            "latitude": LATITUDE,
            "longitude": LONGITUDE,
            "pressure_level": ("pressure_level", [850.0, 500.0]),
            "valid_time": ("valid_time", np.array(["2026-01-01", "2026-01-02"], "datetime64[ns]")),
            "expver": ("valid_time", np.array(["0001", "0005"])),
        },
    )
    got = canonical(raw, where="here")
    assert set(got) == {"2m_temperature", "geopotential", "land_sea_mask"}
    assert got["geopotential"].dims == ("time", "level", "latitude", "longitude")
    assert got["level"].values.tolist() == [500, 850]
    assert got["land_sea_mask"].dims == ("latitude", "longitude")
    assert got.attrs["experiment"] == "0001,0005"
    second = canonical(raw, where="here", valid_time=datetime(2026, 1, 2, tzinfo=UTC))
    assert (second.sizes["time"], second.attrs["experiment"]) == (1, "0005")


def test_deepminds_axes() -> None:
    raw = xr.Dataset(
        {
            "2m_temperature": array(("batch", "time", "lat", "lon")).isel(batch=[0]),
            "temperature": array(("batch", "time", "level", "lat", "lon")).isel(batch=[0]),
            "land_sea_mask": array(("lat", "lon")),
            "toa_incident_solar_radiation": array(("batch", "time", "lat", "lon")).isel(batch=[0]),
        },
        coords={
            "lat": LATITUDE,
            "lon": LONGITUDE,
            "level": [500, 850],
            "time": np.array([0, 6], "timedelta64[h]").astype("timedelta64[ns]"),
            "datetime": (
                ("batch", "time"),
                np.array([["2022-01-01T00", "2022-01-01T06"]], "datetime64[ns]"),
            ),
        },
    )
    got = canonical(raw, where="here")
    assert (
        got["time"].values.tolist() == np.array(["2022-01-01T00", "2022-01-01T06"], "datetime64[ns]").tolist()
    )
    assert got["temperature"].dims == ("time", "level", "latitude", "longitude")
    assert "toa_incident_solar_radiation" in got


@pytest.mark.parametrize(
    ("name", "units", "value", "expected"),
    [
        ("t2m", "degC", 10.0, 283.15),
        ("msl", "hPa", 1000.0, 100000.0),
        ("t2m", "K", 283.15, 283.15),
        ("orog", "m", 100.0, 980.665),
        ("total_precipitation_6hr", "mm", 2.0, 0.002),
        ("tp", "m", 0.002, 0.002),
        ("orog", "", 100.0, 980.665),
        ("gh", "", 100.0, 980.665),
        ("geopotential_height", "", 100.0, 980.665),
        ("z", "", 980.665, 980.665),
    ],
)
def test_units_as_written_are_converted(name: str, units: str, value: float, expected: float) -> None:
    raw = xr.Dataset({name: array(("latitude", "longitude"), units, value)})
    got = canonical(raw.assign_coords(latitude=LATITUDE, longitude=LONGITUDE), where="here")
    (only,) = got.data_vars.values()
    assert only.values.ravel()[0] == pytest.approx(expected, rel=1e-6)


def test_pressures_without_units_are_those_of_their_name() -> None:
    for name, values in (("plev", [50000.0, 85000.0]), ("isobaricInhPa", [500.0, 850.0])):
        raw = xr.Dataset({"t": (("time", name, "latitude", "longitude"), np.ones((1, 2, 2, 4)))})
        coords = {name: values, "latitude": LATITUDE, "longitude": LONGITUDE}
        got = canonical(raw.assign_coords(coords), where="here")
        assert got["level"].values.tolist() == [500, 850]
    raw = raw.assign_coords(coords)
    raw["isobaricInhPa"].attrs["units"] = "m"
    with pytest.raises(InvalidFieldError, match="here: levels: expected hPa or Pa, got units 'm'"):
        canonical(raw, where="here")


def test_only_what_is_wanted_is_converted() -> None:
    raw = xr.Dataset(
        {"t2m": array(("latitude", "longitude"), "K"), "msl": array(("latitude", "longitude"), "furlong")}
    ).assign_coords(latitude=LATITUDE, longitude=LONGITUDE)
    assert set(canonical(raw, where="here", variables=("2m_temperature",))) == {"2m_temperature"}
    time = datetime(2026, 1, 1, tzinfo=UTC)
    assert contents(raw, where="here", valid_time=time) == {
        "2m_temperature": (),
        "mean_sea_level_pressure": (),
    }


def test_units_that_make_no_sense_are_refused() -> None:
    raw = xr.Dataset({"t2m": array(("latitude", "longitude"), "furlong")})
    raw = raw.assign_coords(latitude=LATITUDE, longitude=LONGITUDE)
    with pytest.raises(
        InvalidFieldError, match="here: t2m: expected 2m_temperature in K, got units 'furlong'"
    ):
        canonical(raw, where="here")


def test_files_without_anything_known_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "strange.nc"
    xr.Dataset({"a": ("b", [1.0])}).to_netcdf(path, engine="h5netcdf")
    with pytest.raises(InvalidFieldError, match="no known variable; it has a"):
        read_fields(path, "netcdf")
    path.write_bytes(b"not a file of any kind")
    with pytest.raises(InvalidFieldError, match="cannot be read as netcdf"):
        read_fields(path, "netcdf")


def test_the_classic_format_and_zarr_are_read(shared_data: Path) -> None:
    classic = read_fields(shared_data / "neuralgcm" / "era5_tl31_19590102T00.nc", "netcdf")
    assert classic["temperature"].dims == ("time", "level", "latitude", "longitude")
    assert classic["level"].size == 37
    zarr = shared_data / "era5_djf_2.5deg" / "era5_vo850_2025-2026_djf_2.5x2.5.zarr"
    with pytest.raises(InvalidFieldError, match="it has vo"):
        read_fields(zarr, "zarr")
    pressure = read_fields(
        shared_data / "era5_djf_2.5deg" / "era5_msl_2025-2026_djf_2.5x2.5.zarr",
        "zarr",
        valid_time=datetime(2026, 2, 28, 18, tzinfo=UTC),
    )
    assert pressure.attrs["experiment"] == "0005"
    assert 90000 < float(pressure["mean_sea_level_pressure"].min()) < 110000


@pytest.mark.parametrize(("written", "read"), [("F24", "F24"), ("O320", "O320"), ("regular, 1 degree", "")])
def test_the_name_of_a_gaussian_grid_is_kept(tmp_path: Path, written: str, read: str) -> None:
    dataset = xr.Dataset(
        {"2m_temperature": (("latitude", "longitude"), np.zeros((2, 3)), {"units": "K"})},
        coords={"latitude": [-1.0, 1.0], "longitude": [0.0, 1.0, 2.0]},
        attrs={"grid": written},
    )
    dataset.to_netcdf(tmp_path / "in.nc", engine="h5netcdf")
    assert read_fields(tmp_path / "in.nc", "netcdf").attrs["grid"] == read
