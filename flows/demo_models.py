"""Makes what the embedded default runs on, from nothing: nature runs, statistics, climatology, training, skill.

It takes hours. ``python -m flows.demo_models --rehearsal`` goes through every part with days of weather and a few
updates, and leaves the bundled files alone; its models know nothing.
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rich.console import Console

from flows.nature_run import RESOLUTION, complete_archive
from flows.skill import evaluate_demo
from infra import layout
from infra.demo import FIRST_ANALYSIS, LAST_ANALYSIS, bundled
from infra.nature_run.archive import AnalysisArchive
from infra.object_store import ObjectStore
from infra.terminal import command_console
from model.grid import Grid
from tasks.nature_run import NatureRunPlan
from tasks.training import prepare, updates
from tasks.training_data import write_training_store
from tasks.training_settings import TrainingSettings, read_training_settings

FAMILIES = ("graphcast", "gencast")
_REPORT_EVERY = 50


@dataclass(frozen=True, kw_only=True)
class DemoPlan:
    """What is made, and how much is spent on it.

    Args:
        training: the run whose statistics and climatology are bundled and on which the models are trained.
        held_out: the run on which they are scored; it has the bundled days.
        updates: of each stage at most; None: as the recipes say.
        recipes: folder of ``{family}.toml``.
        resolution: degrees of the models' grid.
        skill: arguments of ``flows.skill.evaluate_demo``.
    """

    training: NatureRunPlan
    held_out: NatureRunPlan
    updates: int | None = None
    recipes: Path = field(default_factory=lambda: bundled("training"))
    resolution: float = RESOLUTION
    skill: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.held_out.begin <= FIRST_ANALYSIS < LAST_ANALYSIS <= self.held_out.end:
            raise ValueError(
                f"held_out: expected {FIRST_ANALYSIS} to {LAST_ANALYSIS} in it, "
                f"got {self.held_out.begin} to {self.held_out.end}"
            )


def full() -> DemoPlan:
    """The bundled models' own: six months of spin-up, 2.8 years for training, 1.5 held out."""
    spin_up = timedelta(days=192)  # from 1 September to 12 March
    return DemoPlan(
        training=NatureRunPlan(
            seed=1, start=datetime(2000, 9, 1, tzinfo=UTC), spin_up=spin_up, length=timedelta(days=1022)
        ),
        held_out=NatureRunPlan(
            seed=2, start=datetime(2020, 9, 1, tzinfo=UTC), spin_up=spin_up, length=timedelta(days=548)
        ),
    )


def rehearsal() -> DemoPlan:
    """Every part once, in minutes."""
    return DemoPlan(
        training=NatureRunPlan(
            seed=1,
            start=datetime(2001, 3, 10, tzinfo=UTC),
            spin_up=timedelta(days=2),
            length=timedelta(days=16),
        ),
        held_out=NatureRunPlan(
            seed=2,
            start=FIRST_ANALYSIS - timedelta(days=2),
            spin_up=timedelta(days=2),
            length=LAST_ANALYSIS - FIRST_ANALYSIS,
        ),
        updates=2,
        skill={
            "days": 2,
            "starts": 2,
            "members": 2,
            "ensemble_starts": 2,
            "ensemble_days": 1,
            "stable_days": 3,
        },
    )


def demo_models(output: Path, bundle: Path, plan: DemoPlan) -> None:
    """Run the simulations, train both families, write what is bundled and print the models' skill.

    Every part goes on where it was interrupted.

    Args:
        output: working folder: archives, stores, training checkpoints.
        bundle: folder for analyses, statistics, climatology and params files; what is there is replaced when all
            of it is made.
        plan: how much of everything.
    """
    console = command_console()
    training_run = _archive(output / "training-run")
    training = _store(training_run, output / "training-run.zarr", plan.training, plan, console)
    held_out_run = _archive(output / "held-out-run")
    held_out = _store(held_out_run, output / "held-out-run.zarr", plan.held_out, plan, console)
    summary = Path(training_run.store.path(layout.archive_summary("", "")))
    params = {}
    for family in FAMILIES:
        settings = _settings(plan, family).model_copy(
            update={
                "archive": training,
                "statistics": summary / f"{family}_stats",
                "output": output / family,
            }
        )
        params[family] = _train(settings, family, console)
    for family, path in params.items():
        shutil.copytree(summary / f"{family}_stats", bundle / f"{family}_stats", dirs_exist_ok=True)
        shutil.copyfile(path, bundle / f"{family}.npz")
    shutil.copyfile(summary / "climatology.nc", bundle / "climatology.nc")
    _bundle_analyses(held_out_run, bundle / "analyses")
    console.print(f"bundled: {bundle}")
    evaluate_demo(archive=held_out, folder=bundle, resolution=plan.resolution, **plan.skill)


def _archive(folder: Path) -> AnalysisArchive:
    return AnalysisArchive(store=ObjectStore(root=str(folder.resolve())))


def _store(
    archive: AnalysisArchive, path: Path, run: NatureRunPlan, plan: DemoPlan, console: Console
) -> Path:
    """The Zarr store of a nature run, made with the run where it is not there."""
    if path.exists():
        return path
    grid = Grid(resolution=plan.resolution)

    def report(reached: datetime, share: float) -> None:
        console.print(f"{path.stem}: {reached:%Y-%m-%d}, {share:.0%}")

    complete_archive(archive, run, grid, report)
    unfinished = path.with_suffix(".partial.zarr")
    write_training_store(archive, unfinished, grid, start=run.begin, end=run.end, cache=path.parent)
    return unfinished.rename(path)


def _settings(plan: DemoPlan, family: str) -> TrainingSettings:
    """A family's recipe, its stages no longer than planned."""
    settings = read_training_settings(plan.recipes / f"{family}.toml")
    if plan.updates is None:
        return settings

    def shortened(stage: dict[str, Any]) -> dict[str, Any]:
        count = min(stage["updates"], plan.updates or stage["updates"])
        return {**stage, "updates": count, "warmup_updates": min(stage.get("warmup_updates", 0), count - 1)}

    return settings.model_copy(update={"stages": tuple(shortened(stage) for stage in settings.stages)})


def _train(settings: TrainingSettings, family: str, console: Console) -> Path:
    total = settings.curriculum().updates
    for report in updates(prepare(settings)):
        if report.update % _REPORT_EVERY == 0:
            console.print(
                f"{family}: update {report.update + 1} of {total}, loss {report.metrics['loss']:.4f}"
            )
    return settings.output / "params.npz"


def _bundle_analyses(archive: AnalysisArchive, folder: Path) -> None:
    """The bundled days' files and the statics, in place of those that are there."""
    keys = [layout.archived_statics("")]
    keys += [
        layout.archived_analysis("", time)
        for time in archive.times()
        if FIRST_ANALYSIS <= time <= LAST_ANALYSIS
    ]
    shutil.rmtree(folder, ignore_errors=True)
    copies = ObjectStore(root=str(folder.resolve()))
    for key in keys:
        copies.write(key, archive.store.read(key))


def main() -> None:
    """Parse the command line and make them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path, nargs="?", default=Path("demo-models"), help="working folder")
    parser.add_argument("--rehearsal", action="store_true", help="days and a few updates, for trying it out")
    parser.add_argument("--bundle", type=Path, help="folder to write to; default: the bundled files' own")
    arguments = parser.parse_args()
    own = arguments.output / "bundle" if arguments.rehearsal else bundled("training").parent
    plan = rehearsal() if arguments.rehearsal else full()
    demo_models(arguments.output, arguments.bundle or own, plan)


if __name__ == "__main__":
    main()
