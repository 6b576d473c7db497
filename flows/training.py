"""Trains or fine-tunes a model as a configuration file says; killed, it goes on where its last checkpoint is."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast
from uuid import UUID

import numpy as np
import xarray as xr
from prefect import flow
from prefect.artifacts import create_progress_artifact, create_table_artifact, update_progress_artifact
from prefect.runtime import flow_run

from infra.terminal import command_console
from infra.whole_files import write_whole
from tasks.training import Preparation, UpdateReport, prepare, updates
from tasks.training_settings import read_training_settings

_CURVE_POINTS = 200
_SPARKS = "▁▂▃▄▅▆▇█"
_SPARK_POINTS = 60
_REPORT_EVERY = 50


@flow(name="training", flow_run_name="training-{config}")
def training(config: str) -> str:
    """Train as a TOML file says; loss and skill appear as artifacts.

    Args:
        config: path of the file.

    Returns:
        Path of the params file, in the published format.
    """
    preparation = prepare(read_training_settings(Path(config)))
    curves = _Curves(preparation)
    for report in updates(preparation):
        curves.add(report)
    curves.publish()
    return str(preparation.settings.output / "params.npz")


def train(config: Path) -> Iterator[UpdateReport]:
    """The same without Prefect, update by update."""
    return updates(prepare(read_training_settings(config)))


def train_command(config: Path) -> None:
    """Train here, printing the loss now and then and every evaluation."""
    console = command_console()
    settings = read_training_settings(config)
    total = settings.curriculum().updates
    for report in train(config):
        if report.update % _REPORT_EVERY == 0:
            console.print(
                f"update {report.update + 1} of {total}: loss {report.metrics['loss']:.4f}, "
                f"learning rate {report.metrics['learning_rate']:.2e}"
            )
        if report.skill is not None:
            for row in skill_rows(report.skill):
                console.print("  " + ", ".join(f"{name} {value}" for name, value in row.items()))
        if report.stopped:
            console.print(f"stopped at update {report.update + 1}: skill no longer grows")
    console.print(f"params file: {settings.output / 'params.npz'}")


def skill_rows(skill: xr.Dataset) -> list[dict[str, str]]:
    """Scores as rows of a table, one for each field and lead time."""
    rows = []
    for field in skill["field"].values:
        for lead in skill["lead_time"].values:
            here = skill.sel(field=field, lead_time=lead, region="global")
            hours = int(lead.astype("timedelta64[h]").astype(int))
            row = {"field": str(field), "lead time": f"{hours} h"}
            for name in ("rmse", "persistence_rmse", "climatology_rmse", "acc", "crps", "spread_skill_ratio"):
                if name in here:
                    row[name] = f"{float(here[name]):.4g}"
            rows.append(row)
    return rows


def sparkline(values: Sequence[float]) -> str:
    """A curve in one line of text, from its least to its greatest value."""
    if not values:
        return ""
    every = -(-len(values) // _SPARK_POINTS)
    shown = values[::every]
    low, span = min(shown), max(shown) - min(shown)
    steps = len(_SPARKS) - 1
    return "".join(_SPARKS[round(steps * (value - low) / span) if span else 0] for value in shown)


class _Curves:
    """Loss and skill of a training, shown in Prefect's interface.

    They are kept beside the checkpoints, so that a training that was killed shows its whole curve in the end.
    """

    def __init__(self, preparation: Preparation) -> None:
        self._total = preparation.settings.curriculum().updates
        self._file = preparation.settings.output / "curves.json"
        kept = json.loads(self._file.read_text()) if self._file.is_file() else {}
        self._points: list[dict[str, str]] = kept.get("loss", [])
        self._skill: list[dict[str, str]] = kept.get("skill", [])
        self._begun = False
        evaluation = preparation.settings.evaluation
        self._field = evaluation.field if evaluation else ""
        self._every = max(self._total // _CURVE_POINTS, 1)
        self._progress = (
            cast("UUID", create_progress_artifact(0.0, description="updates")) if flow_run.id else None
        )

    def add(self, report: UpdateReport) -> None:
        """Take up an update; publish what changed."""
        if not self._begun:
            # What was made after the checkpoint from which the training goes on is made again.
            self._points, self._skill = (
                [row for row in rows if int(row["update"]) <= report.update]
                for rows in (self._points, self._skill)
            )
            self._begun = True
        if report.update % self._every == 0:
            row = {"update": str(report.update + 1)}
            self._points.append(row | {name: f"{value:.5g}" for name, value in report.metrics.items()})
            if self._progress is not None:
                update_progress_artifact(self._progress, 100.0 * (report.update + 1) / self._total)
            self._keep()
        if report.skill is not None:
            self._skill += [{"update": str(report.update + 1)} | row for row in skill_rows(report.skill)]
            self._keep()
            self.publish()

    def _keep(self) -> None:
        write_whole(self._file, json.dumps({"loss": self._points, "skill": self._skill}).encode())

    def publish(self) -> None:
        """The tables as they are."""
        if not flow_run.id:
            return
        losses = [float(point["loss"]) for point in self._points]
        create_table_artifact(
            key="training-loss", table=self._points, description=f"Loss by update {sparkline(losses)}"
        )
        if self._skill:
            rmse = [float(row["rmse"]) for row in self._skill if row["field"] == self._field]
            means = np.array(rmse).reshape(len({row["update"] for row in self._skill}), -1).mean(axis=1)
            create_table_artifact(
                key="training-skill",
                table=self._skill,
                description=f"Held-out skill; mean RMSE of {self._field} {sparkline(means.tolist())}",
            )
