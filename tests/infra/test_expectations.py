"""What the suites catch: one sound atmosphere, and what becomes of it in careless hands.

Great Expectations takes seconds a run, so all cases of a suite are judged in one, told apart by their time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from infra.expectations import run_suite
from infra.validation_report import Finding
from infra.validation_suites import Check, build_suite
from model.diagnostics.field_statistics import ExpectedState, field_statistics
from model.grid import Grid
from model.task import TaskConfig
from model.variables import LEVELS_37, STANDARD_GRAVITY, STATICS
from tests.model.diagnostics.atmospheres import (
    INIT_TIME,
    era5_state,
    gencast_statistics,
    gfs_state,
    statistics_of,
    synthetic_state,
    task,
)

Mutation = Callable[[xr.Dataset], xr.Dataset]
LAND = sorted(STATICS)


def with_values(state: xr.Dataset, name: str, change: Callable[[np.ndarray], np.ndarray]) -> xr.Dataset:
    return state.assign({name: state[name].copy(data=change(state[name].values.copy()))})


def poke(name: str, value: float, count: int = 1) -> Mutation:
    """Put a value into the first points of a field's second frame."""

    def change(values: np.ndarray) -> np.ndarray:
        values[1].reshape(-1)[:count] = value
        return values

    return lambda state: with_values(state, name, change)


def swap(first: str, second: str) -> Mutation:
    def change(state: xr.Dataset) -> xr.Dataset:
        one, other = state[first], state[second]
        return state.assign({first: one.copy(data=other.values), second: other.copy(data=one.values)})

    return change


def moving(state: xr.Dataset) -> list[str]:
    return [str(name) for name in state.data_vars if name not in STATICS]


def reversed_latitude(state: xr.Dataset) -> xr.Dataset:
    """Every field upside down, coordinates as they should be."""
    return state.map(lambda field: field.copy(data=np.flip(field.values, field.dims.index("latitude"))))


def shifted_longitude(state: xr.Dataset) -> xr.Dataset:
    """−180…180 taken for 0…360, in the moving fields only."""
    half = state.sizes["longitude"] // 2
    return state.assign({n: state[n].roll(longitude=half, roll_coords=False) for n in moving(state)})


def stale_frame(state: xr.Dataset) -> xr.Dataset:
    """The second frame is the first again."""
    return state.assign({n: state[n].copy(data=state[n].values[[0, 0]]) for n in moving(state)})


MUTATIONS: dict[str, tuple[Mutation, set[str]]] = {
    "nan": (poke("geopotential", np.nan), {"missing values"}),
    "infinity": (poke("temperature", np.inf), {"infinite values"}),
    "fill value": (poke("2m_temperature", 9.96921e36, 40), {"fill values", "physical range"}),
    "zero tile": (poke("u_component_of_wind", 0.0, 3_000), {"zeros"}),
    "swapped u and v": (swap("u_component_of_wind", "v_component_of_wind"), {"geostrophic balance"}),
    "swapped 10 m u and v": (swap("10m_u_component_of_wind", "10m_v_component_of_wind"), {"surface wind"}),
    "celsius": (
        lambda s: with_values(s, "temperature", lambda v: v - 273.15),
        {"physical range", "hydrostatic balance", "global mean"},
    ),
    "2 m celsius": (
        lambda s: with_values(s, "2m_temperature", lambda v: v - 273.15),
        {"physical range", "global mean"},
    ),
    "height for geopotential": (
        lambda s: with_values(s, "geopotential", lambda v: v / STANDARD_GRAVITY),
        {"physical range", "hydrostatic balance"},
    ),
    "hectopascal": (
        lambda s: with_values(s, "mean_sea_level_pressure", lambda v: v / 100),
        {"physical range", "global mean"},
    ),
    "grams": (
        lambda s: with_values(s, "specific_humidity", lambda v: v * 1000),
        {"physical range", "global mean", "hydrostatic balance"},
    ),
    "reversed latitude": (reversed_latitude, {"geostrophic balance", "geography"}),
    "shifted longitude": (shifted_longitude, {"geography"}),
    "shifted temperature": (
        lambda s: s.assign(temperature=s["temperature"].roll(longitude=9, roll_coords=False)),
        {"hydrostatic balance"},
    ),
    "reversed levels": (
        lambda s: with_values(s, "geopotential", lambda v: v[:, ::-1]),
        {"pressure levels", "physical range"},
    ),
    "stale frame": (stale_frame, {"repeated field", "step-to-step change"}),
    "missing variable": (lambda s: s.drop_vars("vertical_velocity"), {"completeness"}),
    "missing level": (lambda s: s.drop_sel(level=500), {"completeness"}),
    "other units": (
        lambda s: s.assign(temperature=s["temperature"].assign_attrs(units="degC")),
        {"units"},
    ),
    "descending latitude": (lambda s: s.isel(latitude=slice(None, None, -1)), {"grid"}),
    "previous cycle": (lambda s: s.assign_coords(time=s["time"] - np.timedelta64(6, "h")), {"time"}),
}
"""Name of a fault → how it is made, and which checks must block it."""


