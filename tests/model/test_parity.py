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
