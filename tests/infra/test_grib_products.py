"""What is coded is what cfgrib and grib_ls read: names, members, steps, values; u is never v."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import eccodes
import numpy as np
import pytest
import xarray as xr

from infra.errors import PublicationError
from infra.grib_products import GRIB_PARAMETERS, GribField, compare, encode, write_grib
from model.grid import Grid

GRID = Grid(resolution=10.0)
INIT = datetime(2026, 1, 15, 12, tzinfo=UTC)
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


def field(quantity: str = "temperature", **changes: object) -> GribField:
    on_levels = GRIB_PARAMETERS[quantity].type_of_level == "isobaricInhPa"
    base = GribField(
        quantity=quantity,
        kind="member",
        member=3,
        members=8,
        init_time=INIT,
        hours=24,
        level=850 if on_levels else None,
        start_hours=12 if quantity == "total_precipitation" else None,
    )
    return replace(base, **changes)


def values(seed: int = 0, mean: float = 280.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, 10, GRID.shape).astype(np.float32)


@pytest.mark.parametrize("quantity", sorted(GRIB_PARAMETERS))
def test_every_quantity_reads_back_under_its_name(quantity: str) -> None:
    data = np.abs(values()) * 1e-3
    message = encode(field(quantity), data, GRID)
    compare(message, field(quantity), data, GRID)
    handle = eccodes.codes_new_from_message(message)
    assert eccodes.codes_get(handle, "shortName") == GRIB_PARAMETERS[quantity].short_name
    assert eccodes.codes_get(handle, "number") == 3
    eccodes.codes_release(handle)


@pytest.mark.parametrize(("meant", "coded"), [("u", "v"), ("v", "u")])
def test_u_is_never_v(meant: str, coded: str) -> None:
    data = values(mean=0.0)
    message = encode(field(f"{coded}_component_of_wind"), data, GRID)
    with pytest.raises(PublicationError, match=f"shortName: expected '{meant}', read back '{coded}'"):
        compare(message, field(f"{meant}_component_of_wind"), data, GRID)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"level": 500}, "level: expected 500, read back 850"),
        ({"member": 4}, "perturbationNumber: expected 4, read back 3"),
        ({"hours": 36}, "stepRange: expected '36', read back '24'"),
        ({"kind": "mean", "member": None}, "productDefinitionTemplateNumber: expected 2, read back 1"),
    ],
)
def test_a_field_under_another_label_is_refused(change: dict, message: str) -> None:
    with pytest.raises(PublicationError, match=message):
        compare(encode(field(), values(), GRID), field(**change), values(), GRID)


def test_other_values_are_refused() -> None:
    data = values()
    message = encode(field(), data, GRID)
    changed = data.copy()
    changed[0, 0] += 0.1
    with pytest.raises(PublicationError, match="expected values within"):
        compare(message, field(), changed, GRID)
    with pytest.raises(PublicationError, match="missing elsewhere"):
        compare(message, field(), np.where(np.arange(36) == 0, np.nan, data), GRID)
    with pytest.raises(ValueError, match="shape"):
        encode(field(), data[1:], GRID)


def test_missing_cells_stay_missing() -> None:
    data = values()
    data[5, 7:9] = np.nan
    sst = field("sea_surface_temperature")
    compare(encode(sst, data, GRID), sst, data, GRID)
    compare(encode(sst, np.full(GRID.shape, 290.0), GRID), sst, np.full(GRID.shape, 290.0), GRID)


def test_cfgrib_reads_members_on_levels(tmp_path: Path) -> None:
    data = {(m, level): values(10 * m + level) for m in (0, 1) for level in (500, 850)}
    count = write_grib(
        tmp_path / "members.grib2",
        ((field(member=m, level=level), array) for (m, level), array in data.items()),
        GRID,
    )
    assert count == 4
    opened = xr.open_dataset(tmp_path / "members.grib2", engine="cfgrib", backend_kwargs={"indexpath": ""})
    assert opened["t"].attrs["GRIB_paramId"] == 130
    assert opened["step"].values == np.timedelta64(24, "h")
    assert opened["time"].values == np.datetime64("2026-01-15T12:00")
    for (m, level), array in data.items():
        got = opened["t"].sel(number=m, isobaricInhPa=level)
        # 16 bits over a range of some 80 K: steps of 80 / 65535 K.
        np.testing.assert_allclose(got.sortby("latitude").values, array, atol=80 / 65535)
        assert got["longitude"].values[1] == 10.0
    assert [path.name for path in tmp_path.iterdir()] == ["members.grib2"]


def test_derived_fields_and_probabilities(tmp_path: Path) -> None:
    share = np.random.default_rng(1).integers(0, 9, GRID.shape) / 8
    rain = np.abs(values(mean=0.0)) * 1e-3
    wanted = [
        (field(kind="mean", member=None), values()),
        (field(kind="spread", member=None), np.abs(values(mean=0.0))),
        (field(kind="percentile", member=None, percentile=90), values()),
        (field("10m_wind_speed", kind="probability", member=None, threshold=15.0), share),
        (field("2m_temperature", kind="probability", member=None, threshold=273.15, below=True), share),
        (field("total_precipitation", kind="mean", member=None), rain),
        (field("total_precipitation", kind="mean", member=None, start_hours=0), rain),
        (field("total_precipitation", kind="probability", member=None, threshold=5.0, start_hours=0), share),
    ]
    write_grib(tmp_path / "derived.grib2", wanted, GRID)
    keys = ("shortName", "productDefinitionTemplateNumber", "stepRange")
    got = []
    with open(tmp_path / "derived.grib2", "rb") as file:
        while (handle := eccodes.codes_grib_new_from_file(file)) is not None:
            got.append(tuple(eccodes.codes_get(handle, key, str) for key in keys))
            eccodes.codes_release(handle)
    assert got == [
        ("t", "2", "24"),
        ("t", "2", "24"),
        ("t", "6", "24"),
        ("10si", "5", "24"),
        ("2tl273", "5", "24"),  # ecCodes' own name of this probability
        ("tp", "12", "12-24"),
        ("tp", "12", "0-24"),
        ("tp", "9", "0-24"),
    ]
    handle = eccodes.codes_new_from_message(encode(*wanted[4], GRID))
    scale = eccodes.codes_get(handle, "scaleFactorOfLowerLimit")
    assert eccodes.codes_get(handle, "scaledValueOfLowerLimit") / 10**scale == 273.15
    eccodes.codes_release(handle)
    handle = eccodes.codes_new_from_message(encode(*wanted[5], GRID))
    assert eccodes.codes_get(handle, "units") == "kg m**-2"
    assert eccodes.codes_get_values(handle).max() == pytest.approx(rain.max() * 1000, abs=1e-3)
    eccodes.codes_release(handle)


def test_grib_ls_lists_the_same(tmp_path: Path) -> None:
    library = importlib.util.find_spec("eccodeslib")
    bundled = Path(library.origin).parent / "bin" / "grib_ls" if library and library.origin else None
    program = str(bundled) if bundled and bundled.is_file() else shutil.which("grib_ls")
    if program is None:
        pytest.skip("grib_ls is neither bundled with ecCodes nor installed")
    write_grib(tmp_path / "u.grib2", [(field("u_component_of_wind"), values(mean=0.0))], GRID)
    listed = subprocess.run(
        [program, "-p", "shortName,number,stepRange,level", str(tmp_path / "u.grib2")],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert ["u", "3", "24", "850"] in [line.split() for line in listed.splitlines()]


def test_a_failed_file_does_not_appear(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="shape"):
        write_grib(tmp_path / "bad.grib2", [(field(), values()), (field(), values()[1:])], GRID)
    assert not (tmp_path / "bad.grib2").exists()
