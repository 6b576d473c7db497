"""The sampler on a Gaussian, whose probability flow is known exactly, and its random numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.gencast.configs import SamplerConfig
from model.gencast.diffusion_sampler import churn_rates, noise_levels, sample, schedule, successive_keys

SPREAD = 0.5


def gaussian_denoiser(x: jax.Array, noise_level: jax.Array) -> jax.Array:
    """E[x₀ | x] for x₀ ~ N(0, SPREAD²) and x = x₀ + σ n."""
    return x * SPREAD**2 / (SPREAD**2 + noise_level**2)


def drawn(config: SamplerConfig, count: int = 1, seed: int = 0) -> jax.Array:
    @jax.jit
    def draw(key: jax.Array) -> jax.Array:
        noise = lambda keys: jax.random.normal(keys[0], (count,))  # noqa: E731
        return sample(key, config, denoise=gaussian_denoiser, noise=noise, draws=1)

    return draw(jax.random.PRNGKey(seed))


def test_levels_descend_from_the_highest_to_the_lowest() -> None:
    levels = noise_levels(SamplerConfig(num_noise_levels=3, max_noise_level=64, min_noise_level=1, rho=2))
    # Karras et al. 2022, eq. 5 with ρ = 2: square roots 8, 4.5, 1.
    np.testing.assert_allclose(levels, [64, 20.25, 1])


def test_churn_is_clamped_and_confined() -> None:
    config = SamplerConfig(num_noise_levels=3, max_noise_level=64, min_noise_level=1, rho=2)
    confined = SamplerConfig(**{**vars(config), "churn_min_noise_level": 2.0, "churn_max_noise_level": 30.0})
    np.testing.assert_allclose(churn_rates(confined), [0, np.sqrt(2) - 1, 0])
    gentle = SamplerConfig(**{**vars(config), "stochastic_churn_rate": 0.3})
    np.testing.assert_allclose(churn_rates(gentle), [0.1, 0.1, 0.1])


def test_schedule_of_two_levels_by_hand() -> None:
    config = SamplerConfig(
        num_noise_levels=2, max_noise_level=4, min_noise_level=1, rho=1, stochastic_churn_rate=0
    )
    plan = schedule(config)
    # From 4 over √(4·1) = 2 to 1, and from 1 to 0 in one evaluation.
    np.testing.assert_allclose(plan.noise_level, [4, 2, 1])
    np.testing.assert_allclose(plan.keep, [2 / 4, 1 / 4, 0])
    np.testing.assert_array_equal(plan.starts, [True, False, True])
    np.testing.assert_array_equal(plan.churn, [0, 0, 0])


@pytest.mark.parametrize("levels", [1, 4, 20])
def test_a_sample_takes_two_evaluations_a_level_less_one(levels: int) -> None:
    plan = schedule(SamplerConfig(num_noise_levels=levels))
    assert {len(table) for table in vars(plan).values()} == {2 * levels - 1}


def test_without_churn_the_flow_of_a_gaussian_is_followed_to_second_order() -> None:
    def error(levels: int) -> float:
        config = SamplerConfig(
            num_noise_levels=levels, max_noise_level=10, min_noise_level=0.1, rho=3, stochastic_churn_rate=0
        )
        key = successive_keys(jax.random.PRNGKey(0), 1)[0]
        start = 10 * jax.random.normal(key, (1,))
        # dx/dσ = (x − D)/σ has the solution x ∝ √(SPREAD² + σ²); the last step returns D at the lowest level.
        lowest = start * np.sqrt((SPREAD**2 + 0.1**2) / (SPREAD**2 + 10**2))
        expected = lowest * SPREAD**2 / (SPREAD**2 + 0.1**2)
        return float(abs(drawn(config) / expected - 1)[0])

    errors = [error(levels) for levels in (20, 40, 80)]
    assert errors[0] < 0.03
    # A second-order method: twice the levels, a quarter of the error.
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.25)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.25)


def test_samples_with_churn_have_the_spread_of_the_data() -> None:
    config = SamplerConfig(num_noise_levels=40, noise_level_inflation_factor=1.0, churn_min_noise_level=0.05)
    values = drawn(config, count=20000)
    # The standard error of the spread is SPREAD / √(2·20000) = 0.0025; discretisation adds about as much.
    assert float(values.std()) == pytest.approx(SPREAD, abs=0.012)


def test_random_numbers_follow_the_published_recipe() -> None:
    # One level: initial noise from the first key of the step, churn from the second.
    config = SamplerConfig(num_noise_levels=1, max_noise_level=5, min_noise_level=5, stochastic_churn_rate=1)
    key, initial = jax.random.split(jax.random.PRNGKey(9))
    key, churn = jax.random.split(key)
    rate = np.sqrt(2) - 1
    extra = 1.05 * np.sqrt((5 * (1 + rate)) ** 2 - 25)
    noisy = 5 * jax.random.normal(initial, (3,)) + extra * jax.random.normal(churn, (3,))
    np.testing.assert_allclose(
        drawn(config, count=3, seed=9), gaussian_denoiser(noisy, jnp.float32(5 * np.sqrt(2))), rtol=1e-6
    )


def test_successive_keys_are_splits_in_turn() -> None:
    carried = jax.random.PRNGKey(3)
    for key in successive_keys(carried, 4):
        carried, expected = jax.random.split(carried)
        np.testing.assert_array_equal(key, expected)
