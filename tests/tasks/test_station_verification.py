"""A cycle is scored against station reports from a table, by the numbers of a plain computation."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from infra import layout
from infra.errors import MissingDataError, ValidationFailedError
from infra.forecast_store import open_forecast
from infra.object_store import ObjectStore
from infra.observations import COLUMNS, read_observations
from infra.publication import Manifest, make_visible
from infra.settings import ModelSettings, Settings, StationSettings, StoreSettings
from model.cycle import Cycle
from model.diagnostics.scores import scores
from model.grid import Grid
from tasks.station_verification import score_at_stations, verify_cycle_at_stations
from tasks.verification import STATIONS, load_statistics, skill_rows
from tests.fakes.forecasts import INIT_TIME, fields, write_forecast

GRID = Grid(resolution=30.0)
CYCLE = Cycle(model="demo", init_time=INIT_TIME)
PLACES = {"A": (45.0, 15.0, 1200.0), "B": (-30.0, 350.0, 0.0), "C": (10.0, -100.0, 300.0)}


def reports(hours: int) -> list[tuple[object, ...]]:
    time = INIT_TIME + timedelta(hours=hours, minutes=10)
    return [
        (name, *place, time, variable, value + number)
        for number, (name, place) in enumerate(PLACES.items())
        for variable, value in (("2m_temperature", 281.0), ("10m_wind_speed", 4.0), ("visibility", 9000.0))
    ]


def table(*hours: int) -> pd.DataFrame:
    frame = pd.DataFrame([row for hour in hours for row in reports(hour)], columns=list(COLUMNS))
    return frame.assign(time=pd.to_datetime(frame["time"], utc=True))


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    found = ObjectStore(root=str(tmp_path))
    write_forecast(found, layout.forecast_store(CYCLE, "run"), members=4, steps=3)
    return found


def initial() -> xr.Dataset:
    """The start, with a surface 400 m high everywhere."""
    state = fields(GRID, member=0, hours=0)
    surface = xr.full_like(state["2m_temperature"], 400 * 9.80665)
    return state.expand_dims(time=[np.datetime64("2026-01-15", "ns")]).assign(geopotential_at_surface=surface)


def plainly(field: np.ndarray, latitude: float, longitude: float) -> float:
    """Bilinear interpolation on the 30° grid, written out."""
    y, x = (latitude + 90) / 30, (longitude % 360) / 30
    j, i = int(y), int(x)
    v, u = y - j, x - i
    east = (i + 1) % 12
    return float(
        (1 - v) * ((1 - u) * field[j, i] + u * field[j, east])
        + v * ((1 - u) * field[j + 1, i] + u * field[j + 1, east])
    )


def test_scores_are_those_of_a_plain_computation(store: ObjectStore) -> None:
    forecast = open_forecast(store, layout.forecast_store(CYCLE, "run"))
    options = StationSettings(observations="-", gross_limits={})
    result = score_at_stations(
        store, CYCLE, forecast, lambda _: table(12, 24), options, initial=initial(), climatology=None
    )
    assert result.verified == (timedelta(hours=12), timedelta(hours=24))
    assert result.missing == (timedelta(hours=36),)
    found = scores(load_statistics(store, CYCLE, STATIONS)).sel(region="global")
    assert found["field"].values.tolist() == ["10m_wind_speed", "2m_temperature"]
    for index in range(2):
        square_t, square_w, start = [], [], []
        at = forecast.isel(lead_time=index)
        first = initial()["2m_temperature"].isel(time=0).values
        for number, (latitude, longitude, height) in enumerate(PLACES.values()):
            correction = -0.0065 * (height - 400)
            temperature = [
                plainly(at["2m_temperature"].isel(member=m).values, latitude, longitude) + correction
                for m in range(4)
            ]
            wind = [
                np.hypot(
                    *(
                        plainly(
                            at[f"10m_{part}_component_of_wind"].isel(member=m).values, latitude, longitude
                        )
                        for part in "uv"
                    )
                )
                for m in range(4)
            ]
            square_t.append((np.mean(temperature) - 281 - number) ** 2)
            square_w.append((np.mean(wind) - 4 - number) ** 2)
            start.append((plainly(first, latitude, longitude) + correction - 281 - number) ** 2)
        here = found.isel(lead_time=index)
        assert here["rmse"].sel(field="2m_temperature").item() == pytest.approx(
            np.mean(square_t) ** 0.5, rel=1e-6
        )
        assert here["rmse"].sel(field="10m_wind_speed").item() == pytest.approx(
            np.mean(square_w) ** 0.5, rel=1e-6
        )
        assert here["persistence_rmse"].sel(field="2m_temperature").item() == pytest.approx(
            np.mean(start) ** 0.5, rel=1e-6
        )


def test_gross_errors_and_the_correction_can_be_turned_off(store: ObjectStore) -> None:
    forecast = open_forecast(store, layout.forecast_store(CYCLE, "run"))
    plain = StationSettings(observations="-", gross_limits={}, lapse_rate=0)
    strict = StationSettings(observations="-", gross_limits={"2m_temperature": 1e-6})
    found = {}
    for name, options in (("plain", plain), ("strict", strict)):
        score_at_stations(
            store, CYCLE, forecast, lambda _: table(12), options, initial=initial(), climatology=None
        )
        found[name] = load_statistics(store, CYCLE, STATIONS).sel(region="global", field="2m_temperature")
    assert found["strict"]["rejected"].item() == 3
    assert found["strict"]["weight"].item() == 0
    assert found["plain"]["rejected"].item() == 0
    at = forecast["2m_temperature"].isel(lead_time=0).values.astype(float).mean(axis=0)
    errors = [plainly(at, lat, lon) - 281 - n for n, (lat, lon, _) in enumerate(PLACES.values())]
    assert found["plain"]["error"].item() == pytest.approx(sum(errors), rel=1e-6)


def test_a_published_cycle_is_scored_from_files_by_valid_time(store: ObjectStore, tmp_path: Path) -> None:
    manifest = Manifest(
        cycle=CYCLE, run="run", attempt="a", members=(0, 1, 2, 3), steps=2, step_hours=12,
        published_at=datetime.now(UTC), files={},
    )  # fmt: skip
    make_visible(store, manifest)
    model = ModelSettings(
        checkpoint="-", statistics="-", trained_on="era5", source="-", steps=2,
        stations=StationSettings(observations=str(tmp_path / "reports" / "%Y%m%d%H.csv")),
    )  # fmt: skip
    settings = Settings(store=StoreSettings(root=store.root), models={"demo": model})
    with pytest.raises(MissingDataError, match="any of 2 lead times"):
        verify_cycle_at_stations(CYCLE, settings)
    (tmp_path / "reports").mkdir()
    table(12).to_csv(tmp_path / "reports" / "2026011512.csv", index=False)
    result = verify_cycle_at_stations(CYCLE, settings)
    assert (len(result.verified), len(result.missing)) == (1, 1)
    rows = skill_rows(store, "demo", name=STATIONS)
    assert {row.field for row in rows} == {"2m_temperature", "10m_wind_speed"}
    assert {row.units for row in rows} == {"K", "m s-1"}
    assert len(read_observations(str(tmp_path / "reports" / "2026011512.csv"))) == 9
    bare = settings.model_copy(update={"models": {"demo": model.model_copy(update={"stations": None})}})
    with pytest.raises(ValidationFailedError, match="no station observations"):
        verify_cycle_at_stations(CYCLE, bare)
