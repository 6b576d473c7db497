"""Nothing that a command prints is lost, wherever it goes."""

from __future__ import annotations

import io
import re
import sys

import pytest
from rich.console import Console
from rich.table import Table

from infra.terminal import FoldingTable, command_console

LONG = "s3://forecasts/" + "a-rather-long-folder/" * 12
REASON = "expected fields within [models.tiny], got :warning: " + "and more and more " * 20


class Screen(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def table() -> FoldingTable:
    made = FoldingTable("where", "reason", title="Cycles")
    made.add_column("age", justify="right")
    made.add_row(LONG, REASON, "1 h")
    return made


def test_a_pipe_gets_whole_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = io.StringIO()
    monkeypatch.setattr(sys, "stdout", pipe)
    console = command_console()
    console.print(table())
    console.print(REASON)
    lines = pipe.getvalue().splitlines()
    assert [line for line in lines if LONG in line and REASON.strip() in line]
    assert lines[-1] == REASON.strip()


def test_a_pipe_gets_no_blanks_at_the_ends_of_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = io.StringIO()
    monkeypatch.setattr(sys, "stdout", pipe)
    plain = FoldingTable(show_header=False, box=None)
    plain.add_row("licence", REASON)
    plain.add_row("step", "6 h")
    command_console().print(plain)
    first, second = pipe.getvalue().splitlines()
    assert first.split(maxsplit=1) == ["licence", REASON.strip()]
    assert second == " step     6 h"


def test_a_narrow_terminal_folds_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "xterm")
    command_console().print(table())
    lines = re.sub(r"\x1b\[[0-9;]*m", "", screen.getvalue()).splitlines()
    assert max(map(len, lines)) <= 60
    cells = [line.strip("│").split("│") for line in lines if line.startswith("│")]
    assert "".join(cell[0].strip() for cell in cells) == LONG
    assert " ".join(" ".join(cell[1] for cell in cells).split()) == REASON.strip()


def test_richs_own_table_would_cut() -> None:
    """What the folding is for."""
    screen = io.StringIO()
    cut = Table("where")
    cut.add_row(LONG)
    Console(file=screen, width=60).print(cut)
    assert "…" in screen.getvalue()


def test_errors_go_to_the_other_stream(capsys: pytest.CaptureFixture[str]) -> None:
    command_console(stderr=True).print(f"foldcast: {LONG}")
    assert capsys.readouterr() == ("", f"foldcast: {LONG}\n")
