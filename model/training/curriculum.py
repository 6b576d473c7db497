"""The stages of a training and which examples each update sees.

Everything is a pure function of the seed and the number of the update, so that a training that was killed sees
after its resumption exactly what it would have seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Updates of one kind.

    Args:
        updates: how many.
        rollout_steps: autoregressive steps of the loss, the gradient going through all of them.
        batch_size: examples of one gradient.
        accumulate: gradients averaged for one update.
        peak_learning_rate, final_learning_rate: of the half cosine.
        warmup_updates: linear ramp at the start.
        ensemble_members: 0 for the family's own loss; from 2 on, so many members of a model that draws samples are
            rolled out and their score is the loss (``model.training.ensemble_loss``).
    """

    updates: int
    rollout_steps: int = 1
    batch_size: int = 1
    accumulate: int = 1
    peak_learning_rate: float = 1e-3
    final_learning_rate: float = 0.0
    warmup_updates: int = 0
    ensemble_members: int = 0

    def __post_init__(self) -> None:
        for name in ("updates", "rollout_steps", "batch_size", "accumulate"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if self.ensemble_members < 0 or self.ensemble_members == 1:
            raise ValueError(f"ensemble_members: expected 0, or 2 or more, got {self.ensemble_members}")
        if not 0 <= self.warmup_updates < self.updates:
            raise ValueError(
                f"warmup_updates: expected 0 to below {self.updates} updates, got {self.warmup_updates}"
            )
        if not 0 <= self.final_learning_rate <= self.peak_learning_rate:
            raise ValueError(
                "final_learning_rate: expected between 0 and the peak "
                f"{self.peak_learning_rate}, got {self.final_learning_rate}"
            )

    @property
    def examples_per_update(self) -> int:
        """Examples one update sees."""
        return self.batch_size * self.accumulate


@dataclass(frozen=True, kw_only=True)
class Curriculum:
    """Stages one after the other, usually with longer and longer rollouts (GraphCast's went from 1 to 12).

    Args:
        stages: in order, at least one.
    """

    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        if not self.stages:
            raise ValueError("stages: expected at least one, got none")

    @property
    def updates(self) -> int:
        """Updates of all stages."""
        return sum(stage.updates for stage in self.stages)

    def stage_of(self, update: int) -> Stage:
        """The stage an update belongs to.

        Raises:
            ValueError: there is no such update.
        """
        first = 0
        for stage in self.stages:
            if first <= update < first + stage.updates:
                return stage
            first += stage.updates
        raise ValueError(f"update: expected 0 to {self.updates - 1}, got {update}")

    def examples_before(self, update: int) -> int:
        """How many examples all updates before this one saw."""
        count = 0
        for stage in self.stages:
            taken = min(max(update, 0), stage.updates)
            count += taken * stage.examples_per_update
            update -= taken
        return count


@dataclass(frozen=True, kw_only=True)
class ExampleOrder:
    """An order of examples without end: one random permutation of them all after the other.

    Args:
        seed: of the permutations.
        examples: how many there are.
    """

    seed: int
    examples: int

    def __post_init__(self) -> None:
        if self.examples < 1:
            raise ValueError(f"examples: expected at least 1, got {self.examples}")

    def numbers(self, first: int, count: int) -> np.ndarray:
        """The examples at places ``first`` to ``first + count − 1`` of the order, int64, shape (count,)."""
        places = np.arange(first, first + count)
        epochs = places // self.examples
        numbers = np.empty(count, dtype=np.int64)
        for epoch in np.unique(epochs):
            permutation = np.random.default_rng((self.seed, int(epoch))).permutation(self.examples)
            here = epochs == epoch
            numbers[here] = permutation[places[here] % self.examples]
        return numbers
