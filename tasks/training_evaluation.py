"""Held-out skill in the course of a training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from infra.errors import FoldcastError
from model.graphs.graph_network import Parameters
from model.training.evaluation import Forecast, evaluate, make_forecast
from model.training.examples import AnalysisSeries
from model.training.family_losses import FamilyLoss
from tasks.training_settings import EvaluationSettings, TrainingSettings


@dataclass
class HeldOutSkill:
    """Skill in the course of a training, on analyses it does not see, and when to stop.

    Args:
        settings: of the evaluations.
        series: the held-out analyses.
        climatology: harmonic, or None.
        forecast: the compiled forecast.
        seed: of members' keys.
        best: least mean RMSE of the deciding field so far.
        without_gain: evaluations since then.
    """

    settings: EvaluationSettings
    series: AnalysisSeries
    climatology: xr.Dataset | None
    forecast: Forecast
    seed: int
    best: float = np.inf
    without_gain: int = 0

    @classmethod
    def of(
        cls, settings: TrainingSettings, series: AnalysisSeries, held_out: AnalysisSeries, loss: FamilyLoss
    ) -> HeldOutSkill:
        """The evaluations that the settings ask for.

        Args:
            series: what is trained on.
            held_out: what the evaluation's settings name.

        Raises:
            FoldcastError: the two overlap, or there is too little to evaluate on.
        """
        evaluation = settings.evaluation
        if evaluation is None:
            raise ValueError("settings: expected an evaluation, got none")
        archive = evaluation.archive or settings.archive
        shared = np.intersect1d(series.times, held_out.times)
        if archive.resolve() == settings.archive.resolve() and shared.size:
            raise FoldcastError(
                f"evaluation: expected analyses that training does not see, got {shared.size} that it does, from "
                f"{shared[0]} to {shared[-1]} of {archive}; set end before the evaluation's start"
            )
        if held_out.count(evaluation.steps) < 1:
            raise FoldcastError(
                f"evaluation: expected a period longer than {evaluation.steps} model steps, "
                f"got {held_out.times.size} analyses"
            )
        climatology = None
        if evaluation.climatology is not None:
            with xr.open_dataset(evaluation.climatology) as opened:
                climatology = opened.load()
        return cls(
            settings=evaluation,
            series=held_out,
            climatology=climatology,
            forecast=make_forecast(loss, evaluation.variables, steps=evaluation.steps),
            seed=settings.seed,
        )

    def notes(self) -> dict[str, Any]:
        """What a resumed training must know."""
        return {
            "best": self.best if np.isfinite(self.best) else None,
            "without_gain": self.without_gain,
            "evaluation": self.settings.model_dump(mode="json"),
        }

    def resume(self, notes: Mapping[str, Any]) -> None:
        """Go on from the notes of a checkpoint; those of another evaluation say nothing about this one."""
        same = notes.get("evaluation") == self.settings.model_dump(mode="json")
        if same and notes.get("best") is not None:
            self.best, self.without_gain = notes["best"], notes["without_gain"]

    def due(self, update: int) -> bool:
        """Whether an evaluation follows this update."""
        return (update + 1) % self.settings.every == 0

    def scores(self, params: Parameters, update: int) -> xr.Dataset:
        """Scores of the forecasts with these parameters."""
        count = self.series.count(self.settings.steps)
        starts = np.unique(np.linspace(0, count - 1, self.settings.starts).astype(int))
        return evaluate(
            self.forecast,
            params,
            self.series,
            starts.tolist(),
            self.settings.variables,
            steps=self.settings.steps,
            members=self.settings.members,
            seed=self.seed,
            climatology=self.climatology,
        )

    def is_best(self, skill: xr.Dataset) -> bool:
        """Whether the mean RMSE over lead times of the deciding field fell; counts those that did not.

        Raises:
            FoldcastError: it is not finite.
        """
        rmse = float(skill["rmse"].sel(field=self.settings.field).mean())
        if not np.isfinite(rmse):
            raise FoldcastError(f"evaluation: expected a finite RMSE of {self.settings.field}, got {rmse}")
        self.without_gain = 0 if rmse < self.best else self.without_gain + 1
        better = rmse < self.best
        self.best = min(self.best, rmse)
        return better

    @property
    def exhausted(self) -> bool:
        """Whether there was no gain for as many evaluations as patience has."""
        return 0 < self.settings.patience <= self.without_gain
