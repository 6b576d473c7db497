"""The GRIB2 files of a forecast hold its products and members, as cfgrib reads them."""

from __future__ import annotations

from pathlib import Path

import cfgrib
import eccodes
import numpy as np
import pytest
import xarray as xr

from infra.forecast_store import open_forecast
from infra.object_store import ObjectStore
from infra.product_files import open_products
from infra.settings import EventSettings, ProductSettings
from tasks.aggregate import aggregate
from tasks.product_grib import write_grib_products
from tasks.product_plan import plan_products
from tests.fakes.forecasts import TASK, write_forecast

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


def counted(path: Path) -> dict[tuple[str, int], int]:
    """Messages by short name and product definition template."""
    found: dict[tuple[str, int], int] = {}
    with open(path, "rb") as file:
        while (handle := eccodes.codes_grib_new_from_file(file)) is not None:
            key = (
                eccodes.codes_get(handle, "shortName"),
                eccodes.codes_get(handle, "productDefinitionTemplateNumber"),
            )
            found[key] = found.get(key, 0) + 1
            eccodes.codes_release(handle)
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, xr.Dataset, xr.Dataset]:
    root = tmp_path_factory.mktemp("grib")
    store = ObjectStore(root=str(root / "store"))
    write_forecast(store, "forecast.zarr", members=3, steps=2)
    forecast = open_forecast(store, "forecast.zarr")
    settings = ProductSettings(
        events=(
            EventSettings(quantity="10m_wind_speed", threshold=5.0),
            EventSettings(quantity="total_precipitation", threshold=0.001),
        )
    )
    plan = plan_products(settings, TASK.target_variables, TASK.pressure_levels)
    aggregate(forecast, root, plan=plan)
    products = open_products(root / "ensemble.zarr")
    assert write_grib_products(root / "grib2", products, forecast, plan) == []
    return root / "grib2", products, forecast


def test_members_are_read_by_cfgrib(made: tuple[Path, xr.Dataset, xr.Dataset]) -> None:
    folder, _, forecast = made
    assert sorted(path.name for path in folder.iterdir()) == [
        "ensemble_0012h.grib2", "ensemble_0024h.grib2", "members_0012h.grib2", "members_0024h.grib2",
    ]  # fmt: skip
    datasets = cfgrib.open_datasets(str(folder / "members_0024h.grib2"), indexpath="")
    at = forecast.isel(lead_time=1)
    names = {
        "u": "u_component_of_wind",
        "v": "v_component_of_wind",
        "z": "geopotential",
        "u10": "10m_u_component_of_wind",
        "v10": "10m_v_component_of_wind",
        "msl": "mean_sea_level_pressure",
        "sst": "sea_surface_temperature",
    }
    checked = set()
    for dataset in datasets:
        for short, name in names.items():
            if short not in dataset:
                continue
            got = dataset[short].sortby("latitude")
            if "isobaricInhPa" in got.dims:
                got = got.sortby("isobaricInhPa")
            expected = at[name].values
            np.testing.assert_allclose(
                got.values, expected, atol=float(np.nanmax(expected) - np.nanmin(expected)) / 65535 + 1e-6
            )
            checked.add(short)
    assert checked == set(names)


def test_ensemble_files_hold_every_product(made: tuple[Path, xr.Dataset, xr.Dataset]) -> None:
    folder, products, _ = made
    found = counted(folder / "ensemble_0024h.grib2")
    assert found["u", 2] == found["v", 2] == found["q", 2] == 4  # mean and spread on two levels
    assert found["z", 6] == found["t", 6] == 3  # quantiles at 500 and 850 hPa
    assert found["10si", 5] == found["tp", 9] == 1
    assert found["tp", 12] == 4  # mean and spread, of the step and since the start
    assert sum(counted(folder / "members_0024h.grib2").values()) == 3 * (6 + 5 * 2)
    with open(folder / "ensemble_0024h.grib2", "rb") as file:
        while (handle := eccodes.codes_grib_new_from_file(file)) is not None:
            if eccodes.codes_get(handle, "shortName") == "tp" and eccodes.codes_get(handle, "stepRange") == "0-24" and (
                eccodes.codes_get(handle, "productDefinitionTemplateNumber") == 12
                and eccodes.codes_get(handle, "derivedForecast") == 0
            ):  # fmt: skip
                values = eccodes.codes_get_values(handle).reshape(7, 12)[::-1]
                expected = products["total_precipitation_mean"].isel(lead_time=1).values * 1000
                np.testing.assert_allclose(values, expected, atol=1e-3)
            eccodes.codes_release(handle)
