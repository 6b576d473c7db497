"""The temporary server of a command without one: Ctrl-C leaves it to the command, whose end is its own."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from prefect.settings import PREFECT_HOME, temporary_settings

from infra import temporary_server
from infra.settings import child_environment
from infra.supervision import ServiceError
from tests.conftest import free_port

ROOT = Path(__file__).resolve().parents[2]
COMMAND = """
import os, signal, sys, time
from infra.settings import quiet_orchestration

quiet_orchestration(debug=False)
signal.signal(signal.SIGINT, signal.default_int_handler)

from prefect import flow
from infra.temporary_server import ShelteredServer

@flow(name="command", persist_result=False)
def command():
    print("running", ShelteredServer().server_process.pid, flush=True)
    time.sleep(600)

ShelteredServer()
try:
    command()
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def test_a_server_that_ends_at_its_start_is_not_tried_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Code 3 is what uvicorn ends with where the application does not start, and where its port is taken."""
    monkeypatch.setattr(temporary_server, "_PROGRAM", "tests.tools.ends_with_3")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with temporary_settings({PREFECT_HOME: str(tmp_path)}), pytest.raises(ServiceError) as refused:
        temporary_server.ShelteredServer(port=free_port()).start()
    log = tmp_path / "logs" / "temporary-server.log"
    assert str(refused.value) == f"Prefect's temporary server: ended 3 times at its start; see {log}"
    assert log.read_text().count("why it ends") == 3


@pytest.mark.server
@pytest.mark.timeout(240)
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_the_server_outlasts_ctrl_c_and_ends_with_the_command(tmp_path: Path, ending: signal.Signals) -> None:
    environment = child_environment(PREFECT_HOME=str(tmp_path), PYTHONPATH=str(ROOT))
    environment.pop("PREFECT_API_URL", None)
    with subprocess.Popen(
        [sys.executable, "-c", COMMAND],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as command:
        assert command.stdout is not None
        said, pid = command.stdout.readline().split()
        server = psutil.Process(int(pid))
        assert os.getpgid(server.pid) != command.pid  # Ctrl-C is for the command's group
        os.killpg(command.pid, ending)
        rest = command.stdout.read()
    assert (tmp_path / "logs" / "temporary-server.log").is_file()  # where its own complaints go
    server.wait(timeout=120)  # however it ended, it does
    assert said == "running"
    if ending == signal.SIGKILL:
        assert (command.returncode, rest) == (-signal.SIGKILL, "")
        return
    assert (command.returncode, rest) == (0, "interrupted\n")
    with closing(sqlite3.connect(tmp_path / "prefect.db")) as database:
        # The server was there to be told how the flow run ended.
        assert database.execute("SELECT name, state_type FROM flow_run").fetchall()[0][1] == "CRASHED"
