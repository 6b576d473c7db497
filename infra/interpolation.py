"""From whatever grid a provider uses to the model's regular one.

The weights come from MIR, ECMWF's own interpolation, once for every pair of grids and method. They are kept
as sparse matrices and applied here, so that missing values are treated one way for all grids:

* a missing source value takes no part, the weights of the others are scaled up to 1;
* linear and nearest: the result is missing where the source point of the largest weight is (MIR's rule);
* conservative: it is missing where less than half of the box is covered by values.

Where every target point is a source point the values are taken as they are ("subset"), which is what linear and
nearest amount to there; it is how the 1° data DeepMind trained on were made from 0.25°.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import scipy.sparse
import xarray as xr

from infra.errors import InvalidFieldError, UnknownOptionError
from infra.interpolation_weights import weights
from model.grid import Grid

Method = Literal["auto", "subset", "linear", "conservative", "nearest"]
_COORDINATE_TOLERANCE = 1e-3
_LEAST_COVERAGE = 0.5


def regrid(
    dataset: xr.Dataset,
    grid: Grid,
    *,
    method: Method = "auto",
    masks: Mapping[str, np.ndarray] | None = None,
    cache: Path | None = None,
) -> xr.Dataset:
    """Bring all variables of a Dataset to a regular grid.

    Args:
        dataset: dims (…, latitude, longitude) in any order of coordinates, or (…, points) with latitude and
            longitude of each point and the grid's name (``O32``, ``N48``, ``H8``) in ``attrs["grid"]``.
        grid: the target.
        method: ``auto`` takes a subset of the points where it can, else linear interpolation.
        masks: variable → True where its source values mean something (shape of the source grid, in the
            Dataset's order); the others count as missing: sea, for sea surface temperature.
        cache: folder that keeps the weights; without one they are made anew.

    Returns:
        float32 Dataset on ``grid`` (latitude ascending, longitude from 0) with the same attrs;
        ``attrs["regridding"]`` says what was done.

    Raises:
        UnknownOptionError: no such method.
        InvalidFieldError: the source grid is not recognised or does not cover the globe, or ``subset`` was
            asked for and the target's points are not among the source's.
    """
    if method not in get_args(Method):
        raise UnknownOptionError(f"method: expected one of {', '.join(get_args(Method))}, got {method!r}")
    masked = _apply_masks(dataset, masks or {})
    source = upright(masked)
    indices = _subset_indices(source, grid) if method != "conservative" else None
    if indices is not None:
        done, how = source.isel(latitude=indices[0], longitude=indices[1]), "subset"
    elif method == "subset":
        raise InvalidFieldError(
            f"subset: the {grid.resolution:g}° points are not all among the source's; "
            f"source: {_describe(source)}"
        )
    else:
        how = "linear" if method == "auto" else method
        matrix = weights(_specification(source), grid, method=how, cache=cache)
        done = _interpolate(source, grid, matrix, how)
    done = done.assign_coords(latitude=grid.latitude, longitude=grid.longitude)
    order = [dim for dim in done.dims if dim not in ("latitude", "longitude")]
    done = done.transpose(*order, "latitude", "longitude").astype(np.float32)
    summary = f"{how}: {_describe(source)} → {grid.resolution:g}°"
    done.attrs = {**dataset.attrs, "grid": "", "regridding": summary}
    return done


def _apply_masks(dataset: xr.Dataset, masks: Mapping[str, np.ndarray]) -> xr.Dataset:
    horizontal = tuple(dim for dim in ("latitude", "longitude", "points") if dim in dataset.dims)
    changed = {}
    for name, mask in masks.items():
        if name in dataset:
            shape = tuple(dataset.sizes[dim] for dim in horizontal)
            if np.shape(mask) != shape:
                raise InvalidFieldError(
                    f"mask of {name}: expected shape {shape} {horizontal}, got {np.shape(mask)}"
                )
            changed[name] = dataset[name].where(xr.DataArray(np.asarray(mask, dtype=bool), dims=horizontal))
    return dataset.assign(changed) if changed else dataset


def upright(dataset: xr.Dataset) -> xr.Dataset:
    """Latitude ascending, longitude ascending within 0…360; points as they are.

    Raises:
        InvalidFieldError: no such axes, or a longitude twice.
    """
    if "points" in dataset.dims:
        return dataset
    for name in ("latitude", "longitude"):
        if name not in dataset.dims or name not in dataset.coords:
            raise InvalidFieldError(
                "expected latitude and longitude axes or points, "
                f"got dimensions {sorted(map(str, dataset.dims))}"
            )
    longitude = np.asarray(dataset["longitude"].values, dtype=np.float64) % 360.0
    longitude[np.abs(longitude - 360.0) < 1e-6] = 0.0
    if np.unique(longitude.round(6)).size != longitude.size:
        raise InvalidFieldError(f"longitude: expected distinct values, got repeats in {_describe(dataset)}")
    dataset = dataset.assign_coords(longitude=("longitude", longitude))
    if np.any(np.diff(longitude) < 0):
        dataset = dataset.isel(longitude=np.argsort(longitude))
    if np.any(np.diff(dataset["latitude"].values) < 0):
        dataset = dataset.isel(latitude=np.argsort(dataset["latitude"].values))
    return dataset


def _subset_indices(source: xr.Dataset, grid: Grid) -> tuple[np.ndarray, np.ndarray] | None:
    if "points" in source.dims:
        return None
    found = []
    for name, wanted in (("latitude", grid.latitude), ("longitude", grid.longitude)):
        have = np.asarray(source[name].values, dtype=np.float64)
        nearest = np.abs(have[None, :] - wanted[:, None].astype(np.float64)).argmin(axis=1)
        if np.abs(have[nearest] - wanted).max() > _COORDINATE_TOLERANCE:
            return None
        found.append(nearest)
    return found[0], found[1]


def _specification(source: xr.Dataset) -> str:
    named = str(source.attrs.get("grid", ""))
    if named:
        return f"{{grid: {named}}}"
    if "points" in source.dims:
        raise InvalidFieldError("points without the name of their grid (attrs['grid'], e.g. 'O320')")
    latitude = np.asarray(source["latitude"].values, dtype=np.float64)
    longitude = np.asarray(source["longitude"].values, dtype=np.float64)
    steps = np.diff(latitude), np.diff(longitude)
    for name, step in zip(("latitude", "longitude"), steps):
        if step.size == 0 or np.abs(step - step.mean()).max() > _COORDINATE_TOLERANCE:
            raise InvalidFieldError(
                f"{name}: expected evenly spaced values or the name of a Gaussian grid in attrs['grid'] "
                f"(e.g. 'F48'), got {_describe(source)}"
            )
    rows, columns = round(float(np.ptp(latitude) / steps[0].mean())), longitude.size
    south_north, west_east = np.ptp(latitude) / rows, 360.0 / columns
    gap = abs(steps[1].mean() * columns - 360.0)
    open_circle = gap > max(0.01 * west_east, _COORDINATE_TOLERANCE * columns / (columns - 1))
    if open_circle or latitude[0] - south_north > -90.0 or latitude[-1] + south_north < 90.0:
        raise InvalidFieldError(
            f"expected a grid around the globe and to both poles, got {_describe(source)}"
        )
    east = longitude[0] + west_east * (columns - 1)
    area = ", ".join(f"{edge:.10g}" for edge in (latitude[-1], longitude[0], latitude[0], east))
    return f"{{grid: [{west_east:.10g}, {south_north:.10g}], area: [{area}]}}"


@dataclass(frozen=True, kw_only=True)
class _Weights:
    """A matrix ready to be applied to fields of north-to-south points."""

    matrix: scipy.sparse.csr_array
    method: str

    def __call__(self, field: np.ndarray) -> np.ndarray:
        valid = np.isfinite(field)
        if valid.all():
            return self.matrix @ field
        total = self.matrix @ np.where(valid, field, 0.0)
        covered = self.matrix @ valid.astype(np.float64)
        if self.method == "conservative":
            kept = covered >= _LEAST_COVERAGE
        else:
            kept = valid[self._heaviest()]
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(kept, total / covered, np.nan)

    def _heaviest(self) -> np.ndarray:
        rows = np.repeat(np.arange(self.matrix.shape[0]), np.diff(self.matrix.indptr))
        by_weight = np.lexsort((self.matrix.data, rows))
        return self.matrix.indices[by_weight[self.matrix.indptr[1:] - 1]]


def _interpolate(source: xr.Dataset, grid: Grid, matrix: scipy.sparse.csr_array, method: str) -> xr.Dataset:
    horizontal = ("points",) if "points" in source.dims else ("latitude", "longitude")
    shape = tuple(source.sizes[dim] for dim in horizontal)
    if matrix.shape[1] != int(np.prod(shape)):
        raise InvalidFieldError(
            f"expected {matrix.shape[1]} points on grid {_describe(source)}, got {int(np.prod(shape))}"
        )
    apply = _Weights(matrix=matrix, method=method)
    out: dict[str, tuple[tuple[str, ...], np.ndarray, dict]] = {}
    for name, variable in source.data_vars.items():
        if not set(horizontal) <= set(variable.dims):
            continue
        leading = tuple(str(dim) for dim in variable.dims if dim not in horizontal)
        values = variable.transpose(*leading, *horizontal).values
        if len(horizontal) == 2:
            values = values[..., ::-1, :]  # MIR's points run from north to south
        lead_shape = values.shape[: len(leading)]
        fields = values.reshape(-1, int(np.prod(shape)))
        result = np.empty((fields.shape[0], *grid.shape), dtype=np.float32)
        for target, field in zip(result, fields):
            target[:] = apply(field.astype(np.float64)).reshape(grid.shape)[::-1]
        dims = (*leading, "latitude", "longitude")
        out[str(name)] = (dims, result.reshape(*lead_shape, *grid.shape), variable.attrs)
    coordinates = {
        name: coordinate
        for name, coordinate in source.coords.items()
        if not {"latitude", "longitude", "points"} & set(coordinate.dims)
    }
    return xr.Dataset(out, coords=coordinates)


def _describe(dataset: xr.Dataset) -> str:
    if dataset.attrs.get("grid"):
        return str(dataset.attrs["grid"])
    if "points" in dataset.dims:
        return f"{dataset.sizes['points']} points"
    latitude, longitude = dataset["latitude"].values, dataset["longitude"].values
    return (
        f"{latitude.size} latitudes {latitude[0]:g}…{latitude[-1]:g} × "
        f"{longitude.size} longitudes {longitude[0]:g}…{longitude[-1]:g}"
    )