def judge(tables: dict[str, pd.DataFrame], family: str, kind: str) -> dict[str, list[Finding]]:
    """Findings by case, of one run of a suite over all of them."""
    joined = pd.concat(
        [table.assign(time=case + "|" + table.time.astype(str)) for case, table in tables.items()],
        ignore_index=True,
    )
    found: dict[str, list[Finding]] = {case: [] for case in tables}
    for finding in run_suite(joined, build_suite(family, kind), name=f"{family}-{kind}"):
        found[finding.time.split("|")[0]].append(finding)
    return found


def blocking(findings: list[Finding]) -> set[str]:
    return {finding.check for finding in findings if finding.severity == "block"}


GRID = Grid(resolution=7.5)
TASK = task("sea_surface_temperature", levels=(100, 200, 300, 500, 700, 850, 1000))


@pytest.fixture(scope="module")
def synthetic() -> dict[str, list[Finding]]:
    state = synthetic_state(TASK, GRID)
    statistics = statistics_of(state)

    def table(mutated: xr.Dataset, **facts: object) -> pd.DataFrame:
        given = {"source_kind": "era5", "trained_on": "era5", **facts}
        expected = ExpectedState(task=TASK, grid=GRID, init_time=INIT_TIME, statistics=statistics, **given)
        return field_statistics(mutated, expected)

    earlier = table(state)
    yesterday = dict(zip(earlier.digest, ["2026-01-01T00Z"] * len(earlier)))
    tables = {"sound": earlier} | {case: table(make(state)) for case, (make, _) in MUTATIONS.items()}
    tables["other weights"] = table(state, trained_on="hres")
    tables["yesterday's fields"] = table(state, earlier_digests=yesterday)
    shifted = state["sea_surface_temperature"].roll(longitude=9, roll_coords=False)
    tables["shifted sea"] = table(state.assign(sea_surface_temperature=shifted))
    tables["sea filled over land"] = table(
        state.assign(sea_surface_temperature=state["sea_surface_temperature"].fillna(273.15))
    )
    return judge(tables, "gencast", "era5")


def test_a_sound_state_passes_without_a_word(synthetic: dict[str, list[Finding]]) -> None:
    assert [str(finding) for finding in synthetic["sound"]] == []


@pytest.mark.parametrize("case", MUTATIONS)
def test_a_fault_is_blocked_for_its_own_reason(case: str, synthetic: dict[str, list[Finding]]) -> None:
    assert blocking(synthetic[case]) >= MUTATIONS[case][1]


@pytest.mark.parametrize(
    ("case", "check"),
    [
        ("other weights", "data kind"),
        ("yesterday's fields", "repeated field"),
        ("shifted sea", "sea mask"),
        ("sea filled over land", "sea mask"),
    ],
)
def test_what_only_the_surroundings_tell_is_blocked(
    case: str, check: str, synthetic: dict[str, list[Finding]]
) -> None:
    assert check in blocking(synthetic[case])


def test_a_finding_names_the_field_what_was_expected_and_what_came(
    synthetic: dict[str, list[Finding]],
) -> None:
    assert any(
        str(f).startswith("data kind: temperature 500 hPa")
        and "source kind expected equal to trained_on (hres), got era5" in str(f)
        for f in synthetic["other weights"]
    )
    ranged = [f for f in synthetic["2 m celsius"] if f.check == "physical range"]
    assert {f.variable for f in ranged} == {"2m_temperature"}
    assert all("lower_limit (170)" in f.expected for f in ranged)


