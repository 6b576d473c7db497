"""Both families against DeepMind's implementation."""

from pathlib import Path

import pytest

from model.forecaster import load_forecaster
from model.rollout.rng import base_key, member_key
from model.rollout.rollout import rollout
from tests.model.parity import load_case

FIRST_STEP, LAST_STEP = 2e-4, 1e-3
"""Tolerances of the cases, in units of the spread of differences."""


@pytest.mark.parametrize("case", ["graphcast_small_f32", "graphcast_operational_f32", "gencast_f32"])
def test_rollout_agrees_with_the_reference(parity_dir: Path, case: str) -> None:
    loaded = load_case(parity_dir / case)
    example = loaded.example
    forecaster = load_forecaster(
        loaded.params, loaded.statistics, grid=example.grid, precision="float32", given=example.given
    )
    base = base_key(0, example.init_time, "reference")
    states = [
        forecaster.initial_state(
            example.initial_condition,
            init_time=example.init_time,
            member=member,
            key=member_key(base, member),
        )
        for member in range(loaded.predictions.sizes.get("sample", 1))
    ]
    steps = loaded.predictions.sizes["time"]
    seen = []
    for step in rollout(forecaster, states, example.initial_condition, steps=steps):
        deviation = loaded.deviation(step.fields, step=step.step, member=step.member)
        assert deviation <= (FIRST_STEP if step.step == 0 else LAST_STEP), (step.member, step.step)
        seen.append((step.member, step.step))
    assert seen == [(member, step) for member in range(len(states)) for step in range(steps)]


REFERENCE_BFLOAT16_DEVIATION = {
    "10m_u_component_of_wind": 0.01555,
    "10m_v_component_of_wind": 0.01374,
    "2m_temperature": 0.01461,
    "geopotential": 0.01255,
    "mean_sea_level_pressure": 0.00791,
    "specific_humidity": 0.01345,
    "temperature": 0.01426,
    "total_precipitation_6hr": 0.01612,
    "u_component_of_wind": 0.01511,
    "v_component_of_wind": 0.01188,
    "vertical_velocity": 0.01386,
}
"""Root mean square difference between DeepMind's bfloat16 and float32 after one step of ``graphcast_small_f32``, on
one CPU, in units of the spread of differences."""


def test_bfloat16_deviates_no_more_than_the_references(parity_dir: Path) -> None:
    loaded = load_case(parity_dir / "graphcast_small_f32")
    example = loaded.example
    forecaster = load_forecaster(loaded.params, loaded.statistics, precision="bfloat16", given=example.given)
    key = member_key(base_key(0, example.init_time), 0)
    state = forecaster.initial_state(
        example.initial_condition, init_time=example.init_time, member=0, key=key
    )
    [(_, fields)] = forecaster.advance([state], example.initial_condition)
    expected = loaded.predictions.isel(time=0, batch=0).rename(lat="latitude", lon="longitude")
    for name, limit in REFERENCE_BFLOAT16_DEVIATION.items():
        difference = (fields[name] - expected[name]) / loaded.statistics.diffs_stddev[name]
        assert 0 < float((difference**2).mean()) ** 0.5 <= limit, name


@pytest.mark.parametrize(("case", "steps"), [("graphcast_small_f32", 40), ("gencast_f32", 40)])
def test_float16_stays_finite_over_forty_steps(parity_dir: Path, case: str, steps: int) -> None:
    loaded = load_case(parity_dir / case)
    example = loaded.example
    forecaster = load_forecaster(loaded.params, loaded.statistics, grid=example.grid, precision="float16")
    key = member_key(base_key(0, example.init_time), 0)
    state = forecaster.initial_state(
        example.initial_condition, init_time=example.init_time, member=0, key=key
    )
    # A step that leaves the finite numbers raises.
    last = [step.step for step in rollout(forecaster, [state], example.initial_condition, steps=steps)][-1]
    assert last == steps - 1
