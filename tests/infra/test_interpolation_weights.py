from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import eccodes
import numpy as np
import pytest

from infra import interpolation_weights
from infra.errors import InvalidFieldError
from infra.grib import decode
from infra.interpolation_weights import spectral_transform, weights
from model.grid import Grid


def spectral_message(mean: float, dipole: float) -> bytes:
    """Temperature with two coefficients: the mean, and P₁⁰ = √3 sin φ in ECMWF's normalisation."""
    handle = eccodes.codes_grib_new_from_samples("sh_pl_grib2")
    try:
        for key, value in {"centre": "ecmf", "shortName": "t", "level": 500, "dataDate": 20260101}.items():
            eccodes.codes_set(handle, key, value)
        eccodes.codes_set(handle, "bitsPerValue", 24)
        coefficients = np.zeros(eccodes.codes_get_size(handle, "values"))
        coefficients[0], coefficients[2] = mean, dipole  # real parts of (n, m) = (0, 0) and (1, 0)
        eccodes.codes_set_values(handle, coefficients)
        return eccodes.codes_get_message(handle)
    finally:
        eccodes.codes_release(handle)


def test_spherical_harmonics_are_evaluated_on_the_grid(tmp_path: Path) -> None:
    path = tmp_path / "spectral.grib"
    path.write_bytes(spectral_message(250.0, 10.0))
    grid = Grid(resolution=10)
    dataset = decode(path, spectral=spectral_transform(grid))
    assert grid.mismatch(dataset) is None
    expected = 250.0 + 10.0 * np.sqrt(3.0) * np.sin(np.deg2rad(np.arange(-90.0, 91.0, 10.0)))
    got = dataset["temperature"].sel(
        time=datetime(2026, 1, 1, 12, tzinfo=UTC).replace(tzinfo=None), method="nearest"
    )
    np.testing.assert_allclose(got[0], np.repeat(expected[:, None], 36, axis=1), atol=0.01)


def test_without_a_target_grid_spherical_harmonics_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "spectral.grib"
    path.write_bytes(spectral_message(250.0, 10.0))
    with pytest.raises(InvalidFieldError, match=r"t at 500, .* is in spherical harmonics: expected a target"):
        decode(path)


def test_rows_sum_to_one_and_the_cache_is_used(tmp_path: Path) -> None:
    first = weights("{grid: O8}", Grid(resolution=30), method="linear", cache=tmp_path)
    (kept,) = tmp_path.glob("*.npz")
    written = kept.stat().st_mtime_ns
    second = weights("{grid: O8}", Grid(resolution=30), method="linear", cache=tmp_path)
    assert kept.stat().st_mtime_ns == written
    np.testing.assert_allclose(np.asarray(first.sum(axis=1)).ravel(), 1.0)
    assert (first != second).nnz == 0


def test_mir_does_not_take_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpolation_weights, "MIR_TIMEOUT_SECONDS", 0.001)
    with pytest.raises(InvalidFieldError, match=r"MIR did not weights O32 .* linear within 0.001 s"):
        weights("O32", Grid(resolution=10), method="linear")
