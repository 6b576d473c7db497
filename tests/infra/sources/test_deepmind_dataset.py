from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from infra.decoding import decode_files
from infra.errors import MissingDataError
from infra.sources.deepmind_dataset import DeepMindDataset
from infra.sources.source import FieldRequest
from model.grid import Grid


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
