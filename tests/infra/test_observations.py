"""Station tables from three formats, checked; one report per station and variable, the nearest in time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from infra.errors import InvalidFieldError, MissingDataError, StoreError
from infra.observations import COLUMNS, read_observations, reports_at

NOON = datetime(2020, 1, 1, 12, tzinfo=UTC)


def table() -> pd.DataFrame:
    rows = [
        ("NZCM", -77.87, 166.97, 8.0, "2020-01-01T11:50:00", "2m_temperature", 274.0),
        ("NZCM", -77.87, 166.97, 8.0, "2020-01-01T12:05:00", "2m_temperature", 275.0),
        ("NZCM", -77.87, 166.97, 8.0, "2020-01-01T12:05:00", "10m_wind_speed", 5.0),
        ("EBCI", 50.46, 4.45, None, "2020-01-01T12:20:00", "2m_temperature", 280.0),
        ("LTDA", 36.36, 36.28, 81.0, "2020-01-01T13:00:00", "2m_temperature", 290.0),
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


@pytest.mark.parametrize("ending", ["csv", "parquet", "nc"])
def test_all_formats_hold_the_same(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"reports.{ending}"
    if ending == "csv":
        table().to_csv(path, index=False)
    elif ending == "parquet":
        pytest.importorskip("pyarrow")
        table().assign(time=pd.to_datetime(table()["time"])).to_parquet(path)
    else:
        whole = table().assign(time=pd.to_datetime(table()["time"]))
        xr.Dataset.from_dataframe(whole.rename_axis("report")).to_netcdf(path, engine="h5netcdf")
    read = read_observations(str(path))
    assert tuple(read.columns) == COLUMNS
    assert read["station"].tolist() == table()["station"].tolist()
    assert read["value"].tolist() == table()["value"].tolist()
    assert read["time"].iloc[1] == pd.Timestamp("2020-01-01T12:05", tz="UTC")


def test_of_each_station_the_nearest_report_counts(tmp_path: Path) -> None:
    table().to_csv(tmp_path / "r.csv", index=False)
    stations, reports = reports_at(read_observations(str(tmp_path / "r.csv")), NOON)
    assert stations.names == ("EBCI", "NZCM")
    assert stations.height[1] == 8.0
    assert np.isnan(stations.height[0])
    np.testing.assert_array_equal(reports["2m_temperature"], [280.0, 275.0])
    np.testing.assert_array_equal(reports["10m_wind_speed"], [np.nan, 5.0])
    none, values = reports_at(read_observations(str(tmp_path / "r.csv")), NOON + timedelta(days=1))
    assert (none.names, values) == ((), {})


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="no such file"):
        read_observations(str(tmp_path / "none.csv"))
    (tmp_path / "r.txt").write_text("")
    with pytest.raises(StoreError, match=r"ending in \.csv"):
        read_observations(str(tmp_path / "r.txt"))
    for change, message in (
        (table().drop(columns=["height", "value"]), "columns height, value are missing"),
        (table().assign(latitude=[0, 0, 95, 0, 0]), r"1 rows without a place.*first row 3"),
        (table().assign(time="yesterday"), "yesterday"),
        (table().assign(value="warm"), "warm"),
    ):
        change.to_csv(tmp_path / "bad.csv", index=False)
        with pytest.raises(InvalidFieldError, match=message):
            read_observations(str(tmp_path / "bad.csv"))
    (tmp_path / "bad.nc").write_bytes(b"not NetCDF")
    with pytest.raises(InvalidFieldError, match="not readable"):
        read_observations(str(tmp_path / "bad.nc"))


def test_real_reports(shared_data: Path, tmp_path: Path) -> None:
    """A month of real station reports, against a search through all rows."""
    pytest.importorskip("pyarrow")
    metar = pd.read_parquet(shared_data / "metar" / "metar_2020-01.parquet")
    names = {"stationName": "station", "elevation": "height", "timeObs": "time", "temperature": "value"}
    reports = metar.rename(columns=names).assign(variable="2m_temperature")[list(COLUMNS)]
    reports.to_parquet(tmp_path / "metar.parquet")
    found, values = reports_at(read_observations(str(tmp_path / "metar.parquet")), NOON)
    nearest: dict[str, tuple[float, float]] = {}
    for row in reports.itertuples():
        away = abs((row.time.to_pydatetime() - NOON.replace(tzinfo=None)).total_seconds())
        if away <= 1800 and row.value == row.value and away < nearest.get(row.station, (1801.0, 0.0))[0]:
            nearest[row.station] = (away, row.value)
    assert len(nearest) >= 8
    assert found.names == tuple(sorted(nearest))
    np.testing.assert_array_equal(
        values["2m_temperature"], [np.float64(nearest[name][1]) for name in found.names]
    )
