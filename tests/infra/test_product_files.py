"""What is written is what is read, by plain xarray, with CF metadata and the stated layout."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

from infra.errors import PublicationError
from infra.product_files import ProductField, ProductStore, describe, open_products, write_netcdf
from model.grid import Grid

INIT = datetime(2026, 1, 1, 12, tzinfo=UTC)
LEADS = (timedelta(hours=6), timedelta(hours=12))


def build(folder: Path, resolution: float = 30.0) -> tuple[ProductStore, dict[str, np.ndarray]]:
    store = ProductStore(
        folder=folder,
        grid=Grid(resolution=resolution),
        init_time=INIT,
        lead_times=LEADS,
        levels=(500, 850),
        quantiles=(0.1, 0.9),
        fields=(
            ProductField(
                name="temperature_mean",
                dims=("level",),
                attrs=describe("temperature, ensemble mean", "K", methods=["realization: mean"]),
                kept_bits=13,
            ),
            ProductField(name="2m_temperature_quantile", dims=("quantile",), attrs=describe("quantile", "K")),
        ),
        attrs={"title": "test"},
    )
    rng = np.random.default_rng(1)
    values = {
        product.name: rng.normal(280, 9, (2, 2, *store.grid.shape)).astype(np.float32)
        for product in store.fields
    }
    values["2m_temperature_quantile"][0, 0, 0, 0] = np.nan
    for name, array in values.items():
        for lead in range(2):
            store.write(name, lead, array[lead])
    store.finish(representative_member=3)
    return store, values


def test_plain_xarray_opens_the_products(tmp_path: Path) -> None:
    _, values = build(tmp_path / "products.zarr")
    opened = xr.open_zarr(str(tmp_path / "products.zarr"), chunks=None)
    for name, array in values.items():
        np.testing.assert_array_equal(opened[name].values, array)
    assert opened["valid_time"].values[1] == np.datetime64("2026-01-02T00:00")
    assert opened["init_time"].values == np.datetime64("2026-01-01T12:00")
    assert opened["lead_time"].values[0] == np.timedelta64(6, "h")
    assert opened["temperature_mean"].attrs["cell_methods"] == "realization: mean"
    assert opened["temperature_mean"].attrs["quantization_nsb"] == 13
    assert opened.attrs["representative_member"] == 3
    assert opened.attrs["Conventions"].startswith("CF-")


def test_a_lead_time_is_one_object_cut_into_tiles(tmp_path: Path) -> None:
    build(tmp_path / "products.zarr", resolution=0.5)
    array = zarr.open_group(tmp_path / "products.zarr", mode="r")["temperature_mean"]
    assert array.shape == (2, 2, 361, 720)
    assert array.chunks == (1, 1, 181, 240)
    assert array.shards == (1, 2, 362, 720)
    objects = [p for p in (tmp_path / "products.zarr" / "temperature_mean").rglob("*") if p.is_file()]
    assert len(objects) == 1 + 2


def test_netcdf_holds_the_same_values_and_metadata(tmp_path: Path) -> None:
    _, values = build(tmp_path / "products.zarr")
    files = write_netcdf(open_products(tmp_path / "products.zarr"), tmp_path / "netcdf", stem="ensemble")
    assert [path.name for path in files] == ["ensemble_0006h.nc", "ensemble_0012h.nc"]
    with xr.open_dataset(files[1], engine="h5netcdf", decode_timedelta=True) as opened:
        np.testing.assert_array_equal(opened["temperature_mean"].values[0], values["temperature_mean"][1])
        assert opened["temperature_mean"].attrs["units"] == "K"
        assert opened["valid_time"].values[0] == np.datetime64("2026-01-02T00:00")


def test_a_write_that_reads_back_differently_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, values = build(tmp_path / "products.zarr")
    monkeypatch.setattr(zarr.Array, "__setitem__", lambda *_: None)
    with pytest.raises(PublicationError, match="temperature_mean, lead time 6:00:00"):
        store.write("temperature_mean", 0, values["temperature_mean"][0] + 1)


def test_a_field_without_units_is_refused() -> None:
    with pytest.raises(ValueError, match="units"):
        ProductField(name="x", attrs={"long_name": "x"})
