"""Products as Zarr v3 and NetCDF: CF metadata, kept precision, chunks for maps and for point series.

One Zarr array per product, dims (lead_time, [quantile,] [level,] latitude, longitude). A shard, one object,
is a whole lead time, so a map is one read; inside it each level's field is cut into tiles of at most 256×256
points, so a point's series needs one short range per lead time. Values are rounded to the mantissa bits of
``KEPT_BITS`` (the rest is zero and compresses away), which each array states as CF's ``quantization_nsb``.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from zarr.codecs import BloscCodec
from zarr.errors import ZarrUserWarning

from infra.errors import PublicationError
from model.grid import Grid

KEPT_BITS = {
    "geopotential": 14,
    "mean_sea_level_pressure": 15,
    "2m_temperature": 13,
    "temperature": 13,
    "sea_surface_temperature": 13,
}
"""Explicit mantissa bits per quantity: 1 m² s⁻² at 500 hPa, 1 Pa at the surface, 0.02 K."""

DEFAULT_KEPT_BITS = 10
"""For all others, spreads and probabilities: a relative error of at most 0.05 %."""

_COMPRESSOR = BloscCodec(cname="zstd", clevel=5, shuffle="bitshuffle")
_TILE = 256
_TIME_UNITS = "hours since 1970-01-01"


@dataclass(frozen=True, kw_only=True)
class ProductField:
    """One array of products.

    Args:
        name: its name.
        dims: beside lead_time, latitude and longitude: none, ("level",), ("quantile",).
        attrs: CF attributes; ``units`` and ``long_name`` at least.
        kept_bits: explicit mantissa bits that hold information.
    """

    name: str
    dims: tuple[str, ...] = ()
    attrs: Mapping[str, Any] = field(default_factory=dict)
    kept_bits: int = DEFAULT_KEPT_BITS

    def __post_init__(self) -> None:
        missing = {"units", "long_name"} - set(self.attrs)
        if missing:
            raise ValueError(f"product {self.name}: attributes {sorted(missing)} are missing")


@dataclass(frozen=True, kw_only=True)
class ProductStore:
    """A Zarr store of products in a local folder, written lead time by lead time.

    Args:
        folder: the store's folder, made if absent.
        grid: of all products.
        init_time: start of the forecast, UTC.
        lead_times: ascending.
        levels: hPa; may be empty.
        quantiles: ascending; may be empty.
        fields: the arrays.
        attrs: attributes of the whole store.
    """

    folder: Path
    grid: Grid
    init_time: datetime
    lead_times: tuple[timedelta, ...]
    levels: tuple[int, ...]
    quantiles: tuple[float, ...]
    fields: tuple[ProductField, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def _by_name(self) -> dict[str, ProductField]:
        return {product.name: product for product in self.fields}

    @cached_property
    def _group(self) -> zarr.Group:
        group = zarr.open_group(zarr.storage.LocalStore(self.folder), mode="w", zarr_format=3)
        sizes = {"level": len(self.levels), "quantile": len(self.quantiles)}
        for name, (values, attrs) in self._coordinates().items():
            group.create_array(
                name,
                data=values,
                chunks=values.shape if values.ndim else "auto",
                dimension_names=(["lead_time"] if name == "valid_time" else [name]) if values.ndim else None,
                attributes=attrs,
            )
        rows, columns = self.grid.shape
        tile = tuple(-(-size // -(-size // _TILE)) for size in (rows, columns))
        for product in self.fields:
            extra = tuple(sizes[dim] for dim in product.dims)
            chunks = (1, *(1 for _ in extra), *tile)
            shards = (1, *extra, *(-(-n // t) * t for n, t in zip((rows, columns), tile)))
            group.create_array(
                product.name,
                shape=(len(self.lead_times), *extra, rows, columns),
                dtype="float32",
                chunks=chunks,
                shards=None if shards == chunks else shards,
                fill_value=float("nan"),
                compressors=[_COMPRESSOR],
                dimension_names=["lead_time", *product.dims, "latitude", "longitude"],
                attributes={
                    **product.attrs,
                    "coordinates": "init_time valid_time",
                    "quantization_nsb": product.kept_bits,
                },
            )
        group.attrs.update({"Conventions": "CF-1.12", **self.attrs})
        return group

    def _coordinates(self) -> dict[str, tuple[np.ndarray, dict[str, Any]]]:
        init = int(self.init_time.timestamp()) // 3600
        hours = np.array([lead // timedelta(hours=1) for lead in self.lead_times], dtype=np.int64)
        found: dict[str, tuple[np.ndarray, dict[str, Any]]] = {
            "lead_time": (
                hours,
                {"units": "hours", "dtype": "timedelta64[ns]", "standard_name": "forecast_period"},
            ),
            "init_time": (np.array(init), {"units": _TIME_UNITS, "standard_name": "forecast_reference_time"}),
            "valid_time": (init + hours, {"units": _TIME_UNITS, "standard_name": "time", "axis": "T"}),
            "latitude": (
                self.grid.latitude,
                {"units": "degrees_north", "standard_name": "latitude", "axis": "Y"},
            ),
            "longitude": (
                self.grid.longitude,
                {"units": "degrees_east", "standard_name": "longitude", "axis": "X"},
            ),
        }
        if self.levels:
            found["level"] = (
                np.array(self.levels, dtype=np.int32),
                {"units": "hPa", "standard_name": "air_pressure", "positive": "down", "axis": "Z"},
            )
        if self.quantiles:
            found["quantile"] = (
                np.array(self.quantiles, dtype=np.float64),
                {"units": "1", "long_name": "cumulative probability over members"},
            )
        return found

    def write(self, name: str, lead_index: int, values: np.ndarray) -> None:
        """Write one product at one lead time, already rounded; read it back and compare.

        Raises:
            PublicationError: what was read back is not what was written.
        """
        array: Any = self._group[name]
        array[lead_index] = values
        if not np.array_equal(np.asarray(array[lead_index]), values, equal_nan=True):
            raise PublicationError(
                f"product {name}, lead time {self.lead_times[lead_index]}: what was read back from "
                f"{self.folder} differs from what was written"
            )

    def kept_bits(self, name: str) -> int:
        """Mantissa bits of a product."""
        return self._by_name[name].kept_bits

    def dims(self, name: str) -> tuple[str, ...]:
        """Dimensions of a product beside lead time, latitude and longitude."""
        return self._by_name[name].dims

    def finish(self, **attrs: Any) -> None:
        """Add attributes and consolidate the metadata, so that a remote reader opens it in one request."""
        self._group.attrs.update(attrs)
        with warnings.catch_warnings():  # consolidated metadata are an extension of Zarr v3 that readers know
            warnings.simplefilter("ignore", ZarrUserWarning)
            zarr.consolidate_metadata(self._group.store)


def open_products(folder: Path | str) -> xr.Dataset:
    """Products of a finished store, lazily; lead times as timedelta."""
    return xr.open_zarr(str(folder), chunks=None)


def write_netcdf(products: xr.Dataset, folder: Path, *, stem: str) -> list[Path]:
    """One NetCDF-4 file per lead time, each read back and compared; only one lead time is in memory at once.

    Args:
        products: as ``open_products`` gives them.
        folder: made if absent.
        stem: beginning of the file names, which end with the lead time in hours.

    Raises:
        PublicationError: what was read back is not what was written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for index, lead in enumerate(products["lead_time"].values):
        hours = int(lead / np.timedelta64(1, "h"))
        path = folder / f"{stem}_{hours:04d}h.nc"
        one = products.isel(lead_time=[index]).load()
        packing = {name: {"zlib": True, "complevel": 4, "shuffle": True} for name in one.data_vars}
        for variable in one.variables.values():
            variable.encoding.clear()
        units = {name: {"units": _TIME_UNITS} for name in ("init_time", "valid_time")}
        encoding: dict[Any, Any] = {**packing, **units, "lead_time": {"units": "hours"}}
        one.to_netcdf(path, engine="h5netcdf", encoding=encoding)
        with xr.open_dataset(path, engine="h5netcdf", decode_timedelta=True) as written:
            different = [name for name in one.data_vars if not one[name].equals(written[name])]
        if different:
            raise PublicationError(f"{path.name}: read back differently: {', '.join(map(str, different))}")
        files.append(path)
    return files


def describe(name: str, units: str, *, standard_name: str | None = None, methods: Sequence[str] = ()) -> dict:
    """CF attributes of a product: a long name, units, and how it came from the members."""
    attrs: dict[str, Any] = {"long_name": name, "units": units}
    if standard_name:
        attrs["standard_name"] = standard_name
    if methods:
        attrs["cell_methods"] = " ".join(methods)
    return attrs
