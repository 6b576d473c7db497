"""Where commands print: whole lines into pipes and files, folded ones on a terminal; nothing is ever cut off."""

from __future__ import annotations

import re
import sys
from typing import IO, Any, TextIO, cast

from rich.console import Console
from rich.table import Table

_ENDLESS = 10_000
"""Columns of what is no terminal: more than any table of ours needs."""


def command_console(*, stderr: bool = False) -> Console:
    """The console of a command: as wide as its terminal, elsewhere as wide as what is printed.

    Text is printed as it is: what looks like markup or like an emoji's name belongs to it.
    """
    stream = sys.stderr if stderr else sys.stdout
    if stream.isatty():
        return Console(stderr=stderr, markup=False, emoji=False)
    file = cast("IO[str]", _Unpadded(stream))
    return Console(file=file, stderr=stderr, width=_ENDLESS, markup=False, emoji=False)


class _Unpadded:
    """A text stream without blanks at the ends of lines, to which Rich fills up a table's last column."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(re.sub(r" +(?=\n)", "", text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class FoldingTable(Table):
    """A table that folds what is too long for its column, where Rich would put an ellipsis in its place."""

    def add_column(self, header: Any = "", footer: Any = "", **options: Any) -> None:
        """As Rich's; what is too long is folded unless ``overflow`` says otherwise."""
        super().add_column(header, footer, **{"overflow": "fold", **options})
