"""A progress bar for models that run in this process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from infra.wording import counted
from model.cycle import Cycle
from tasks.rollout import ProgressCallback, RolloutProgress


@contextmanager
def shown_progress(
    console: Console, cycle: Cycle, *, members: int, steps: int, published_before: bool = False
) -> Iterator[ProgressCallback]:
    """A bar that counts a cycle's steps over all members; those found done count as soon as a member moves.

    Where steps were found done, a line says from where the cycle goes on.

    Args:
        console: where it is drawn.
        cycle: the cycle.
        members: ensemble size.
        steps: model steps of each member.
        published_before: the cycle is, and nothing of it will be made again.
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
    found: dict[tuple[int, ...], int] = {}  # complete members of a block at its first step
    lock = threading.Lock()
    with Progress(*columns, console=console) as bars:
        bar = bars.add_task(cycle.model, total=members * steps, stage="preparing inputs")

        def progress(latest: RolloutProgress) -> None:
            with lock:
                begun = not reached
                found.setdefault(latest.members, latest.members_done)
                for member in latest.found_whole:
                    reached.setdefault(member, steps)
                reached[latest.member] = latest.step
                done = min(sum(reached.values()) + steps * sum(found.values()), members * steps)
            whole = len(latest.found_whole) + latest.members_done
            if begun and (latest.step > 1 or whole):
                complete = f", after {counted(whole, 'member')}" if whole else ""
                bars.console.print(
                    f"continues: cycle {cycle} at member {latest.member}, step {latest.step} of {steps}{complete}"
                )
            stage = "making products" if done == members * steps else f"member {latest.member}"
            bars.update(bar, completed=done, stage=stage)

        yield progress
        stage = "found done" if published_before else "published"
        bars.update(bar, completed=members * steps, stage=stage)
