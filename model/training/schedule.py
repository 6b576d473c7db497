"""Learning rates over the stages of a curriculum: a warm-up and half a cosine in each."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from model.training.curriculum import Curriculum


def learning_rate(curriculum: Curriculum, update: jax.Array | int) -> jax.Array:
    """The learning rate of an update, a float32 scalar; jittable in ``update``.

    Within a stage of n updates, of which the first w warm up, update k (from 0) has

    - peak · (k + 1) / w for k < w,
    - final + (peak − final) · ½ (1 + cos π (k − w) / (n − w)) after,

    as in the training of GraphCast (Lam et al. 2023, supplement 4.5). Past the last stage it stays at that
    stage's final rate.
    """
    update = jnp.asarray(update, jnp.float32)
    rate = jnp.float32(curriculum.stages[-1].final_learning_rate)
    start = curriculum.updates
    for stage in reversed(curriculum.stages):
        end, start = start, start - stage.updates
        k = update - start
        warm = stage.peak_learning_rate * (k + 1) / max(stage.warmup_updates, 1)
        share = (k - stage.warmup_updates) / (stage.updates - stage.warmup_updates)
        cosine = 0.5 * (1 + jnp.cos(jnp.pi * jnp.clip(share, 0.0, 1.0)))
        decayed = stage.final_learning_rate + (stage.peak_learning_rate - stage.final_learning_rate) * cosine
        rate = jnp.where(update < end, jnp.where(k < stage.warmup_updates, warm, decayed), rate)
    return rate.astype(jnp.float32)
