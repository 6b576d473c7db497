"""Where commands print: whole lines into pipes and files, folded ones on a terminal; nothing is ever cut off."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console
from rich.table import Table

_ENDLESS = 10_000
"""Columns of what is no terminal: more than any table of ours needs."""


def command_console(*, stderr: bool = False) -> Console:
    """The console of a command: as wide as its terminal, elsewhere as wide as what is printed.

    Text is printed as it is: what looks like markup or like an emoji's name belongs to it.
    """
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _ENDLESS
    return Console(stderr=stderr, width=width, markup=False, emoji=False)


class FoldingTable(Table):
    """A table that folds what is too long for its column, where Rich would put an ellipsis in its place."""

    def add_column(self, header: Any = "", footer: Any = "", **options: Any) -> None:
        """As Rich's; what is too long is folded unless ``overflow`` says otherwise."""
        super().add_column(header, footer, **{"overflow": "fold", **options})
