"""A progress bar for models that run in this process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tasks.rollout import ProgressCallback, RolloutProgress


@contextmanager
def shown_progress(console: Console, name: str, *, members: int, steps: int) -> Iterator[ProgressCallback]:
    """A bar that counts a model's steps over all members; steps found done count as soon as a member moves.

    Args:
        console: where it is drawn.
        name: of the model.
        members: ensemble size.
        steps: model steps of each member.
    """
    columns = (
        TextColumn("{task.description:<14}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("steps"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[stage]}"),
    )
    reached: dict[int, int] = {}
    lock = threading.Lock()
    with Progress(*columns, console=console) as bars:
        bar = bars.add_task(name, total=members * steps, stage="preparing inputs")

        def progress(latest: RolloutProgress) -> None:
            with lock:
                reached[latest.member] = latest.step
                done = sum(reached.values())
            stage = "making products" if done == members * steps else f"member {latest.member}"
            bars.update(bar, completed=done, stage=stage)

        yield progress
        bars.update(bar, completed=members * steps, stage="published")
