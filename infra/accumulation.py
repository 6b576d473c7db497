"""Accumulated fields: the sum over a wanted interval from the intervals a provider happens to publish.

ECMWF accumulates from the start of the run (0–6, 0–12), NCEP in buckets, ERA5 by the hour. Each published
interval [start, end] is an edge between two times; a wanted interval is a path from its start to its end, an
edge walked backwards being subtracted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from datetime import datetime

Interval = tuple[datetime, datetime]


def combine(wanted: Interval, published: Iterable[Interval]) -> list[tuple[Interval, int]] | None:
    """The fewest published intervals whose signed sum is the wanted one, in order of time walked.

    Returns:
        (interval, +1 or −1) pairs; None if no combination gives the wanted interval.
    """
    neighbours: dict[datetime, list[tuple[datetime, Interval, int]]] = {}
    for interval in sorted(set(published)):
        start, end = interval
        if start < end:
            neighbours.setdefault(start, []).append((end, interval, +1))
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
