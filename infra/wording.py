"""How numbers of things are said to people."""

from __future__ import annotations


def counted(count: int, thing: str) -> str:
    """A number of things, e.g. ``1 member``, ``8 members``; for words whose plural ends in s."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"
