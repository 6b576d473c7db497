from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from infra.accumulation import combine, combine_runs

START = datetime(2026, 1, 1, tzinfo=UTC)


def hour(number: int) -> datetime:
    return START + timedelta(hours=number)


def test_the_interval_itself_is_taken_alone() -> None:
    assert combine((hour(0), hour(6)), [(hour(0), hour(6)), (hour(0), hour(3)), (hour(3), hour(6))]) == [
        ((hour(0), hour(6)), +1)
    ]


def test_hourly_sums_add_up() -> None:
    hourly = [(hour(i), hour(i + 1)) for i in range(12)]
    assert combine((hour(6), hour(12)), hourly) == [((hour(i), hour(i + 1)), +1) for i in range(6, 12)]


def test_totals_since_the_start_are_subtracted() -> None:
    totals = [(hour(0), hour(6)), (hour(0), hour(12))]
    assert combine((hour(6), hour(12)), totals) == [((hour(0), hour(6)), -1), ((hour(0), hour(12)), +1)]


def test_a_gap_gives_nothing() -> None:
    assert combine((hour(0), hour(6)), [(hour(0), hour(2)), (hour(3), hour(6))]) is None
    assert combine((hour(0), hour(6)), [(hour(0), hour(0))]) is None


@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=12),
    st.integers(0, 11),
    st.integers(1, 12),
)
def test_the_signed_lengths_add_up_to_the_wanted_one(
    pairs: list[tuple[int, int]], start: int, length: int
) -> None:
    published = [(hour(min(pair)), hour(max(pair))) for pair in pairs]
    found = combine((hour(start), hour(start + length)), published)
    if found is not None:
        total = sum((sign * (end - begin) for (begin, end), sign in found), timedelta(0))
        assert total == timedelta(hours=length)


def test_totals_of_different_runs_are_not_subtracted() -> None:
    first, second = hour(0), hour(-6)
    published = [(first, hour(0), hour(12)), (second, hour(0), hour(6))]
    assert combine_runs((hour(6), hour(12)), published) is None
    published.append((first, hour(0), hour(6)))
    assert combine_runs((hour(6), hour(12)), published) == [
        ((first, hour(0), hour(6)), -1),
        ((first, hour(0), hour(12)), +1),
    ]


def test_buckets_of_different_runs_add_up_and_the_latest_run_is_preferred() -> None:
    old, new = hour(-6), hour(0)
    published = [(old, hour(0), hour(6)), (new, hour(0), hour(6)), (new, hour(6), hour(12))]
    assert combine_runs((hour(0), hour(6)), published) == [((new, hour(0), hour(6)), +1)]
    assert combine_runs((hour(0), hour(12)), [published[0], published[2]]) == [
        ((old, hour(0), hour(6)), +1),
        ((new, hour(6), hour(12)), +1),
    ]
