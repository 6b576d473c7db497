import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from model.errors import CheckpointFileError, InvalidFieldError, UnknownOptionError
from model.forecaster import load_forecaster
from model.grid import Grid
from model.network_forecaster import NetworkForecaster, PendingStep, _Weather
from model.rollout.rng import base_key, member_key
from model.rollout.rollout import rollout
from model.rollout.state import RolloutState
from tests.conftest import QUICK_COMPILATION
from tests.model.tiny import GRID, INIT_TIME, initial_condition, params_file, statistics


@pytest.fixture(scope="module")
def forecaster() -> NetworkForecaster:
    return load_forecaster(params_file(), statistics())


def state_of(forecaster: NetworkForecaster, member: int = 0) -> RolloutState:
    return forecaster.initial_state(
        initial_condition(member),
        init_time=INIT_TIME,
        member=member,
        key=member_key(base_key(0, INIT_TIME), member),
    )


def fields_of(forecaster: NetworkForecaster, members: list[int], steps: int, program: int = 1) -> dict:
    states = [state_of(forecaster, member) for member in members]
    ran = rollout(forecaster, states, initial_condition(), steps=steps, members_per_program=program)
    return {(step.member, step.step): step.fields for step in ran}


def test_says_what_it_is(forecaster: NetworkForecaster) -> None:
    assert forecaster.family == "graphcast"
    assert forecaster.grid == GRID
    assert forecaster.description == "tiny"
    assert len(forecaster.sha256) == 64
    assert forecaster.options["precision"] == "float32"


def test_steps_carry_window_key_and_time(forecaster: NetworkForecaster) -> None:
    before = state_of(forecaster)
    [(after, fields)] = forecaster.advance([before], initial_condition())
    assert (after.member, after.step) == (0, 1)
    assert not np.array_equal(after.key, before.key)
    assert after.frames["time"].values[1] == np.datetime64("2020-01-01T12")
    np.testing.assert_array_equal(after.frames["temperature"][0], before.frames["temperature"][1])
    np.testing.assert_array_equal(after.frames["temperature"][1], fields["temperature"])
    assert set(after.frames.data_vars) == {"2m_temperature", "temperature"}
    assert set(fields.data_vars) == {"2m_temperature", "temperature", "total_precipitation_6hr"}
    assert fields["temperature"].dims == ("level", "latitude", "longitude")
    assert all(field.dtype == np.float32 for field in fields.data_vars.values())


def test_going_on_from_a_stored_state_gives_the_same_bits(forecaster: NetworkForecaster) -> None:
    whole = fields_of(forecaster, [0], 3)
    [(first, _)] = forecaster.advance([state_of(forecaster)], initial_condition())
    copy = RolloutState(
        member=0, init_time=INIT_TIME, step=1, key=first.key.copy(), frames=first.frames.copy(deep=True)
    )
    for step in rollout(forecaster, [copy], initial_condition(), steps=3):
        xr.testing.assert_identical(step.fields, whole[0, step.step])


def test_a_member_depends_neither_on_the_others_nor_on_their_order(forecaster: NetworkForecaster) -> None:
    alone, together = fields_of(forecaster, [2], 2), fields_of(forecaster, [2, 0, 1], 2)
    for step in range(2):
        xr.testing.assert_identical(alone[2, step], together[2, step])


def test_several_members_in_a_program_change_rounding_only(forecaster: NetworkForecaster) -> None:
    single = fields_of(forecaster, [0, 1, 2], 2)
    several = load_forecaster(params_file(), statistics(), members_per_program=2)
    for place, fields in fields_of(several, [0, 1, 2], 2, program=2).items():
        xr.testing.assert_allclose(fields, single[place], rtol=1e-4, atol=1e-4)


