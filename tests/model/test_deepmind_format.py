from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from model.deepmind_format import example_fields, read_example
from model.errors import InvalidFieldError


def test_example_with_and_without_solar_radiation(parity_dir: Path) -> None:
    with_sun = read_example(
        xr.load_dataset(parity_dir / "graphcast_small_f32" / "dataset.nc", decode_timedelta=True)
    )
    without = read_example(
        xr.load_dataset(parity_dir / "graphcast_operational_f32" / "dataset.nc", decode_timedelta=True)
    )
    # The operational case starts at 2022-06-30T18; its second frame is the start of the forecast.
    assert without.init_time == datetime(2022, 7, 1, 0, tzinfo=UTC)
    assert not without.given.solar_radiation
    assert len(with_sun.given.solar_radiation) == with_sun.frames.sizes["time"]
    assert with_sun.init_time in with_sun.given.solar_radiation
    assert with_sun.grid.resolution == 10.0
    assert with_sun.initial_condition.sizes["time"] == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.drop_vars("datetime"), r"missing \['datetime'\]"),
        (lambda d: d.isel(time=[0]), "at least 2 frames, got 1"),
        (lambda d: xr.concat([d, d], "batch", data_vars="minimal"), "expected one batch, got 2"),
        (lambda d: d.isel(lat=[0]), "expected several latitudes, got 1"),
    ],
)
def test_foreign_data_sets_are_refused(parity_dir: Path, change, message: str) -> None:
    dataset = xr.load_dataset(parity_dir / "graphcast_small_f32" / "dataset.nc", decode_timedelta=True)
    with pytest.raises(InvalidFieldError, match=message):
        read_example(change(dataset))


def test_fields_get_deepminds_dimensions() -> None:
    fields = xr.Dataset({"temperature": (("level", "latitude", "longitude"), np.zeros((2, 3, 4)))})
    got = example_fields(fields, timedelta(hours=6))
    assert got["temperature"].dims == ("batch", "time", "level", "lat", "lon")
    assert got["time"].values[0] == np.timedelta64(6, "h")
