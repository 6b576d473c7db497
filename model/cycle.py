"""Cycles and member blocks: what is forecast, from when, and by how many workers.

A *cycle* is one ``init_time`` of one model. A *block* is the set of members that one worker run computes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

_IDENTIFIER_FORMAT = "%Y%m%dT%HZ"


@dataclass(frozen=True, kw_only=True, order=True)
class Cycle:
    """One forecast start of one model.

    Args:
        model: name of the configured model, e.g. ``"gencast-demo"`` (lower case, digits, dashes).
        init_time: start of the forecast, time-zone aware, on a whole hour, stored in UTC.
    """

    model: str
    init_time: datetime

    def __post_init__(self) -> None:
        if not self.model or not all(c.islower() or c.isdigit() or c == "-" for c in self.model):
            raise ValueError(f"model: expected lower-case letters, digits and dashes, got {self.model!r}")
        if self.init_time.tzinfo is None:
            raise ValueError(f"init_time: expected a time-zone aware datetime, got {self.init_time!r}")
        utc = self.init_time.astimezone(UTC)
        if utc != utc.replace(minute=0, second=0, microsecond=0):
            raise ValueError(f"init_time: expected a whole hour, got {self.init_time.isoformat()}")
        object.__setattr__(self, "init_time", utc)

    @property
    def identifier(self) -> str:
        """The init_time as it appears in keys and tables, e.g. ``20260101T00Z``."""
        return self.init_time.strftime(_IDENTIFIER_FORMAT)

    @property
    def hours_since_1970(self) -> int:
        """Whole hours from 1970-01-01T00Z to init_time: the number folded into the cycle's random key."""
        return int(self.init_time.timestamp()) // 3600

    def __str__(self) -> str:
        return f"{self.model}/{self.identifier}"


@dataclass(frozen=True, kw_only=True)
class Block:
    """The members one worker run computes.

    Args:
        index: position of the block in its cycle, from 0.
        members: global member numbers, ascending and distinct.
    """

    index: int
    members: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.members or list(self.members) != sorted(set(self.members)) or self.members[0] < 0:
            raise ValueError(
                f"members: expected ascending, distinct, non-negative numbers, got {self.members}"
            )


def parse_init_time(text: str) -> datetime:
    """An init_time from ``20260101T00Z`` or any ISO 8601 form; without an offset it is read as UTC.

    Raises:
        ValueError: the text is no date and time.
    """
    try:
        return datetime.strptime(text, _IDENTIFIER_FORMAT).replace(tzinfo=UTC)
    except ValueError:
        pass
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"init time: expected e.g. 2026-01-01T00 or 20260101T00Z, got {text!r}") from None
    return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)


def parse_interval(text: str) -> timedelta:
    """An interval between cycles, such as ``6h`` or ``1d``.

    Raises:
        ValueError: the text is none, or not of whole hours.
    """
    units = {"h": "hours", "d": "days", "m": "minutes"}
    try:
        interval = timedelta(**{units[text[-1:]]: float(text[:-1])})
    except (KeyError, ValueError, OverflowError):
        raise ValueError(f"interval: expected e.g. 6h or 1d, got {text!r}") from None
    if interval <= timedelta(0) or interval % timedelta(hours=1):
        raise ValueError(f"interval: expected whole hours, at least one, got {text!r}")
    return interval


def plan_blocks(members: int | Sequence[int], *, block_size: int) -> tuple[Block, ...]:
    """Split members (a count, or global numbers) into consecutive blocks of at most ``block_size``."""
    numbers = range(members) if isinstance(members, int) else sorted(members)
    if block_size < 1 or len(numbers) < 1:
        raise ValueError(f"expected at least one member and block_size ≥ 1, got {members} and {block_size}")
    return tuple(
        Block(index=i, members=tuple(numbers[start : start + block_size]))
        for i, start in enumerate(range(0, len(numbers), block_size))
    )


def cycle_times(start: datetime, end: datetime, *, every: timedelta) -> list[datetime]:
    """All init_times from start to end, both included, ``every`` apart."""
    if every <= timedelta(0):
        raise ValueError(f"every: expected a positive interval, got {every}")
    times = []
    while start <= end:
        times.append(start)
        start += every
    return times


def recent_init_times(now: datetime, *, hours: Sequence[int], look_back: timedelta) -> list[datetime]:
    """All init_times in (now − look_back, now] whose hour of day, UTC, is among ``hours``, oldest first."""
    if any(not 0 <= hour < 24 for hour in hours):
        raise ValueError(f"hours: expected hours of day 0…23, got {tuple(hours)}")
    latest = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    oldest_first = reversed(range(int(look_back / timedelta(hours=1)) + 1))
    times = [latest - timedelta(hours=back) for back in oldest_first]
    return [time for time in times if time.hour in hours and time > now - look_back]
