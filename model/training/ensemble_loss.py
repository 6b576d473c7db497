"""The fair CRPS of a small ensemble over a rollout: a second stage of training for models that draw samples.

The denoising loss teaches a model one step at a time, from the truth. Afterwards a few members can be drawn and
rolled out as in a forecast, and their continuous ranked probability score minimised as in AIFS-CRPS (Lang et al.
2024, arXiv:2412.15832). The score is least for members drawn from the true distribution (Gneiting and Raftery
2007), so mean and spread both learn what a rollout does to them. It costs as many evaluations of the network as
the sampler takes, so it is made for samplers of very few noise levels; with one the denoiser turns pure noise into
a member at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from model.step import Fields, ModelStep
from model.training.losses import Loss, LossWeights, mean_over_rollout, weighted_mean

FAIRNESS = 0.95
"""α of the almost fair score (Lang et al. 2024, eq. 4): with 1 one of two members could be anything for free."""


def almost_fair_crps(errors: jax.Array, *, fairness: float = FAIRNESS) -> jax.Array:
    """The score of an ensemble at each point.

    mean_i |e_i| − (1 − ε) / (2 m (m − 1)) Σ_ij |e_i − e_j| with ε = (1 − α) / m: fair for α = 1, the score of the
    empirical distribution for α = 0 (Lang et al. 2024, eq. 3–4).

    Args:
        errors: member minus truth, shape (member, …), at least two members.
        fairness: α, from 0 to 1.

    Returns:
        Shape (…).

    Raises:
        ValueError: fewer than two members.
    """
    members = errors.shape[0]
    if members < 2:
        raise ValueError(f"errors: expected at least 2 members, got {members}")
    distances = jnp.abs(errors[:, None] - errors[None]).sum(axis=(0, 1))
    share = 1 - (1 - fairness) / members
    return jnp.abs(errors).mean(axis=0) - share * distances / (2 * members * (members - 1))


def ensemble_rollout_loss(
    predict: Callable[[jax.Array, jax.Array], jax.Array],
    model_step: ModelStep,
    weights: LossWeights,
    keys: jax.Array,
    *,
    statics: Mapping[str, jax.Array],
    frames: Mapping[str, jax.Array],
    forcings: Mapping[str, jax.Array],
    targets: Mapping[str, jax.Array],
    rematerialize: bool = False,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The mean score over the steps of an ensemble that feeds on itself, for one example.

    Args:
        predict: key of a step and features (grid, channel) to normalised targets (grid, channel).
        keys: of the members, uint32 (member, 2); each step consumes ``key, this = split(key)``.
        statics: (latitude, longitude).
        frames: input window of all members, (2, [level,] latitude, longitude).
        forcings: from the first input frame to the last target, (2 + step, latitude, longitude).
        targets: the truth at each step, (step, [level,] latitude, longitude).
        rematerialize: compute a step's activations again in the backward pass instead of keeping them.

    Returns:
        The loss, and the unweighted loss of each variable, in standard deviations of a step's change; float32
        scalars.
    """

    def one_step(
        carried: tuple[Fields, jax.Array], around: Fields, truth: Fields
    ) -> tuple[tuple[Fields, jax.Array], Loss]:
        def of_member(window: Fields, key: jax.Array) -> tuple[Fields, jax.Array, jax.Array]:
            key, this = jax.random.split(key)
            predicted = predict(this, model_step.features(statics, window, around)).astype(jnp.float32)
            # Both are changes from this member's own last frame, so their difference is the error of the field.
            error = predicted - model_step.normalized_targets(truth, window)
            return model_step.next_frames(window, model_step.fields(predicted, window)), key, error

        windows, member_keys, errors = jax.vmap(of_member)(*carried)
        return (windows, member_keys), weighted_mean(almost_fair_crps(errors), weights)

    everyone = jax.tree.map(
        lambda field: jnp.broadcast_to(field, (keys.shape[0], *field.shape)), dict(frames)
    )
    return mean_over_rollout(
        one_step, (everyone, keys), forcings=forcings, targets=targets, rematerialize=rematerialize
    )
