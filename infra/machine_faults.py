"""Failures of the machine, whatever library they came through: a full disk, a folder not to be written."""

from __future__ import annotations

import errno
from collections.abc import Iterator

_REASONS = {
    errno.ENOSPC: "no space left on the disk",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system can only be read",
    errno.EACCES: "not permitted",
    errno.EPERM: "not permitted",
    errno.EIO: "the disk failed",
}
_FULL = (errno.ENOSPC, errno.EDQUOT)
_WHOLE_DISK = (*_FULL, errno.EROFS, errno.EIO)
"""Told even where no file is named; a file that is not permitted helps nobody without its name."""

_IN_WORDS = ("No space left on device", "database or disk is full", "Disk quota exceeded")
"""How libraries that swallow the error number say it (HDF5, SQLite)."""


def machine_fault(error: BaseException) -> str | None:
    """What the machine refused, in a line for people; None if no such thing is behind the error.

    Args:
        error: anything raised; its causes, contexts and group members are looked at too.
    """
    for each in behind(error):
        if (
            isinstance(each, OSError)
            and each.errno in _REASONS
            and (each.filename or each.errno in _WHOLE_DISK)
        ):
            return _line(_REASONS[each.errno], each.filename, full=each.errno in _FULL)
        if any(words in str(each) for words in _IN_WORDS):
            return _line(_REASONS[errno.ENOSPC], None, full=True)
    return None


def _line(reason: str, place: object, *, full: bool) -> str:
    where = f"{place}: " if place else ""
    advice = "; what is done is kept: make room and run the same command again" if full else ""
    return f"{where}{reason}{advice}"


def behind(error: BaseException) -> Iterator[BaseException]:
    """An exception with its causes, contexts and group members, nearest first, each once."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        each = waiting.pop(0)
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        if isinstance(each, BaseExceptionGroup):
            waiting += each.exceptions
        waiting += [other for other in (each.__cause__, each.__context__) if other is not None]
