"""How members come to differ: by key and number alone, by the size configured, and the control not at all."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import InvalidFieldError, UnknownOptionError
from model.grid import Grid
from model.rollout.perturbations import Perturbation, perturb, perturb_parameters
from model.rollout.rng import base_key, member_key
from tests.model.diagnostics.atmospheres import INIT_TIME, statistics_of, synthetic_state, task

GRID = Grid(resolution=10.0)
TASK = task("sea_surface_temperature", "total_precipitation_6hr", levels=(200, 500, 850, 1000))
STATE = synthetic_state(TASK, GRID)
DIFFS = statistics_of(STATE).diffs_stddev
BASE = base_key(7, INIT_TIME)
NOISE = Perturbation(kind="noise", amplitude=0.5, correlation_length_km=2000.0)
MOVING = [n for n in TASK.time_inputs if n != "total_precipitation_6hr"]


def noisy(member: int, state: xr.Dataset = STATE, how: Perturbation = NOISE) -> xr.Dataset:
    return perturb(state, how, key=member_key(BASE, member), member=member, grid=GRID, diffs_stddev=DIFFS)


@pytest.mark.parametrize("kind", ["none", "noise", "lagged", "analyses", "weights"])
def test_the_control_is_the_analysis(kind: str) -> None:
    how = Perturbation(kind=kind, lags_hours=(6,), sources=("a", "b"))
    same = perturb(STATE, how, key=BASE, member=0, grid=GRID)
    assert same is not STATE
    xr.testing.assert_identical(same, STATE)


def test_members_differ_from_the_control_and_from_each_other() -> None:
    one, two = noisy(1), noisy(2)
    for name in MOVING:
        assert np.nanmax(np.abs(one[name].values - STATE[name].values)) > 0
        assert np.nanmax(np.abs(one[name].values - two[name].values)) > 0


def test_statics_and_accumulations_stay_as_they_are() -> None:
    for name in ("land_sea_mask", "geopotential_at_surface", "total_precipitation_6hr"):
        np.testing.assert_array_equal(noisy(3)[name].values, STATE[name].values)


@settings(max_examples=5, deadline=None)
@given(member=st.integers(1, 500), others=st.lists(st.integers(0, 500), max_size=3))
def test_a_member_does_not_depend_on_which_others_there_are(member: int, others: list[int]) -> None:
    alone = noisy(member)
    for other in others:
        noisy(other)
    shuffled = STATE[sorted(STATE.data_vars, reverse=True)]
    xr.testing.assert_equal(noisy(member, shuffled), alone)


def test_the_size_is_a_share_of_one_steps_change_by_variable_and_level() -> None:
    members = [noisy(member) for member in range(1, 25)]
    weights = GRID.area_weights()[:, None] / GRID.shape[1]
    for name in ("temperature", "u_component_of_wind"):
        changes = np.stack([m[name].values[1] - STATE[name].values[1] for m in members]).astype(float)
        size = np.sqrt((changes**2 * weights).sum(axis=(-2, -1)).mean(axis=0))
        # 24 fields of some 15 degrees of freedom each: standard error of the size about 4 %.
        np.testing.assert_allclose(size, 0.5 * DIFFS[name].values, rtol=0.15)


def test_both_frames_get_the_same_so_that_the_tendency_stays() -> None:
    member = noisy(4)
    for name in ("temperature", "mean_sea_level_pressure"):
        before, after = STATE[name].values.astype(float), member[name].values.astype(float)
        scale = np.abs(before).max()
        np.testing.assert_allclose(after[1] - after[0], before[1] - before[0], atol=4e-7 * scale)


def test_missing_points_stay_missing_and_humidity_stays_positive() -> None:
    member = noisy(5, how=Perturbation(kind="noise", amplitude=50.0))
    sea = "sea_surface_temperature"
    np.testing.assert_array_equal(np.isnan(member[sea].values), np.isnan(STATE[sea].values))
    assert STATE["specific_humidity"].values.min() > 0
    assert member["specific_humidity"].values.min() == 0


def test_only_the_named_variables_are_perturbed() -> None:
    member = noisy(1, how=Perturbation(kind="noise", variables=("temperature",)))
    assert not np.array_equal(member["temperature"].values, STATE["temperature"].values)
    np.testing.assert_array_equal(member["geopotential"].values, STATE["geopotential"].values)
    # And it is the temperature noise of the member with all variables perturbed.
    whole = noisy(1, how=Perturbation(kind="noise"))
    np.testing.assert_array_equal(member["temperature"].values, whole["temperature"].values)


def mean_shifts(how: Perturbation, members: range, analyses: list[xr.Dataset]) -> list[float]:
    perturbed = [perturb(STATE, how, key=BASE, member=m, grid=GRID, analyses=analyses) for m in members]
    return [float((each - STATE)["temperature"].mean()) for each in perturbed]


def test_earlier_analyses_are_added_and_subtracted_in_turn() -> None:
    how = Perturbation(kind="lagged", amplitude=0.5, lags_hours=(6, 12))
    shifts = mean_shifts(how, range(1, 6), [STATE + 2.0, STATE - 6.0])
    assert shifts == pytest.approx([1.0, -1.0, -3.0, 3.0, 1.0], abs=1e-3)


def test_a_set_of_analyses_is_centred_on_the_control() -> None:
    how = Perturbation(kind="analyses", amplitude=1.0, sources=("a", "b", "c"))
    shifts = mean_shifts(how, range(1, 4), [STATE + offset for offset in (1.0, 2.0, 6.0)])
    assert shifts == pytest.approx([-2.0, -1.0, 3.0], abs=1e-3)


def test_what_is_needed_must_be_given() -> None:
    with pytest.raises(InvalidFieldError, match="needs the statistics"):
        perturb(STATE, NOISE, key=BASE, member=1, grid=GRID)
    with pytest.raises(InvalidFieldError, match=r"no diffs_stddev of temperature"):
        perturb(STATE, NOISE, key=BASE, member=1, grid=GRID, diffs_stddev=DIFFS.drop_vars("temperature"))
    lagged = Perturbation(kind="lagged", lags_hours=(6,))
    with pytest.raises(InvalidFieldError, match="expected 1 analyses, got 0"):
        perturb(STATE, lagged, key=BASE, member=1, grid=GRID)
    with pytest.raises(InvalidFieldError, match="expected shape"):
        perturb(STATE, lagged, key=BASE, member=1, grid=GRID, analyses=[STATE.isel(level=[0])])


def test_weights_get_noise_of_a_share_of_their_own_size() -> None:
    parameters = {
        "b": {"w": np.full((400, 50), 2.0, np.float32), "b": np.zeros(7, np.float32)},
        "a": {"w": np.full((300, 50), 0.1, np.float32)},
    }
    how = Perturbation(kind="weights", amplitude=0.01)
    key = member_key(BASE, 3)
    changed = perturb_parameters(parameters, how, key=key, member=3)
    assert np.std(changed["b"]["w"]) == pytest.approx(0.02, rel=0.03)
    assert np.std(changed["a"]["w"]) == pytest.approx(0.001, rel=0.03)
    np.testing.assert_array_equal(changed["b"]["b"], 0.0)
    again = perturb_parameters(dict(reversed(parameters.items())), how, key=key, member=3)
    np.testing.assert_array_equal(changed["a"]["w"], again["a"]["w"])
    for unchanged in (
        perturb_parameters(parameters, how, key=key, member=0),
        perturb_parameters(parameters, NOISE, key=key, member=3),
    ):
        np.testing.assert_array_equal(unchanged["b"]["w"], parameters["b"]["w"])


@pytest.mark.parametrize(
    "how",
    [
        Perturbation(),
        NOISE,
        Perturbation(kind="lagged", lags_hours=(6, 24)),
        Perturbation(kind="analyses", sources=("a", "b"), variables=("temperature",)),
    ],
)
def test_a_configuration_survives_json(how: Perturbation) -> None:
    assert Perturbation.from_json(how.to_json()) == how
    assert Perturbation.from_json({}).kind == "none"


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"kind": "magic"}, UnknownOptionError, "expected one of .*'noise'.*got 'magic'"),
        ({"size": 1}, UnknownOptionError, "unknown size; known"),
        ({"amplitude": -1.0}, ValueError, "amplitude"),
        ({"kind": "lagged"}, ValueError, "lags_hours"),
        ({"kind": "analyses", "sources": ["a"]}, ValueError, "at least two"),
        ({"correlation_length_km": 0}, ValueError, "correlation_length_km > 0"),
        ({"variables": ["land_sea_mask"]}, ValueError, "may not be perturbed"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(
    values: dict, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Perturbation.from_json(values)
