"""The progress bar counts what is done, whenever it was done, and says where a cycle goes on."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from rich.console import Console

from flows.progress import shown_progress
from infra.resources import MemoryUse
from model.cycle import Cycle
from tasks.rollout import RolloutProgress

CYCLE = Cycle(model="tiny", init_time=datetime(2026, 1, 1, tzinfo=UTC))


def moved(
    member: int, step: int, *, done: int = 0, block: Sequence[int] = (0, 1, 2), whole: Sequence[int] = ()
) -> RolloutProgress:
    return RolloutProgress(
        members=tuple(block),
        members_done=done,
        member=member,
        step=step,
        steps=4,
        computed_steps=1,
        seconds_per_step=1.0,
        device="cpu:0",
        memory=MemoryUse(host_bytes=1, peak_host_bytes=1),
        found_whole=tuple(whole),
    )


def shown(*reports: RolloutProgress) -> str:
    """What a run printed that ended in a fault after these reports."""
    screen = io.StringIO()
    with (
        suppress(KeyboardInterrupt),
        shown_progress(Console(file=screen, width=120), CYCLE, members=3, steps=4) as progress,
    ):
        for report in reports:
            progress(report)
        raise KeyboardInterrupt
    return screen.getvalue()


def test_a_new_cycle_counts_its_steps() -> None:
    said = shown(moved(0, 1), moved(0, 2), moved(1, 1))
    assert "continues" not in said
    assert "3/12 steps" in said


def test_a_resumed_cycle_says_from_where_it_goes_on() -> None:
    said = shown(moved(1, 3, done=1), moved(1, 4, done=1), moved(2, 1, done=2))
    assert said.count("continues: cycle tiny/20260101T00Z at member 1, step 3 of 4, after 1 member") == 1
    assert "9/12 steps" in said


def test_what_is_complete_leaves_the_products() -> None:
    assert "making products" in shown(moved(2, 4, done=2))


def test_blocks_found_whole_count_as_members_do() -> None:
    begun = shown(moved(2, 1, block=[2], whole=[0, 1]))
    assert "continues: cycle tiny/20260101T00Z at member 2, step 1 of 4, after 2 members" in begun
    assert "9/12 steps" in begun
    assert "making products" in shown(moved(2, 4, block=[2], whole=[0, 1]))
    assert "after 2 members" in shown(moved(2, 3, done=1, block=[1, 2], whole=[0]))


def test_a_member_that_is_repaired_is_not_counted_twice() -> None:
    steps = [moved(member, step, block=[member]) for member in range(3) for step in range(1, 5)]
    said = shown(*steps, moved(1, 3, block=[1], whole=[0, 2]))
    assert "11/12 steps" in said
    assert "continues" not in said


@pytest.mark.parametrize(("published_before", "stage"), [(True, "found done"), (False, "published")])
def test_only_a_cycle_published_before_is_found_done(published_before: bool, stage: str) -> None:
    """Whole members alone are not: their products are made and published now."""
    screen = io.StringIO()
    console = Console(file=screen, width=120)
    with shown_progress(console, CYCLE, members=3, steps=4, published_before=published_before):
        pass
    assert "12/12 steps" in screen.getvalue()
    assert stage in screen.getvalue()
