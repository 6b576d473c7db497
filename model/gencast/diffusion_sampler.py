"""Draws a sample by removing noise step by step: DPM-Solver++ 2S with stochastic churn.

The second-order single-step solver of Lu et al. 2022 (arXiv:2211.01095, algorithm 1) at r = ½, in the
parametrisation σ(t) = t of Karras et al. 2022 (arXiv:2206.00364), whose churn (algorithm 2) adds noise on the
way. From level σ to σ' with the mid level √(σσ'):

    x_mid = (√(σσ')/σ) x + (1 − √(σσ')/σ) D(x; σ)
    x'    = (σ'/σ) x + (1 − σ'/σ) D(x_mid; √(σσ'))

and from the last level x' = D(x; σ). So n levels take 2n − 1 evaluations of D. All of them are one loop whose
body contains D once, so that it is compiled once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from model.gencast.configs import SamplerConfig

Quantile = TypeVar("Quantile", np.ndarray, jax.Array)


def rho_quantile(*, minimum: float, maximum: float, rho: float, quantile: Quantile) -> Quantile:
    """Quantiles of the distribution of noise levels (Karras et al. 2022, eq. 5, ascending)."""
    low, high = minimum ** (1 / rho), maximum ** (1 / rho)
    return (low + quantile * (high - low)) ** rho


def noise_levels(config: SamplerConfig) -> np.ndarray:
    """The levels in descending order, float64, shape (levels,)."""
    return rho_quantile(
        minimum=config.min_noise_level,
        maximum=config.max_noise_level,
        rho=config.rho,
        quantile=np.linspace(1, 0, config.num_noise_levels),
    )


def churn_rates(config: SamplerConfig) -> np.ndarray:
    """By what share of itself each level is raised before its step, (levels,) (Karras et al., alg. 2)."""
    levels = noise_levels(config)
    rate = min(config.stochastic_churn_rate / config.num_noise_levels, np.sqrt(2) - 1)
    churned = (config.churn_min_noise_level <= levels) & (levels <= config.churn_max_noise_level)
    return np.where(churned, rate, 0.0)


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """What each evaluation of the denoiser does, float32 or bool, shape (evaluation,).

    Args:
        noise_level: that the denoiser is told.
        keep: share of the step's starting point in the result; the rest is the denoiser's.
        starts: whether a step starts here: churn, and remember the starting point.
        churn: standard deviation of the noise added before.
        step: number of the step.
    """

    noise_level: np.ndarray
    keep: np.ndarray
    starts: np.ndarray
    churn: np.ndarray
    step: np.ndarray


def schedule(config: SamplerConfig) -> Schedule:
    """The evaluations that make a sample. Levels and ratios are in float32, as the published model's were."""
    levels = noise_levels(config).astype(np.float32)
    rates = churn_rates(config).astype(np.float32)
    raised = levels * (1 + rates)
    churn = np.sqrt(np.maximum(raised**2 - levels**2, 0)) * np.float32(config.noise_level_inflation_factor)
    following = np.append(levels[1:], np.float32(0))
    middle = np.sqrt(raised * following)
    count = len(levels)
    both = {
        "noise_level": np.stack([raised, middle], axis=1),
        "keep": np.stack([middle / raised, following / raised], axis=1),
        "starts": np.stack([np.ones(count, bool), np.zeros(count, bool)], axis=1),
        "churn": np.stack([churn, np.zeros(count, np.float32)], axis=1),
        "step": np.stack([np.arange(count), np.arange(count)], axis=1),
    }
    # The last step ends at level 0, which its first evaluation reaches: x' = D(x; σ), keep = √(σ·0)/σ = 0.
    return Schedule(**{name: table.reshape(-1)[:-1] for name, table in both.items()})


def sample(
    key: jax.Array,
    config: SamplerConfig,
    *,
    denoise: Callable[[jax.Array, jax.Array], jax.Array],
    noise: Callable[[jax.Array], jax.Array],
    draws: int,
) -> jax.Array:
    """One sample.

    Args:
        key: raw threefry key, uint32 (2,).
        denoise: (x, σ) → D(x; σ).
        noise: (``draws`` keys, uint32 (draws, 2)) → unit noise of the shape of x, float32.
        draws: keys that one field of noise consumes, one per variable.

    Random numbers are consumed as DeepMind's recipe does: at every step first the keys of initial noise, used
    at the first step alone, then those of churn, each by ``key, this = split(key)``.
    """
    plan = schedule(config)
    has_churn = config.stochastic_churn_rate > 0
    keys = successive_keys(key, config.num_noise_levels * draws * (1 + has_churn))
    keys = keys.reshape(config.num_noise_levels, 1 + has_churn, draws, 2)
    initial = noise(keys[0, 0]) * np.float32(noise_levels(config)[0])

    def evaluation(carry: tuple[jax.Array, jax.Array], now: dict) -> tuple[tuple[jax.Array, jax.Array], None]:
        x, start = carry
        if has_churn:
            x = jax.lax.cond(
                now["churn"] > 0, lambda x: x + noise(keys[now["step"], 1]) * now["churn"], lambda x: x, x
            )
        start = jnp.where(now["starts"], x, start)
        denoised = denoise(x, now["noise_level"])
        return (now["keep"] * start + (1 - now["keep"]) * denoised, start), None

    tables = {name: jnp.asarray(table) for name, table in vars(plan).items()}
    (result, _), _ = jax.lax.scan(evaluation, (initial, initial), tables)
    return result


def successive_keys(key: jax.Array, count: int) -> jax.Array:
    """The keys of ``count`` successive ``key, this = split(key)``, uint32 (count, 2)."""

    def draw(carried: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        carried, this = jax.random.split(carried)
        return carried, this

    return jax.lax.scan(draw, key, None, length=count)[1]
