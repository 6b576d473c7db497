"""Ctrl-C in the middle of a cycle: nothing looks published, and the next run goes on where it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows.forecast import run_cycle
from infra import layout
from infra.cycle_status import list_cycles
from infra.demo import INIT_TIME
from infra.local_services import LocalServer
from infra.object_store import ObjectStore
from infra.publication import read_manifest
from infra.settings import child_environment, load_settings
from model.cycle import Cycle
from tests.tools.tiny_service import tiny_configuration

ROOT = Path(__file__).resolve().parents[2]
STEPS = 96
_TRIES = 3
CYCLE = Cycle(model="tiny", init_time=INIT_TIME)
CONFIGURATION = tiny_configuration(steps=STEPS, model="checkpoint_every = 1")

# A shell that runs the suite in the background turns interrupts off, and children inherit it.
HEARING_INTERRUPTS = (
    "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "runpy.run_module('flows.cli', run_name='__main__', alter_sys=True)"
)


def started(folder: Path, server: LocalServer) -> subprocess.Popen[str]:
    """The command as a shell starts it: in a process group of its own, which Ctrl-C reaches as a whole."""
    (folder / "foldcast.toml").write_text(CONFIGURATION)
    command = ["forecast", "--model", "tiny", "--init", CYCLE.identifier]
    return subprocess.Popen(
        [sys.executable, "-c", HEARING_INTERRUPTS, *command],
        cwd=folder,
        env=child_environment(PREFECT_API_URL=server.api_url, PYTHONPATH=str(ROOT)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for_checkpoint(folder: Path, process: subprocess.Popen[str]) -> None:
    """Until the member has come some steps far."""
    while not any((folder / "data" / "runs").glob("*/*/*/checkpoints/*")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def interrupted(folder: Path, server: LocalServer) -> tuple[int, str]:
    """Code and message of a command that gets Ctrl-C once it has a checkpoint."""
    folder.mkdir()
    with started(folder, server) as process:
        try:
            wait_for_checkpoint(folder, process)
            os.killpg(process.pid, signal.SIGINT)
            _, said = process.communicate(timeout=120)
        finally:
            process.kill()
    return process.returncode, said


@pytest.mark.server
def test_ctrl_c_publishes_nothing_and_the_next_run_goes_on(
    tmp_path: Path, prefect_server: LocalServer
) -> None:
    for attempt in range(_TRIES):  # on a busy machine the command may be done before it is interrupted
        folder = tmp_path / f"{attempt}"
        code, said = interrupted(folder, prefect_server)
        if code != 0:
            break
    assert code == 130, said
    assert said == "foldcast: interrupted; what is done is kept, run the same command again to go on\n"
    store = ObjectStore(root=str(folder / "data"))
    assert not store.exists(layout.cycle_manifest(CYCLE))
    assert not store.exists(layout.latest(CYCLE.model))
    assert [status.state for status in list_cycles(store)] == ["unfinished"]

    reached: list[int] = []
    run_cycle(
        CYCLE, load_settings(folder / "foldcast.toml"), progress=lambda latest: reached.append(latest.step)
    )
    assert 1 < min(reached) <= max(reached) == STEPS
    assert read_manifest(store, CYCLE).steps == STEPS
