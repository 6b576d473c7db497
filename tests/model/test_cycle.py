"""Cycles, blocks and times."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.cycle import (
    Block,
    Cycle,
    cycle_times,
    parse_init_time,
    parse_interval,
    plan_blocks,
    recent_init_times,
)

MIDNIGHT = datetime(2026, 1, 2, tzinfo=UTC)


def test_a_cycle_names_itself() -> None:
    assert str(Cycle(model="gencast-demo", init_time=MIDNIGHT)) == "gencast-demo/20260102T00Z"


def test_hours_since_1970_counts_from_the_epoch() -> None:
    # 2026-01-02 is 56 years and 1 day after the epoch, 14 of them leap years: 20455 days.
    assert Cycle(model="m", init_time=MIDNIGHT).hours_since_1970 == 20455 * 24


def test_other_zones_are_the_same_cycle() -> None:
    there = MIDNIGHT.astimezone(timezone(timedelta(hours=9)))
    assert Cycle(model="m", init_time=there) == Cycle(model="m", init_time=MIDNIGHT)


@pytest.mark.parametrize("wrong", [datetime(2026, 1, 2), MIDNIGHT + timedelta(minutes=30)])
def test_a_cycle_needs_a_whole_hour_with_a_zone(wrong: datetime) -> None:
    with pytest.raises(ValueError, match="init_time: expected"):
        Cycle(model="m", init_time=wrong)


@pytest.mark.parametrize("name", ["", "Upper", "with/slash", "dot."])
def test_a_model_name_fits_into_a_key(name: str) -> None:
    with pytest.raises(ValueError, match="model: expected"):
        Cycle(model=name, init_time=MIDNIGHT)


@pytest.mark.parametrize("text", ["20260102T00Z", "2026-01-02", "2026-01-02T00", "2026-01-02T01:00+01:00"])
def test_init_times_are_read_in_many_forms(text: str) -> None:
    assert parse_init_time(text) == MIDNIGHT


def test_what_is_no_time_is_refused() -> None:
    with pytest.raises(ValueError, match="init time: expected"):
        parse_init_time("yesterday")


@given(members=st.integers(1, 60), size=st.integers(1, 20))
def test_blocks_partition_the_members(members: int, size: int) -> None:
    blocks = plan_blocks(members, block_size=size)
    assert [m for block in blocks for m in block.members] == list(range(members))
    assert all(len(block.members) <= size for block in blocks)
    assert [block.index for block in blocks] == list(range(len(blocks)))


@pytest.mark.parametrize("members", [(), (1, 1), (2, 1), (-1,)])
def test_a_block_needs_ascending_distinct_members(members: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="members: expected"):
        Block(index=0, members=members)


def test_cycle_times_include_both_ends() -> None:
    times = cycle_times(MIDNIGHT, MIDNIGHT + timedelta(days=1), every=timedelta(hours=12))
    assert [t.hour for t in times] == [0, 12, 0]


def test_recent_init_times_are_those_of_the_right_hours() -> None:
    now = MIDNIGHT + timedelta(hours=7, minutes=40)
    times = recent_init_times(now, hours=(0, 12), look_back=timedelta(hours=30))
    assert times == [MIDNIGHT - timedelta(hours=12), MIDNIGHT]


def test_the_present_hour_is_recent_and_the_end_of_the_look_back_is_not() -> None:
    times = recent_init_times(MIDNIGHT, hours=(0,), look_back=timedelta(hours=24))
    assert times == [MIDNIGHT]


@pytest.mark.parametrize(
    ("text", "interval"),
    [("6h", timedelta(hours=6)), ("1d", timedelta(days=1)), ("120m", timedelta(hours=2))],
)
def test_intervals_are_read(text: str, interval: timedelta) -> None:
    assert parse_interval(text) == interval


@pytest.mark.parametrize("text", ["", "6", "h", "six hours", "6x", "nanh"])
def test_what_is_no_interval_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"interval: expected e\.g\. 6h or 1d"):
        parse_interval(text)


@pytest.mark.parametrize("text", ["0h", "-6h", "90m", "1.01h"])
def test_cycles_are_whole_hours_apart(text: str) -> None:
    with pytest.raises(ValueError, match="interval: expected whole hours"):
        parse_interval(text)
