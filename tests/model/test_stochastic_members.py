"""A GenCast member is its own, whatever else is computed and where: bit for bit with the one-member program."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from model.checkpoint_file import CheckpointFile, write_checkpoint
from model.forecaster import load_forecaster
from model.gencast.configs import SamplerConfig
from model.gencast.gencast import gencast_network
from model.network_forecaster import NetworkForecaster
from model.normalization import Statistics
from model.rollout.rng import base_key, member_key
from model.rollout.rollout import rollout
from tests.conftest import QUICK_COMPILATION
from tests.model.gencast.test_denoiser import TASK, config, random_parameters
from tests.model.tiny import GRID, INIT_TIME, initial_condition, statistics


@cache
def params_file() -> bytes:
    """Three noise levels, with churn, on the tiny grid."""
    settings = replace(config(), sampler_config=SamplerConfig(num_noise_levels=3))
    params = random_parameters(gencast_network(settings, TASK).parameter_shapes())
    description = f"tiny, resolution {GRID.resolution:g}"
    return write_checkpoint(
        CheckpointFile(params=params, task=TASK, config=settings, description=description, license="none")
    )


def loaded(**options: object) -> NetworkForecaster:
    given = statistics()
    of_rain = {
        name: getattr(given, name).assign(total_precipitation_12hr=1.0)
        for name in ("mean", "stddev", "diffs_stddev")
    }
    return load_forecaster(params_file(), Statistics(**of_rain), **options)  # type: ignore[arg-type]


def fields_of(forecaster: NetworkForecaster, members: list[int], steps: int = 2) -> dict:
    condition = initial_condition()
    times = condition["time"].values
    condition = condition.assign_coords(time=[times[1] - np.timedelta64(12, "h"), times[1]])
    base = base_key(0, INIT_TIME)
    states = [
        forecaster.initial_state(condition, init_time=INIT_TIME, member=m, key=member_key(base, m))
        for m in members
    ]
    return {
        (step.member, step.step): step.fields for step in rollout(forecaster, states, condition, steps=steps)
    }


@pytest.fixture(scope="module")
def forecaster() -> NetworkForecaster:
    return loaded()


def test_members_differ_and_are_the_same_in_any_company_and_order(forecaster: NetworkForecaster) -> None:
    together = fields_of(forecaster, [0, 1, 2])
    assert not together[0, 0].identical(together[1, 0])
    for place, fields in (fields_of(forecaster, [2, 0]) | fields_of(forecaster, [1])).items():
        xr.testing.assert_identical(fields, together[place])


def test_members_are_the_same_on_either_of_two_devices() -> None:
    program = """
import jax
from tests.model.test_stochastic_members import fields_of, loaded
first, second = (loaded(device=device) for device in jax.local_devices())
together = fields_of(first, [0, 1])
for place, fields in (fields_of(second, [0]) | fields_of(first, [1])).items():
    assert fields.identical(together[place]), place
"""
    environment = {"XLA_FLAGS": f"{QUICK_COMPILATION} --xla_force_host_platform_device_count=2", "PATH": ""}
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
