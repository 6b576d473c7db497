"""Accumulated fields: the sum over a wanted interval from the intervals a provider happens to publish.

ECMWF accumulates from the start of the run (0–6, 0–12), NCEP in buckets, ERA5 by the hour. Each published
interval [start, end] is an edge between two times; a wanted interval is a path from its start to its end, an
edge walked backwards being subtracted. Only totals of one run may be subtracted from each other: the difference
of two forecasts is no precipitation.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from datetime import datetime

Interval = tuple[datetime, datetime]


def combine(
    wanted: Interval, published: Iterable[Interval], *, subtract: bool = True
) -> list[tuple[Interval, int]] | None:
    """The fewest published intervals whose signed sum is the wanted one, in order of time walked.

    Args:
        wanted, published: intervals.
        subtract: whether intervals may be taken away; else they only add up.

    Returns:
        (interval, +1 or −1) pairs; None if no combination gives the wanted interval.
    """
    neighbours: dict[datetime, list[tuple[datetime, Interval, int]]] = {}
    for interval in sorted(set(published)):
        start, end = interval
        if start < end:
            neighbours.setdefault(start, []).append((end, interval, +1))
            if subtract:
                neighbours.setdefault(end, []).append((start, interval, -1))
    origin, goal = wanted
    arrived_by: dict[datetime, tuple[datetime, Interval, int] | None] = {origin: None}
    queue = deque([origin])
    while queue and goal not in arrived_by:
        here = queue.popleft()
        for there, interval, sign in neighbours.get(here, ()):
            if there not in arrived_by:
                arrived_by[there] = (here, interval, sign)
                queue.append(there)
    if goal not in arrived_by:
        return None
    path: list[tuple[Interval, int]] = []
    step = arrived_by[goal]
    while step is not None:
        here, interval, sign = step
        path.append((interval, sign))
        step = arrived_by[here]
    return path[::-1]


RunInterval = tuple[datetime, datetime, datetime]
"""Start of the run, start and end of the interval."""


def combine_runs(wanted: Interval, published: Iterable[RunInterval]) -> list[tuple[RunInterval, int]] | None:
    """The fewest published intervals that give the wanted one: of one run, or of several that only add up.

    Of two ways with equally many the one of the later run is taken; of one interval published by several runs,
    the latest run's.

    Returns:
        ((run, start, end), +1 or −1) pairs; None if there is no way.
    """
    runs: dict[datetime, list[Interval]] = {}
    for run, start, end in published:
        runs.setdefault(run, []).append((start, end))
    ways: list[list[tuple[RunInterval, int]]] = []
    newest: dict[Interval, datetime] = {}
    for run, intervals in sorted(runs.items()):
        newest |= dict.fromkeys(intervals, run)
        own = combine(wanted, intervals)
        if own is not None:
            ways.insert(0, [((run, *interval), sign) for interval, sign in own])
    together = combine(wanted, newest, subtract=False)
    if together is not None:
        ways.append([((newest[interval], *interval), sign) for interval, sign in together])
    return min(ways, key=len, default=None)
