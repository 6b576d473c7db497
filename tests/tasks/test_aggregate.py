"""Products of a forecast store against plain xarray over the whole ensemble, in any amount of memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from infra.errors import IncompleteCycleError, UnknownOptionError
from infra.forecast_store import open_forecast
from infra.object_store import ObjectStore
from infra.product_files import open_products
from infra.settings import EventSettings, PointSettings, ProductSettings
from model.diagnostics.ensemble_products import round_mantissa
from model.grid import Grid
from tasks.aggregate import Aggregate, aggregate
from tasks.product_plan import Point, plan_products
from tests.fakes.forecasts import TASK, write_forecast

SETTINGS = ProductSettings(
    events=(
        EventSettings(quantity="10m_wind_speed", threshold=5.0),
        EventSettings(quantity="total_precipitation", threshold=0.001),
        EventSettings(quantity="temperature_anomaly", threshold=1.0, level=850),
        EventSettings(quantity="temperature", threshold=273.15, level=850, below=True),
    ),
    points=(PointSettings(name="Null Island", latitude=0, longitude=0),),
)


@pytest.fixture(scope="module")
def forecast(tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    store = ObjectStore(root=str(tmp_path_factory.mktemp("store")))
    write_forecast(store, "forecast.zarr", members=5)
    return open_forecast(store, "forecast.zarr")


def normal(_: object) -> xr.Dataset:
    levels = np.array([500, 850])
    shape = (2, 7, 12)
    return xr.Dataset(
        {
            "temperature": (("level", "latitude", "longitude"), np.full(shape, 270.0, np.float32)),
            "2m_temperature": (("latitude", "longitude"), np.full(shape[1:], 280.0, np.float32)),
        },
        coords={"level": levels},
    )


def make(forecast: xr.Dataset, folder: Path, budget: int = 1 << 30) -> tuple[Aggregate, xr.Dataset]:
    plan = plan_products(
        SETTINGS, TASK.target_variables, TASK.pressure_levels, climatology=("temperature", "2m_temperature")
    )
    result = aggregate(
        forecast, folder, plan=plan, climatology=normal, budget=budget, attrs={"title": "test"}
    )
    return result, open_products(folder / "ensemble.zarr").load()


@pytest.fixture(scope="module")
def made(forecast: xr.Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Aggregate, xr.Dataset]:
    return make(forecast, tmp_path_factory.mktemp("products"))


def test_moments_and_quantiles(forecast: xr.Dataset, made: tuple[Aggregate, xr.Dataset]) -> None:
    products = made[1]
    whole = forecast.load()
    for name in ("2m_temperature", "geopotential", "sea_surface_temperature"):
        bits = products[f"{name}_mean"].attrs["quantization_nsb"]
        expected = whole[name].astype(np.float64).mean("member", skipna=False)
        np.testing.assert_array_equal(
            products[f"{name}_mean"].values, round_mantissa(expected.values.astype(np.float32), bits)
        )
        deviation = whole[name].astype(np.float64).std("member", ddof=1, skipna=False)
        np.testing.assert_allclose(
            products[f"{name}_standard_deviation"].values, deviation.values, rtol=2**-11, atol=1e-6
        )
    for field, expected in (
        ("2m_temperature", whole["2m_temperature"]),
        ("geopotential_500hPa", whole["geopotential"].sel(level=500)),
    ):
        quantile = expected.astype(np.float64).quantile([0.1, 0.5, 0.9], dim="member", skipna=False)
        got = products[f"{field}_quantile"].transpose("quantile", "lead_time", "latitude", "longitude")
        np.testing.assert_allclose(got.values, quantile.values, rtol=2**-14)


def test_derived_quantities_and_probabilities(
    forecast: xr.Dataset, made: tuple[Aggregate, xr.Dataset]
) -> None:
    products = made[1]
    whole = forecast.load()
    speed = np.hypot(whole["10m_u_component_of_wind"], whole["10m_v_component_of_wind"])
    since_start = whole["total_precipitation_12hr"].cumsum("lead_time")
    events = {
        "probability_10m_wind_speed_above_5": speed > 5.0,
        "probability_total_precipitation_above_0.001": since_start > 0.001,
        "probability_temperature_anomaly_850hPa_above_1": whole["temperature"].sel(level=850) - 270 > 1.0,
        "probability_temperature_850hPa_below_273.15": whole["temperature"].sel(level=850) < 273.15,
    }
    for name, happens in events.items():
        np.testing.assert_allclose(
            products[name].values, happens.mean("member").values, rtol=2**-11, err_msg=name
        )
        assert 0 < float(products[name].mean()) < 1
    np.testing.assert_allclose(
        products["total_precipitation_mean"].values, since_start.mean("member").values, rtol=2**-10, atol=1e-7
    )
    np.testing.assert_allclose(
        products["10m_wind_speed_mean"].values, speed.mean("member").values, rtol=2**-10
    )
    u, v = (whole[f"10m_{c}_component_of_wind"].mean("member") for c in "uv")
    direction = np.deg2rad(products["10m_wind_direction_mean"].values)
    magnitude = np.hypot(u, v).values
    # A wind from direction d blows towards −(sin d, cos d).
    np.testing.assert_allclose(-magnitude * np.sin(direction), u.values, atol=0.02)
    np.testing.assert_allclose(-magnitude * np.cos(direction), v.values, atol=0.02)


def test_points_hold_every_member(forecast: xr.Dataset, made: tuple[Aggregate, xr.Dataset]) -> None:
    with xr.open_dataset(made[0].folder / "points.nc", engine="h5netcdf", decode_timedelta=True) as points:
        expected = forecast["2m_temperature"].sel(latitude=0, longitude=0)
        got = points["2m_temperature"].sel(point="Null Island")
        np.testing.assert_array_equal(got.values, expected.values)
        assert "geopotential_500hPa" in points


def test_the_representative_member_is_the_one_nearest_to_the_mean(
    forecast: xr.Dataset, made: tuple[Aggregate, xr.Dataset]
) -> None:
    result, products = made
    whole = forecast.load()
    weights = np.cos(np.deg2rad(whole["latitude"]))
    total = 0.0
    for array in (
        whole["geopotential"].sel(level=500),
        whole["temperature"].sel(level=850),
        whole["mean_sea_level_pressure"],
        whole["2m_temperature"],
    ):
        squared = ((array - array.mean("member")) ** 2).weighted(weights).mean(("latitude", "longitude"))
        total = total + (squared / squared.mean("member")).sum("lead_time")
    assert result.representative_member == int(total.argmin("member"))
    assert products.attrs["representative_member"] == result.representative_member
    one = open_products(result.folder / "representative_member.zarr")
    np.testing.assert_allclose(
        one["2m_temperature"].values,
        whole["2m_temperature"].sel(member=result.representative_member).values,
        rtol=2**-14,
    )


def test_a_small_budget_changes_nothing(
    forecast: xr.Dataset, made: tuple[Aggregate, xr.Dataset], tmp_path: Path
) -> None:
    result, products = make(forecast, tmp_path, budget=3000)
    xr.testing.assert_identical(products, made[1])
    assert result.representative_member == made[0].representative_member
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "ensemble.zarr", "points.nc", "representative_member.zarr",
    ]  # fmt: skip


def test_statistics_describe_what_was_written(made: tuple[Aggregate, xr.Dataset]) -> None:
    result, products = made
    row = result.statistics.query("product == '2m_temperature_mean' and lead_hours == 24").iloc[0]
    field = products["2m_temperature_mean"].isel(lead_time=1)
    assert row["minimum"] == pytest.approx(float(field.min()))
    assert row["maximum"] == pytest.approx(float(field.max()))
    assert row["missing"] == 0
    assert set(result.members["member"]) == {0, 1, 2, 3, 4}
    last = result.members.query("lead_hours == 36 and field == '2m_temperature'")
    assert last["checksum"].nunique() == 5


def test_a_missing_member_is_refused(forecast: xr.Dataset, tmp_path: Path) -> None:
    broken = forecast.load().copy(deep=True)
    broken["temperature"].values[2, 1] = np.nan
    with pytest.raises(IncompleteCycleError, match="member 2, lead time 1 day, 0:00:00, temperature"):
        make(broken, tmp_path)


def test_a_single_forecast_has_no_spread(forecast: xr.Dataset, tmp_path: Path) -> None:
    result, products = make(forecast.isel(member=[1]), tmp_path)
    assert not [
        name for name in products if "deviation" in name or "probability" in name or "quantile" in name
    ]
    assert result.representative_member is None
    np.testing.assert_allclose(
        products["2m_temperature_mean"].values, forecast["2m_temperature"].values[1], rtol=2**-14
    )


def test_events_are_resolved_against_the_forecast() -> None:
    plan = plan_products(ProductSettings(), ("2m_temperature",), ())
    assert len(plan.not_available) == 3
    for event, message in (
        (EventSettings(quantity="happiness", threshold=1.0), "event quantity"),
        (EventSettings(quantity="temperature", threshold=1.0), "expected a level, got None"),
        (EventSettings(quantity="10m_wind_speed", threshold=1.0, level=850), "expected no level"),
    ):
        with pytest.raises(UnknownOptionError, match=message):
            plan_products(ProductSettings(events=(event,)), TASK.target_variables, (850,))


def test_points_west_of_greenwich() -> None:
    grid = Grid(resolution=2.5)
    assert Point(name="x", latitude=40.7, longitude=-74.0).nearest(grid) == (52, 114)
    assert Point(name="x", latitude=-90, longitude=359.9).nearest(grid) == (0, 0)
