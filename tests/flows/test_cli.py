"""The command line: help for everything, one readable line for what goes wrong."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

import flows.forecast  # noqa: F401  its logging set-up closes absl's stream, within a test the captured one
from flows.cli import app, main
from infra.errors import FoldcastError, StoreError
from tests.tools.tiny_service import tiny_configuration

COMMANDS = (
    "demo", "forecast", "rollout", "checkpoint show", "plan", "decode", "regrid", "backfill", "verify",
    "status", "train", "nature-run", "set-up", "serve",
)  # fmt: skip


CONFIGURATION = tiny_configuration(steps=1)
ROLLOUT = "rollout --checkpoint a --dataset b --stats c --steps 1"


@pytest.fixture(autouse=True)
def _environment_and_signals_as_before() -> Iterator[None]:
    """A command settles environment and signals for its process, which here is that of other tests too."""
    before, handler = dict(os.environ), signal.getsignal(signal.SIGTERM)
    yield
    os.environ.clear()
    os.environ.update(before)
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a configuration of one bundled model."""
    (tmp_path / "foldcast.toml").write_text(CONFIGURATION)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def told(
    line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *, code: int = 1
) -> str:
    """What a wrong command says; it must be a message and a code."""
    monkeypatch.setattr("sys.argv", ["foldcast", *line.split()])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == code
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said


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


def interrupted(monkeypatch: pytest.MonkeyPatch, then: Exception, *options: str) -> None:
    """Run a command that fails so while it is interrupted."""
    import flows.status

    def interrupt(**_: object) -> None:
        try:
            raise KeyboardInterrupt
        except BaseException:
            raise then  # noqa: B904  as Prefect does

    monkeypatch.setattr(flows.status, "status", interrupt)
    monkeypatch.setattr("sys.argv", ["foldcast", "status", *options])
    main()


REFUSED = (ConnectionRefusedError(111, "Connection refused"), httpx.ReadError("gone"))


