"""The almost fair CRPS of small ensembles, and of a rollout that feeds on itself."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.grid import Grid
from model.normalization import ChannelScaling
from model.step import ModelStep
from model.task import TaskConfig
from model.training.ensemble_loss import almost_fair_crps, ensemble_rollout_loss
from model.training.losses import loss_weights

GRID = Grid(resolution=45.0)
TASK = TaskConfig(
    input_variables=("2m_temperature", "year_progress_sin"),
    target_variables=("2m_temperature",),
    forcing_variables=("year_progress_sin",),
    pressure_levels=(500,),
    input_duration="12h",
)
CHANNELS, LAST = 5, 1
"""Input channels: two frames of temperature, of which the second is the last, three times of the forcing."""
PER_STEP = 2.0
"""Standard deviation of a step's change in the scaling below, K."""


def test_two_members_by_hand() -> None:
    # Members 1 and −3 around a truth of 0: mean |e| = 2; |e_1 − e_2| = 4, of which a half counts, (1 + α)/2 of it
    # fair: ε = 0.05 / 2, so 2 − 0.975 · 2 · 4 / (2 · 2 · 1) = 0.05.
    score = almost_fair_crps(jnp.array([1.0, -3.0]))
    assert float(score) == pytest.approx(0.05, abs=1e-6)


def test_fairness_zero_is_the_score_of_the_empirical_distribution() -> None:
    # By the integral of (F − H)²: members −1 and 1, truth 0: two intervals of length 1 where F differs by ½.
    assert float(almost_fair_crps(jnp.array([-1.0, 1.0]), fairness=0.0)) == pytest.approx(0.5, abs=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 6), st.integers(0, 10_000))
def test_fairness_one_agrees_with_the_unbiased_estimator(members: int, seed: int) -> None:
    errors = np.random.default_rng(seed).normal(size=(members, 5))
    pairs = [np.abs(errors[i] - errors[j]) for i in range(members) for j in range(members) if i != j]
    expected = np.abs(errors).mean(axis=0) - np.mean(pairs, axis=0) / 2
    np.testing.assert_allclose(almost_fair_crps(jnp.asarray(errors), fairness=1.0), expected, atol=1e-5)


def test_one_member_is_refused() -> None:
    with pytest.raises(ValueError, match="expected at least 2 members, got 1"):
        almost_fair_crps(jnp.zeros((1, 3)))


@pytest.fixture
def model_step() -> ModelStep:
    ones = np.ones(1, np.float32)
    return ModelStep(
        task=TASK,
        grid=GRID,
        scaling=ChannelScaling(
            input_mean=np.zeros(CHANNELS, np.float32),
            input_stddev=np.ones(CHANNELS, np.float32),
            target_mean=0 * ones,
            target_stddev=PER_STEP * ones,
            target_is_change=np.ones(1, bool),
            fill_values={},
        ),
    )


def _loss(model_step: ModelStep, predict, truth: list[float], members: int = 2) -> float:
    field = jnp.zeros((2, *GRID.shape))
    targets = jnp.stack([jnp.full(GRID.shape, value) for value in truth])
    loss, by_variable = ensemble_rollout_loss(
        predict,
        model_step,
        loss_weights(TASK, GRID),
        jax.random.split(jax.random.PRNGKey(0), members),
        statics={},
        frames={"2m_temperature": field},
        forcings={"year_progress_sin": jnp.zeros((2 + len(truth), *GRID.shape))},
        targets={"2m_temperature": targets},
    )
    assert float(loss) == pytest.approx(float(by_variable["2m_temperature"]))
    return float(loss)


def test_members_that_agree_score_the_absolute_error_of_the_field(model_step: ModelStep) -> None:
    # Every step adds 1 standard deviation (2 K) where the truth stays at 0: errors of 1 and 2 standard deviations.
    loss = _loss(model_step, lambda key, features: jnp.ones((features.shape[0], 1)), [0.0, 0.0])
    assert loss == pytest.approx(1.5, rel=1e-6)


def test_each_member_goes_on_from_its_own_fields(model_step: ModelStep) -> None:
    # A random first step, undone by the second: then all members are at the truth again.
    def there_and_back(key: jax.Array, features: jax.Array) -> jax.Array:
        displaced = features[:, LAST : LAST + 1] != 0
        return jnp.where(displaced, -features[:, LAST : LAST + 1] / PER_STEP, jax.random.normal(key, (1, 1)))

    one = _loss(model_step, there_and_back, [0.0])
    two = _loss(model_step, there_and_back, [0.0, 0.0])
    assert two == pytest.approx(one / 2, rel=1e-5)
    assert one > 0


def test_the_gradient_pulls_a_narrow_ensemble_apart(model_step: ModelStep) -> None:
    def loss(spread: jax.Array) -> jax.Array:
        def predict(key: jax.Array, features: jax.Array) -> jax.Array:
            return spread * jax.random.normal(key, (features.shape[0], 1))

        return ensemble_rollout_loss(
            predict,
            model_step,
            loss_weights(TASK, GRID),
            jax.random.split(jax.random.PRNGKey(1), 2),
            statics={},
            frames={"2m_temperature": jnp.zeros((2, *GRID.shape))},
            forcings={"year_progress_sin": jnp.zeros((3, *GRID.shape))},
            # The truth is scattered as widely as a member with spread 1 would be.
            targets={"2m_temperature": PER_STEP * jax.random.normal(jax.random.PRNGKey(2), (1, *GRID.shape))},
        )[0]

    assert float(jax.grad(loss)(jnp.float32(0.2))) < 0
    assert float(jax.grad(loss)(jnp.float32(3.0))) > 0
