from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from infra.decoding import decode_files
from infra.errors import InvalidFieldError, MissingDataError, TransientSourceError
from infra.retry import RetryPolicy
from infra.sources.arco_era5 import ArcoEra5
from infra.sources.source import FieldRequest
from model.grid import Grid
from tests.tools.loopback import Fault, serving

TIMES = np.arange(
    np.datetime64("2025-12-01T00", "ns"), np.datetime64("2025-12-05T00", "ns"), np.timedelta64(1, "h")
)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Hourly for four days: final to the 1st, preliminary to the 2nd, fill values after."""
    path = tmp_path_factory.mktemp("arco") / "era5.zarr"
    latitude, longitude = np.linspace(90, -90, 7), 30.0 * np.arange(12)
    hours = np.arange(TIMES.size, dtype=np.float32)
    shape = (TIMES.size, 7, 12)
    surface = np.broadcast_to(hours[:, None, None], shape).copy()
    surface[48:] = np.nan
    upper = np.stack([surface, surface + 1000], axis=1)
    dataset = xr.Dataset(
        {
            "2m_temperature": (("time", "latitude", "longitude"), surface),
            "total_precipitation": (("time", "latitude", "longitude"), surface / 1000),
            "temperature": (("time", "level", "latitude", "longitude"), upper),
            "land_sea_mask": (("latitude", "longitude"), np.ones((7, 12), np.float32)),
        },
        coords={"time": TIMES, "level": [500, 850], "latitude": latitude, "longitude": longitude},
        attrs={
            "valid_time_start": "2025-12-01",
            "valid_time_stop": "2025-12-01",
            "valid_time_stop_era5t": "2025-12-02",
        },
    )
    encoding = {
        name: {"chunks": (1, *array.shape[1:])}
        for name, array in dataset.data_vars.items()
        if "time" in array.dims
    }
    dataset.to_zarr(path, consolidated=True, encoding=encoding)
    return str(path)


def at(day: int, hour: int, *variables: str) -> FieldRequest:
    time = datetime(2025, 12, day, hour, tzinfo=UTC)
    levels = (850,) if "temperature" in variables else ()
    return FieldRequest(valid_time=time, variables=variables, levels=levels)


def test_fields_come_as_they_are_and_rain_is_summed(archive: str, tmp_path: Path) -> None:
    request = at(2, 0, "2m_temperature", "temperature", "total_precipitation_6hr", "land_sea_mask")
    source = ArcoEra5(root=archive)
    assert source.available(request).complete
    files = source.fetch(request, tmp_path)
    dataset = decode_files(files, request, grid=Grid(resolution=30))
    assert float(dataset["2m_temperature"][0, 0, 0]) == 24
    assert float(dataset["temperature"].sel(level=850)[0, 0, 0]) == 1024
    # the hours that end at 19, 20, 21, 22, 23 and 24
    assert float(dataset["total_precipitation_6hr"][0, 0, 0]) == pytest.approx(sum(range(19, 25)) / 1000)
    assert "time" not in dataset["land_sea_mask"].dims


def test_the_experiment_is_recorded(archive: str, tmp_path: Path) -> None:
    for day, version in ((1, "0001"), (2, "0005")):
        request = at(day, 12, "2m_temperature")
        files = ArcoEra5(root=archive).fetch(request, tmp_path)
        dataset = decode_files(files, request, grid=Grid(resolution=30))
        assert f'"experiment": "{version}"' in dataset.attrs["messages"]


def test_times_beyond_the_valid_range_are_refused_though_the_store_has_them(
    archive: str, tmp_path: Path
) -> None:
    request = at(3, 0, "2m_temperature")
    with pytest.raises(
        MissingDataError, match=r"20251203T00Z lies outside ERA5T in .*: 2025-12-01 to 2025-12-02"
    ):
        ArcoEra5(root=archive).fetch(request, tmp_path)
    assert not ArcoEra5(root=archive).available(request).complete


def test_preliminary_data_can_be_refused(archive: str) -> None:
    availability = ArcoEra5(root=archive, preliminary=False).available(at(2, 0, "2m_temperature"))
    assert "outside final ERA5" in availability.missing[0]


def test_fill_values_within_the_range_are_refused(archive: str, tmp_path: Path) -> None:
    lying = tmp_path / "lying.zarr"
    with xr.open_zarr(archive) as dataset:
        dataset.attrs["valid_time_stop_era5t"] = "2025-12-04"
        dataset.load().to_zarr(lying, consolidated=True)
    with pytest.raises(InvalidFieldError, match="nothing but fill values"):
        ArcoEra5(root=str(lying)).fetch(at(3, 0, "2m_temperature"), tmp_path)


def test_a_variable_that_arrived_is_not_read_again(archive: str, tmp_path: Path) -> None:
    source = ArcoEra5(root=archive)
    (first,) = source.fetch(at(1, 0, "2m_temperature"), tmp_path)
    before = first.path.stat().st_mtime_ns
    (again,) = source.fetch(at(1, 0, "2m_temperature"), tmp_path)
    assert (again, again.path.stat().st_mtime_ns) == (first, before)


def test_an_archive_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="no Zarr archive there"):
        ArcoEra5(root=str(tmp_path / "nothing")).available(at(1, 0, "2m_temperature"))


@pytest.mark.parametrize("what", ["2m_temperature/c/", "zarr.json"])
@pytest.mark.parametrize("fault", [{"status": 503}, {"cut_after": 3}], ids=["unavailable", "cut"])
def test_what_the_network_does_is_tried_again(
    archive: str, tmp_path: Path, what: str, fault: dict[str, int]
) -> None:
    request, waits = at(1, 0, "2m_temperature"), []
    with serving(Path(archive).parent) as server:
        source = ArcoEra5(
            root=f"{server.url}/era5.zarr", options={}, retry=RetryPolicy(attempts=3, sleep=waits.append)
        )
        server.faults.append(Fault(what, **fault))
        (file,) = source.fetch(request, tmp_path / "once")
        assert len(waits) == 1
        server.faults.append(Fault(what, times=10**6, **fault))
        with pytest.raises(TransientSourceError, match=r"after 3 attempts"):
            source.fetch(request, tmp_path / "always")
    dataset = decode_files([file], request, grid=Grid(resolution=30))
    assert float(dataset["2m_temperature"][0, 0, 0]) == 0
