"""The whole main job on the embedded default: bundled analyses and models, no network, server or accelerator."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prefect import flow
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from flows.forecast import run_cycle
from infra.demo import INIT_TIME
from infra.demo.configuration import DETERMINISTIC, ENSEMBLE, deliver_analyses, demo_settings
from infra.settings import Settings
from model.cycle import Cycle
from tasks.models import model_shape
from tasks.rollout import ProgressCallback, RolloutProgress
from tasks.verification import SkillRow, skill_rows, verify_cycle

_SHOWN_DAYS = (1, 2, 3, 5, 7, 10)
_SHOWN_FIELDS = ("z500", "t850", "2m_temperature", "mean_sea_level_pressure", "u850")


def demo(*, output: Path) -> None:
    """Run both bundled models over one cycle, publish, verify, and say where to look.

    Args:
        output: folder for everything that is written; what is done there is not done again.

    Raises:
        FoldcastError: the folder cannot be written, or a stage failed.
    """
    console = Console()
    output = output.resolve()
    deliver_analyses(output)
    settings = demo_settings(output)
    run_demo(settings, console)
    _print_skill(settings, console)
    console.print("\nOpen these pages:")
    for name in (DETERMINISTIC, ENSEMBLE):
        console.print(f"  {page_of(Cycle(model=name, init_time=INIT_TIME), settings)}", soft_wrap=True)


@flow(name="demo")
def run_demo(settings: Settings, console: Console) -> None:
    """Both models, one after the other: forecast, publish, verify."""
    for name in (DETERMINISTIC, ENSEMBLE):
        cycle = Cycle(model=name, init_time=INIT_TIME)
        with _shown_progress(console, name, settings) as progress:
            run_cycle(cycle, settings, progress=progress)
        verify_cycle(cycle, settings)


@contextmanager
def _shown_progress(console: Console, name: str, settings: Settings) -> Iterator[ProgressCallback]:
    """A bar that counts the model's steps over all members."""
    model = settings.configured_model(name)
    columns = (
        TextColumn("{task.description:<14}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("steps"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[stage]}"),
    )
    with Progress(*columns, console=console) as shown:
        bar = shown.add_task(name, total=model.members * model.steps, stage="preparing")
        reached: dict[int, int] = {}
        lock = threading.Lock()

        def progress(latest: RolloutProgress) -> None:
            with lock:
                reached[latest.member] = latest.step
                shown.update(bar, completed=sum(reached.values()), stage=f"member {latest.member} computed")

        yield progress
        shown.update(bar, completed=model.members * model.steps, stage="published")
