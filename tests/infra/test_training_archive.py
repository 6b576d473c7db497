from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from infra.errors import MissingDataError
from infra.training_archive import StoredField, read_archive
from tests.fakes.training_archive import write_archive

START = datetime(2001, 3, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_archive(tmp_path_factory.mktemp("archive") / "analyses.zarr", times=6)


def test_a_period_holds_both_its_bounds(archive: Path) -> None:
    read = read_archive(
        archive,
        ["geopotential", "land_sea_mask"],
        [850],
        start=START + timedelta(hours=6),
        end=START + timedelta(hours=18),
    )

    assert read["time"].values.tolist() == [
        np.datetime64(f"2001-03-12T{hour:02d}", "ns").astype(int) for hour in (6, 12, 18)
    ]
    assert read["geopotential"].dims == ("time", "level", "latitude", "longitude")
    assert read["land_sea_mask"].dims == ("latitude", "longitude")
    assert {str(field.dtype) for field in read.values()} == {"float32"}
    # The fake's mean geopotential at 850 hPa is 9.81 (7000 − 6 · 850).
    assert read["level"].values.tolist() == [850]
    assert float(read["geopotential"].mean()) == pytest.approx(9.81 * 1900, rel=1e-3)


def test_fields_that_stay_on_disk_are_read_by_time(archive: Path) -> None:
    loaded = read_archive(archive, ["geopotential"], [850, 500])["geopotential"]
    stored = StoredField(read_archive(archive, ["geopotential"], [850, 500], load=False)["geopotential"])
    places = np.array([[4, 1], [1, 5]])

    assert stored.shape == loaded.shape
    np.testing.assert_array_equal(stored[places], loaded.values[places])
    np.testing.assert_array_equal(stored[np.array([2, 0])], loaded.values[[2, 0]])


def test_levels_come_in_the_order_asked_for(archive: Path) -> None:
    read = read_archive(archive, ["geopotential"], [850, 500])

    assert read["level"].values.tolist() == [850, 500]
    assert read.sizes["time"] == 6


def test_statics_that_are_repeated_over_time_are_read_once(tmp_path: Path, archive: Path) -> None:
    whole = xr.open_zarr(archive, consolidated=False).load()
    whole["land_sea_mask"] = whole["land_sea_mask"].expand_dims(time=whole["time"])
    whole.drop_encoding().to_zarr(tmp_path / "repeated.zarr", consolidated=False)

    assert read_archive(tmp_path / "repeated.zarr", ["land_sea_mask"], [])["land_sea_mask"].ndim == 2


def test_what_is_not_there_is_named(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"expected \['temperature'\], got"):
        read_archive(archive, ["temperature", "geopotential"], [500])
    with pytest.raises(MissingDataError, match=r"levels \[300\] hPa, got \[500, 850\]"):
        read_archive(archive, ["geopotential"], [300, 500])
    with pytest.raises(MissingDataError, match=r"from 2010.* to its end"):
        read_archive(archive, ["geopotential"], [500], start=datetime(2010, 1, 1, tzinfo=UTC))
    with pytest.raises(MissingDataError, match="expected a Zarr store of analyses"):
        read_archive(tmp_path / "nothing.zarr", ["geopotential"], [500])
