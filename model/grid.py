"""The model's regular latitude-longitude grid, poles included."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

_COORDINATE_TOLERANCE_DEGREES = 1e-3


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Regular grid with both poles: latitude ascending −90…90, longitude 0…360−Δ.

    Args:
        resolution: spacing Δ in degrees; must divide 180.
    """

    resolution: float

    def __post_init__(self) -> None:
        rows = 180.0 / self.resolution if self.resolution > 0 else 0.0
        if self.resolution <= 0 or abs(rows - round(rows)) > 1e-6:
            raise ValueError(f"resolution: expected a divisor of 180 degrees, got {self.resolution}")

    @property
    def shape(self) -> tuple[int, int]:
        """(latitude, longitude) sizes."""
        rows = round(180.0 / self.resolution)
        return rows + 1, 2 * rows

    @property
    def latitude(self) -> np.ndarray:
        """Latitudes in degrees north, ascending, float32, shape (latitude,)."""
        return np.linspace(-90.0, 90.0, self.shape[0]).astype(np.float32)

    @property
    def longitude(self) -> np.ndarray:
        """Longitudes in degrees east from 0, float32, shape (longitude,)."""
        return (np.arange(self.shape[1]) * (360.0 / self.shape[1])).astype(np.float32)

    def area_weights(self) -> np.ndarray:
        """Share of the sphere's area of a cell in each row, summing to 1 over latitude, float64.

        A row's cells reach half way to its neighbours, polar rows to the pole: the weight is the difference
        of the sine of latitude at the bounds (WeatherBench's convention).
        """
        centres = np.linspace(-90.0, 90.0, self.shape[0])
        bounds = np.concatenate([[-90.0], (centres[:-1] + centres[1:]) / 2, [90.0]])
        weights = np.diff(np.sin(np.deg2rad(bounds)))
        return weights / weights.sum()

    def mismatch(self, dataset: xr.Dataset) -> str | None:
        """Why a Dataset with latitude and longitude does not lie on this grid; None if it does."""
        for name, expected in (("latitude", self.latitude), ("longitude", self.longitude)):
            if name not in dataset.coords:
                return f"coordinate {name!r} is missing; got {sorted(map(str, dataset.coords))}"
            got = np.asarray(dataset[name].values, dtype=np.float64)
            if got.ndim != 1:
                return f"{name}: expected one dimension, got {got.ndim}"
            if name == "latitude" and got.size > 1 and got[0] > got[-1]:
                return f"latitude: expected ascending -90…90, got descending {got[0]:g}…{got[-1]:g}"
            if name == "longitude" and got.size and got.min() < -_COORDINATE_TOLERANCE_DEGREES:
                return f"longitude: expected 0…360, got {got.min():g}…{got.max():g}"
            if got.shape != expected.shape:
                return (
                    f"{name}: expected {expected.size} values for {self.resolution:g}°, got {got.size} "
                    f"({got[0]:g}…{got[-1]:g})"
                )
            if np.abs(got - expected).max() > _COORDINATE_TOLERANCE_DEGREES:
                return f"{name}: expected multiples of {self.resolution:g}°, got others"
        return None
