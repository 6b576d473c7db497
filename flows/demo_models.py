"""Makes the bundled models again from nothing: nature runs, training, skill. It takes hours."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rich.console import Console

from flows.nature_run import RESOLUTION, complete_archive, plan_of
from flows.skill import evaluate_demo
from infra.demo import bundled
from infra.nature_run.archive import AnalysisArchive
from infra.object_store import ObjectStore
from model.grid import Grid
from tasks.training import prepare, updates
from tasks.training_data import write_training_store
from tasks.training_settings import read_training_settings

TRAINING_RUN = {"seed": 1, "start": datetime(2000, 9, 1, tzinfo=UTC), "years": 2.8}
HELD_OUT_RUN = {"seed": 2, "start": datetime(2020, 9, 1, tzinfo=UTC), "years": 1.5}
SPIN_UP = timedelta(days=192)
"""From 1 September to 12 March."""


def demo_models(output: Path = Path("demo-models")) -> None:
    """Run the simulations, train both families, put their params files beside the bundled ones and score them.

    Every part goes on where it was interrupted.

    Args:
        output: working folder: archives, stores, training checkpoints.
    """
    console = Console()
    training = _store(output / "training-run", TRAINING_RUN, console)
    held_out = _store(output / "held-out-run", HELD_OUT_RUN, console)
    for family in ("graphcast", "gencast"):
        settings = read_training_settings(bundled("training") / f"{family}.toml")
        settings = settings.model_copy(update={"archive": training, "output": output / family})
        total = settings.curriculum().updates
        for report in updates(prepare(settings)):
            if report.update % 50 == 0:
                console.print(
                    f"{family}: update {report.update + 1} of {total}, loss {report.metrics['loss']:.4f}"
                )
        finished = settings.output / "params.npz"
        (bundled("training").parent / f"{family}.npz").write_bytes(finished.read_bytes())
    evaluate_demo(archive=held_out)


def _store(folder: Path, run: dict[str, object], console: Console) -> Path:
    """The Zarr store of a nature run, made where it is not there."""
    store = folder.with_suffix(".zarr")
    if store.exists():
        return store
    archive = AnalysisArchive(store=ObjectStore(root=str(folder)))
    plan = plan_of(spin_up_days=SPIN_UP.days, **run)  # type: ignore[arg-type]
    grid = Grid(resolution=RESOLUTION)

    def report(reached: datetime, share: float) -> None:
        console.print(f"{folder.name}: {reached:%Y-%m-%d}, {share:.0%}")

    complete_archive(archive, plan, grid, report)
    unfinished = folder.with_suffix(".partial.zarr")
    write_training_store(archive, unfinished, grid, start=plan.begin, end=plan.end, cache=folder.parent)
    return unfinished.rename(store)


if __name__ == "__main__":
    demo_models(*(Path(argument) for argument in sys.argv[1:2]))