def test_one_member_on_each_of_several_devices_gives_the_same_bits() -> None:
    program = """
import jax, numpy as np
from tests.model.test_forecaster import fields_of, load_forecaster, params_file, statistics
devices = jax.local_devices()
assert len(devices) == 2
results = [load_forecaster(params_file(), statistics(), device=d) for d in devices]
first = fields_of(results[0], [0, 1], 2)
for member, forecaster in enumerate(reversed(results)):
    for (_, step), fields in fields_of(forecaster, [member], 2).items():
        assert fields.identical(first[member, step]), (member, step)
"""
    environment = {"XLA_FLAGS": f"{QUICK_COMPILATION} --xla_force_host_platform_device_count=2", "PATH": ""}
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_stays_finite_and_near_over_forty_steps(
    forecaster: NetworkForecaster, precision: str
) -> None:
    half = load_forecaster(params_file(), statistics(), precision=precision)
    [(_, expected)] = forecaster.advance([state_of(forecaster)], initial_condition())
    for step in rollout(half, [state_of(half)], initial_condition(), steps=40):
        assert all(np.isfinite(field).all() for field in step.fields.data_vars.values())
        if step.step == 0:
            # Eight bits of a unit-variance network output, times the spread of differences 0.5.
            difference = abs(step.fields["temperature"] - expected["temperature"])
            assert difference.max() < 0.05
    assert step.lead_time == timedelta(hours=240)


def test_steps_can_be_begun_and_fetched_later(forecaster: NetworkForecaster) -> None:
    pending = forecaster.dispatch([state_of(forecaster)], initial_condition())
    [(state, fields)] = pending.result()
    [(_, again)] = forecaster.advance([state_of(forecaster)], initial_condition())
    xr.testing.assert_identical(fields, again)
    assert state.step == 1


def test_a_network_that_overflows_is_not_passed_on(forecaster: NetworkForecaster) -> None:
    state = state_of(forecaster)
    broken = state.frames.copy(deep=True)
    broken["temperature"][:] = np.inf
    with pytest.raises(InvalidFieldError, match=r"member 0, step 0: .*expected finite values"):
        forecaster.advance(
            [RolloutState(member=0, init_time=INIT_TIME, step=0, key=state.key, frames=broken)],
            initial_condition(),
        )


def _with(name: str, change: Callable[[xr.DataArray], xr.DataArray]) -> Callable[[xr.Dataset], xr.Dataset]:
    return lambda dataset: dataset.assign({name: change(dataset[name])})


def _one_nan(field: xr.DataArray) -> xr.DataArray:
    field = field.copy(deep=True)
    field[1, 0, 2, 3] = np.nan
    return field