@pytest.mark.parametrize("refused", REFUSED, ids=("refused", "gone"))
def test_ctrl_c_is_told_as_such_although_it_ended_the_temporary_server_as_well(
    refused: Exception, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prefect reports an interrupted run to its server; that fails where the server was interrupted first."""
    with pytest.raises(SystemExit) as ended:
        interrupted(monkeypatch, refused)
    assert ended.value.code == 130
    said = capsys.readouterr().err
    assert said == "foldcast: interrupted; what is done is kept, run the same command again to go on\n"


def test_what_fails_after_ctrl_c_is_told_as_a_failure(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit) as ended:
        interrupted(monkeypatch, StoreError("checkpoint 3: 403 Forbidden"))
    assert ended.value.code == 1
    assert capsys.readouterr().err == "foldcast: checkpoint 3: 403 Forbidden\n"


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FoldcastError, match="got 7"):
        failing(monkeypatch, "--debug")
    with pytest.raises(ConnectionRefusedError):
        interrupted(monkeypatch, REFUSED[0], "--debug")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("forecast --model typo --init 2021-12-28T00", "unknown model 'typo'; configured: tiny"),
        ("plan --model typo", "unknown model 'typo'; configured: tiny"),
        ("forecast --model tiny --source typo", "unknown source 'typo'; configured: archive"),
        (
            "forecast --model tiny --init 1950-01-01T00",
            "tiny/19500101T00Z: expected its inputs at source 'archive', missing ",
        ),
        (
            "forecast --model tiny --init 2021-12-28T00 --submit",
            "expected its address in PREFECT_API_URL, found none",
        ),
        (
            "demo --output foldcast.toml/demo",
            "foldcast.toml/demo/prefect: cannot be written: Not a directory",
        ),
        (
            "verify --model tiny --init 2021-12-28T00",
            "tiny/20211228T00Z: expected a published cycle; ",
        ),
        ("verify --model tiny", "tiny: expected a published cycle whose truth has arrived, found none"),
        ("train --config absent.toml", "absent.toml"),
        ("set-up --pools kubernetes", "expected its address in PREFECT_API_URL, found none"),
    ],
)
def test_wrong_use_is_one_readable_line(
    line: str,
    message: str,
    configured: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = told(line, capsys, monkeypatch)
    assert said.startswith("foldcast: ")
    assert said.count("\n") == 1
    assert message in said
    assert not (configured / "data" / "cycles").exists()


def test_a_request_is_looked_at_before_a_server_is_asked_for(
    configured: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOLDCAST_RUN__SUBMISSION", "work-pool")
    said = told("forecast --model tiny --init 1950-01-01T00", capsys, monkeypatch)
    assert "tiny/19500101T00Z: expected its inputs at source 'archive', missing " in said
    said = told("forecast --model tiny --init 2021-12-28T00", capsys, monkeypatch)
    assert "expected its address in PREFECT_API_URL, found none" in said


def test_a_dry_run_says_what_would_fail_and_ends_so(
    configured: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    period = "backfill --start 2021-12-28 --end {} --every 12h --dry-run"
    monkeypatch.setattr("sys.argv", ["foldcast", *period.format("2021-12-28T12").split()])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code in (None, 0)
    assert capsys.readouterr().out.count("would run") == 2
    monkeypatch.setattr("sys.argv", ["foldcast", *period.format("2022-02-01").split()])
    said = told(period.format("2022-02-01"), capsys, monkeypatch)
    assert "cycles would fail, first tiny/2022" in said
    assert not (configured / "data" / "cycles").exists()


def test_a_port_in_use_is_one_readable_line(
    configured: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = told(f"serve --port {port}", capsys, monkeypatch)
    assert said == f"foldcast: port {port} on 127.0.0.1: expected it free, got: Address already in use\n"


@pytest.mark.parametrize(
    ("line", "option", "message"),
    [
        ("forecast --model tiny --members 0", "--members", "Must be >= 1"),
        ("forecast --model tiny --steps -3", "--steps", "Must be >= 1"),
        ("forecast --model tiny --init 2026-13-01", "--init", "expected e.g. 2026-01-01T00"),
        ("forecast --model tiny --init 2026-01-01T00:30", "--init", "expected a whole hour"),
        ("plan --model tiny --members 0", "--members", "Must be >= 1"),
        (f"{ROLLOUT} --output o.nc --members 0", "--members", "Must be >= 1"),
        ("regrid a b --grid -1", "--grid", "expected a divisor of 180"),
        ("backfill --start 2026-01-01 --end 2026-01-02 --max-parallel 0", "--max-parallel", "Must be >= 1"),
        ("backfill --start soon --end 2026-01-02", "--start", "expected e.g. 2026-01-01T00"),
        (
            "backfill --start 2026-01-01 --end 2026-01-02 --every 6x",
            "--every",
            "expected e.g. 6h or 1d, got '6x'",
        ),
        ("backfill --start 2026-01-01 --end 2026-01-02 --every 90m", "--every", "expected whole hours"),
        (f"{ROLLOUT} --output o.txt", "--output", "Expected a name ending in .nc or .zarr"),
        (f"{ROLLOUT} --output o.nc --attention all", "--attention", "expected one of auto, splash_mha"),
        ("nature-run --output x --years 0", "--years", "Must be > 0"),
        ("serve --port 70000", "--port", "Must be <= 65535"),
        ("serve --gpu-workers -1", "--gpu-workers", "Must be >= 0"),
    ],
)
def test_numbers_and_times_are_judged_as_they_are_typed(
    line: str, option: str, message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = told(line, capsys, monkeypatch, code=2)
    assert said.startswith("foldcast: Invalid value ")
    assert said.endswith(f" See `foldcast {line.split()[0]} --help`.\n")
    assert f"for {option}." in said
    assert message in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "forecast",
            'Command "forecast" parameter --model requires an argument. See `foldcast forecast --help`.',
        ),
        ("status --modles tiny", "Unknown option: --modles. Did you mean --models?"),
        ("status tiny", "Unused Tokens: ['tiny']. See `foldcast status --help`.\n"),
        ("forcast", 'Unknown command "forcast". Did you mean "forecast"?'),
        (
            "backfill --start 2026-01-02 --end 2026-01-01",
            "--end: expected a time at or after --start 2026-01-02, got 2026-01-01",
        ),
        ("serve --host 0.0.0.0", "--host 0.0.0.0: expected --credentials with anything but loopback"),
        ("serve --credentials hunter2", "--credentials: expected user:password\n"),
        (
            "serve --database-url postgresql://u:hunter2@h/d",
            "--database-url: expected postgresql+asyncpg://user",
        ),
    ],
)
def test_a_wrong_command_line_is_one_readable_line(
    line: str, message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = told(line, capsys, monkeypatch, code=2)
    assert said.startswith(f"foldcast: {message}")
    assert said.count("\n") == 1
    assert "hunter2" not in said


def test_before_anything_ran_there_are_no_cycles_and_no_alarm(
    configured: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import flows.status

    for _ in range(2):
        flows.status.status()
        assert capsys.readouterr().out == f"No cycles in {configured / 'data'} yet\n"
        (configured / "data").mkdir(exist_ok=True)
    (configured / "foldcast.toml").write_text("[store]\nroot = 'elsewhere'\n")
    said = told("status", capsys, monkeypatch)
    assert "/elsewhere: expected a folder, found none, and no model is configured; FOLDCAST_CONFIG" in said


def test_a_model_that_is_nowhere_is_not_an_empty_table(
    configured: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (configured / "data").mkdir()
    said = told("status --models typo", capsys, monkeypatch)
    assert "unknown model 'typo'; configured or in the store: tiny" in said


def test_an_extra_that_is_not_installed_is_named(
    configured: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "optax"]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("flows.training", "tasks.training", "model.training.training", "model.training.optimizer"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "optax", None)  # as if it were not there
    said = told("train --config training.toml", capsys, monkeypatch)
    assert said.startswith("foldcast: this needs the extra 'train': pip install 'foldcast[train]'")


def test_a_fault_of_foldcast_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    import flows.status

    def fail(**_: object) -> None:
        raise ValueError("operands could not be broadcast together")

    monkeypatch.setattr(flows.status, "status", fail)
    monkeypatch.setattr("sys.argv", ["foldcast", "status"])
    with pytest.raises(ValueError, match="broadcast") as caught:
        main()
    assert "fault of Foldcast" in caught.value.__notes__[0]


GUARD = """
import os, socket, sys

def guard(what, original):
    def guarded(*arguments, **options):
        address = arguments[0] if what == "getaddrinfo" else arguments[1]
        host = address[0] if isinstance(address, tuple) else address
        path = isinstance(address, (str, bytes)) and what != "getaddrinfo"
        local = path or host in (None, "", "localhost", "::1") or str(host).startswith("127.")
        if not local:
            with open(os.environ["GUARD"], "a") as log:
                log.write(f"{what} {address} by {sys.argv}\\n")
            raise OSError(101, "Network is unreachable")
        return original(*arguments, **options)
    return guarded

socket.getaddrinfo = guard("getaddrinfo", socket.getaddrinfo)
socket.socket.connect = guard("connect", socket.socket.connect)
socket.socket.connect_ex = guard("connect", socket.socket.connect_ex)
"""
"""Python runs it at the start of a process and of all its children: what leaves the machine is refused and noted."""


def guarded(folder: Path, *command: str) -> tuple[subprocess.CompletedProcess[str], str]:
    """A Python process that cannot leave the machine, and what it tried to reach."""
    (folder / "sitecustomize.py").write_text(GUARD)
    inherited = {name: value for name, value in os.environ.items() if not _about_telemetry(name)}
    environment = {**inherited, "PYTHONPATH": f"{folder}:{ROOT}", "GUARD": str(folder / "attempts")}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=540,
    )
    attempts = folder / "attempts"
    return done, attempts.read_text() if attempts.exists() else ""


ROOT = Path(__file__).resolve().parents[2]


def _about_telemetry(name: str) -> bool:
    return name == "DO_NOT_TRACK" or "ANALYTICS" in name


def test_the_guard_sees_what_leaves_the_machine(tmp_path: Path) -> None:
    """192.0.2.1 is nobody's (RFC 5737), .invalid resolves nowhere (RFC 2606)."""
    for call in ("create_connection(('192.0.2.1', 9))", "getaddrinfo('host.invalid', 80)"):
        done, attempts = guarded(tmp_path, "-c", f"import socket; socket.{call}")
        assert done.returncode == 1
        assert "Network is unreachable" in done.stderr
    assert "192.0.2.1" in attempts
    assert "host.invalid" in attempts


@pytest.mark.server
@pytest.mark.timeout(560)
def test_a_cycle_is_run_without_a_single_call_to_the_outside(configured: Path) -> None:
    arguments = ["forecast", "--model", "tiny", "--init", "2021-12-28T00"]
    done, attempts = guarded(configured, "-m", "flows.cli", *arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Published:" in done.stdout
    assert (configured / "data" / "cycles" / "tiny" / "latest.json").is_file()
    assert attempts == ""