UPPER_AIR_CASES = (
    "nan", "swapped u and v", "celsius", "height for geopotential", "reversed latitude",
    "shifted temperature", "stale frame", "previous cycle",
)  # fmt: skip
REAL_CASES = {
    "era5": UPPER_AIR_CASES,
    "gfs": (*UPPER_AIR_CASES, "fill value", "swapped 10 m u and v", "shifted longitude"),
}


def thinned(state: xr.Dataset, config: TaskConfig) -> tuple[xr.Dataset, TaskConfig]:
    levels = (200, 500, 700, 850, 925)
    return state.sel(level=list(levels)), dataclasses.replace(config, pressure_levels=levels)


@pytest.fixture(scope="module")
def real(shared_data: Path) -> dict[str, list[Finding]]:
    """ERA5 and GFS, and the same after each mutation, against DeepMind's statistics."""
    statistics = gencast_statistics(shared_data)
    tables: dict[str, pd.DataFrame] = {}
    era5, era5_task, era5_grid = era5_state(shared_data)
    gfs, gfs_task, gfs_grid, gfs_time = gfs_state(shared_data)
    era5_time = era5["time"].values[1].astype("M8[ms]").item().replace(tzinfo=INIT_TIME.tzinfo)
    for label, state, config, grid, time in (
        ("era5", era5, era5_task, era5_grid, era5_time),
        ("gfs", gfs, gfs_task, gfs_grid, gfs_time),
    ):
        expected = ExpectedState(task=config, grid=grid, init_time=time, statistics=statistics)
        tables[f"{label} sound"] = field_statistics(state, expected)
        # All levels for the sound state; five are enough to see a fault by.
        state, config = thinned(state, config)
        expected = ExpectedState(task=config, grid=grid, init_time=time, statistics=statistics)
        for case in REAL_CASES[label]:
            tables[f"{label} {case}"] = field_statistics(MUTATIONS[case][0](state), expected)
    whole, whole_task, _ = era5_state(shared_data, levels=LEVELS_37)
    expected = ExpectedState(task=whole_task, grid=era5_grid, init_time=era5_time, statistics=statistics)
    tables["37 levels sound"] = field_statistics(whole, expected)
    return judge(tables, "graphcast", "gfs")


@pytest.mark.parametrize("label", ["era5", "37 levels", "gfs"])
def test_a_real_analysis_passes_without_a_word(label: str, real: dict[str, list[Finding]]) -> None:
    assert [str(finding) for finding in real[f"{label} sound"]] == []


@pytest.mark.parametrize("case", [f"{label} {case}" for label, cases in REAL_CASES.items() for case in cases])
def test_a_fault_in_a_real_analysis_is_blocked_for_its_own_reason(
    case: str, real: dict[str, list[Finding]]
) -> None:
    label, fault = case.split(" ", 1)
    needed = MUTATIONS[fault][1] - ({"geography"} if label == "era5" else set())  # no statics in that file
    assert blocking(real[case]) >= needed


def test_what_cannot_be_evaluated_blocks() -> None:
    table = pd.DataFrame([{"variable": "temperature", "level": 500, "time": "t", "minimum": 200.0}])
    check = Check(name="nonsense", severity="warn", column="no_such_column", reason="", minimum=0.0)
    (finding,) = run_suite(table, (check,), name="test")
    assert finding.severity == "block"
    assert "not evaluated" in finding.observed


def test_data_docs_are_static_pages_below_the_folder(tmp_path: Path) -> None:
    table = pd.DataFrame([{"variable": "temperature", "level": 500, "time": "t", "minimum": 100.0}])
    check = Check(name="range", severity="block", column="minimum", reason="too cold", minimum=140.0)
    (finding,) = run_suite(table, (check,), name="test", docs_folder=tmp_path / "docs")
    assert (finding.variable, finding.level, finding.observed) == ("temperature", 500, "100")
    assert (tmp_path / "docs" / "index.html").is_file()
    assert len(list((tmp_path / "docs" / "validations").rglob("*.html"))) == 1
