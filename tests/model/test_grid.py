"""The regular grid: coordinates, areas, and what does not lie on it."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from model.grid import Grid


@pytest.mark.parametrize(("resolution", "shape"), [(0.25, (721, 1440)), (1.0, (181, 360)), (5.0, (37, 72))])
def test_shapes_are_the_published_ones(resolution: float, shape: tuple[int, int]) -> None:
    grid = Grid(resolution=resolution)
    assert grid.shape == shape
    assert grid.latitude[[0, -1]].tolist() == [-90, 90]
    assert grid.longitude[0] == 0
    assert grid.longitude[-1] == 360 - resolution


def test_area_weights_on_the_coarsest_grid_are_exact() -> None:
    # Rows at -90, 0, 90 with bounds ±45: caps take (1 - sin 45°)/2 of the sphere each.
    cap = (1 - np.sqrt(0.5)) / 2
    np.testing.assert_allclose(Grid(resolution=90.0).area_weights(), [cap, 1 - 2 * cap, cap], rtol=1e-12)


@pytest.mark.parametrize("resolution", [0.0, -1.0, 0.7])
def test_a_resolution_divides_the_meridian(resolution: float) -> None:
    with pytest.raises(ValueError, match="divisor of 180"):
        Grid(resolution=resolution)


def on(latitude: np.ndarray, longitude: np.ndarray) -> xr.Dataset:
    return xr.Dataset(coords={"latitude": latitude, "longitude": longitude})


def test_mismatches_are_named() -> None:
    grid = Grid(resolution=10.0)
    assert grid.mismatch(on(grid.latitude, grid.longitude)) is None
    assert "descending" in str(grid.mismatch(on(grid.latitude[::-1], grid.longitude)))
    assert "0…360" in str(grid.mismatch(on(grid.latitude, grid.longitude - 180)))
    assert "missing" in str(grid.mismatch(xr.Dataset(coords={"latitude": grid.latitude})))
    finer = Grid(resolution=5.0)
    assert "expected 19 values for 10°, got 37" in str(grid.mismatch(on(finer.latitude, finer.longitude)))