BAD = {
    "missing variable": (lambda d: d.drop_vars("temperature"), r"missing variables \['temperature'\]"),
    "missing static": (lambda d: d.drop_vars("land_sea_mask"), r"missing variables \['land_sea_mask'\]"),
    "missing level": (lambda d: d.sel(level=[500]), r"temperature: missing levels \[850\] hPa; got \[500\]"),
    "descending latitude": (
        lambda d: d.isel(latitude=slice(None, None, -1)),
        "latitude: expected ascending .90…90, got descending",
    ),
    "longitude −180…180": (
        lambda d: d.assign_coords(longitude=d.longitude - 180),
        "longitude: expected 0…360, got -180…150",
    ),
    "static with time": (
        _with("land_sea_mask", lambda f: f.expand_dims(time=2)),
        "land_sea_mask: expected dims .* a static field has no time dimension",
    ),
    "NaN": (
        _with("temperature", _one_nan),
        r"temperature: expected finite values, got 1 .*'level': 0, 'latitude': 2",
    ),
    "wrong step": (
        lambda d: d.assign_coords(time=d.time - np.array([np.timedelta64(6, "h"), np.timedelta64(0, "h")])),
        "expected frames 6 h apart, got 12 h",
    ),
    "wrong time": (
        lambda d: d.assign_coords(time=d.time + np.timedelta64(6, "h")),
        "last frame at 2020-01-01T06",
    ),
    "one frame": (lambda d: d.isel(time=[1]), "time: expected 2 valid times, got 1"),
    "other grid": (
        lambda d: d.isel(latitude=slice(None, None, 2)),
        "latitude: expected 7 values for 30°, got 4",
    ),
    "extra dimension": (
        _with("2m_temperature", lambda f: f.expand_dims(batch=1)),
        "2m_temperature: expected dims",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_initial_conditions_are_refused_before_anything_is_compiled(kind: str) -> None:
    change, message = BAD[kind]
    fresh = load_forecaster(params_file(), statistics())
    with pytest.raises(InvalidFieldError, match=message):
        fresh.initial_state(
            change(initial_condition()), init_time=INIT_TIME, member=0, key=np.zeros(2, np.uint32)
        )
    assert fresh.compile_seconds is None


def test_bad_options_are_refused() -> None:
    with pytest.raises(InvalidFieldError, match="expected 30°, on which the checkpoint was trained, got 10°"):
        load_forecaster(params_file(), statistics(), grid=Grid(resolution=10.0))
    with pytest.raises(UnknownOptionError, match=r"attention: expected one of .* got 'telepathy'"):
        load_forecaster(params_file(), statistics(), attention="telepathy")
    with pytest.raises(UnknownOptionError, match="precision"):
        load_forecaster(params_file(), statistics(), precision="float8")
    with pytest.raises(CheckpointFileError, match=r"whole .npz archive"):
        load_forecaster(params_file()[:100], statistics())
    with pytest.raises(ValueError, match="members_per_program: expected at least 1, got 0"):
        load_forecaster(params_file(), statistics(), members_per_program=0)


def test_members_of_a_program_must_be_at_one_step_and_not_too_many(forecaster: NetworkForecaster) -> None:
    states = [state_of(forecaster, member) for member in range(2)]
    with pytest.raises(ValueError, match="expected 1 to 1, got 2"):
        forecaster.advance(states, initial_condition())


def test_other_parameters_give_other_fields_by_the_same_program() -> None:
    fresh = load_forecaster(params_file(), statistics())
    published = fresh.parameters
    before = fields_of(fresh, [0], 2)
    program = fresh._program
    fresh.use_parameters({m: {n: 2 * a for n, a in named.items()} for m, named in published.items()})
    assert not fields_of(fresh, [0], 2)[0, 0].identical(before[0, 0])
    assert fresh.parameters is published
    fresh.use_parameters(published)
    for place, fields in fields_of(fresh, [0], 2).items():
        xr.testing.assert_identical(fields, before[place])
    assert fresh._program is program
    with pytest.raises(CheckpointFileError, match="missing, expected shape"):
        fresh.use_parameters({})


def test_the_next_member_finds_the_forcings_of_its_first_step() -> None:
    fresh = load_forecaster(params_file(), statistics())
    fields_of(fresh, [0], 5)
    step = fresh.task.step
    first = {INIT_TIME + offset * step for offset in (-1, 0, 1)}
    newest = {INIT_TIME + offset * step for offset in (4, 5, 6)}
    assert set(fresh._forcings) == first | newest, "and no more is kept"


def test_memory_is_known_before_anything_runs() -> None:
    fresh = load_forecaster(params_file(), statistics())
    need = fresh.compiled_memory()
    assert need["arguments"] > 0
    assert need["outputs"] >= 4 * 7 * 12 * 4
    assert fresh.compile_seconds is None


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_sea_surface_temperature_lost_at_sea_is_not_passed_on(
    forecaster: NetworkForecaster, value: float
) -> None:
    state = state_of(forecaster)
    sea = np.ones((2, *GRID.shape), np.float32)
    sea[:, 3] = np.nan
    frames = state.frames.assign(sea_surface_temperature=(("time", "latitude", "longitude"), sea))
    fields = {
        name: np.zeros((2, *GRID.shape) if name == "temperature" else GRID.shape, np.float32)
        for name in forecaster.task.target_variables
    }

    def step(temperature: np.ndarray) -> list:
        return PendingStep(
            forecaster=forecaster,
            states=[replace(state, frames=frames)],
            weather=_Weather(key=np.zeros(2, np.uint32), frames={}),
            fields=fields | {"sea_surface_temperature": temperature},
        ).result()

    [(after, _)] = step(sea[0])
    np.testing.assert_array_equal(after.frames["sea_surface_temperature"][1], sea[0])
    lost = sea[0].copy()
    lost[2, 5] = value
    with pytest.raises(
        InvalidFieldError, match=r"sea_surface_temperature: expected finite values, .* at 1 points"
    ):
        step(lost)


def test_keys_of_another_generator_are_refused(forecaster: NetworkForecaster) -> None:
    with pytest.raises(ValueError, match=r"key: expected uint32 of shape \(2,\), got uint32 of shape \(4,\)"):
        forecaster.initial_state(
            initial_condition(), init_time=INIT_TIME, member=0, key=np.zeros(4, np.uint32)
        )
