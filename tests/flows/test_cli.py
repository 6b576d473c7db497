"""The command line: help for everything, one readable line for what goes wrong."""

from __future__ import annotations

import pytest

from flows.cli import app, main
from infra.errors import FoldcastError

COMMANDS = (
    "demo", "forecast", "rollout", "checkpoint show", "plan", "decode", "regrid", "backfill", "verify",
    "status", "train", "nature-run", "serve",
)  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_a_worked_example(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["foldcast", *command.split(), "--help"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code in (None, 0)
    shown = " ".join(capsys.readouterr().out.split())
    assert f"Example: foldcast {command}" in shown


def test_the_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    app(["--help"], exit_on_error=False, result_action="return_value")
    shown = capsys.readouterr().out
    assert all(command.split()[0] in shown for command in COMMANDS)


def failing(monkeypatch: pytest.MonkeyPatch, *options: str) -> None:
    import flows.status

    def fail(**_: object) -> None:
        raise FoldcastError("cycle tiny/20260101T00Z: expected [8] members, got 7")

    monkeypatch.setattr(flows.status, "status", fail)
    monkeypatch.setattr("sys.argv", ["foldcast", "status", *options])
    main()


def test_an_expected_failure_is_one_line_and_a_code(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit) as ended:
        failing(monkeypatch)
    assert ended.value.code == 1
    assert capsys.readouterr().err == "foldcast: cycle tiny/20260101T00Z: expected [8] members, got 7\n"


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FoldcastError, match="got 7"):
        failing(monkeypatch, "--debug")
