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
from infra.demo import INIT_TIME, bundled
from infra.local_services import LocalServer
from infra.object_store import ObjectStore
from infra.publication import read_manifest
from infra.settings import child_environment, load_settings
from model.cycle import Cycle

ROOT = Path(__file__).resolve().parents[2]
STEPS = 24
CYCLE = Cycle(model="tiny", init_time=INIT_TIME)
CONFIGURATION = f"""
[store]
root = "data"
[run]
cache = "cache"
[sources.archive]
type = "nature-run"
kind = "nature-run"
roots = ["{bundled("analyses")}"]
[models.tiny]
checkpoint = "{bundled("graphcast.npz")}"
statistics = "{bundled("graphcast_stats")}"
trained_on = "nature-run"
source = "archive"
steps = {STEPS}
checkpoint_every = 1
products = {{formats = ["zarr"], quantiles = [0.5], events = []}}
"""


def started(folder: Path, server: LocalServer) -> subprocess.Popen[str]:
    """The command as a shell starts it: in a process group of its own, which Ctrl-C reaches as a whole."""
    (folder / "foldcast.toml").write_text(CONFIGURATION)
    command = ["forecast", "--model", "tiny", "--init", CYCLE.identifier]
    return subprocess.Popen(
        [sys.executable, "-m", "flows.cli", *command],
        cwd=folder,
        env=child_environment(PREFECT_API_URL=server.api_url, PYTHONPATH=str(ROOT)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for_checkpoint(store: ObjectStore, process: subprocess.Popen[str]) -> None:
    """Until the member has come some steps far."""
    while not any("/checkpoints/" in key for key in store.list(f"runs/{CYCLE}/")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


@pytest.mark.server
def test_ctrl_c_publishes_nothing_and_the_next_run_goes_on(
    tmp_path: Path, prefect_server: LocalServer
) -> None:
    store = ObjectStore(root=str(tmp_path / "data"))
    with started(tmp_path, prefect_server) as process:
        try:
            wait_for_checkpoint(store, process)
            os.killpg(process.pid, signal.SIGINT)
            _, said = process.communicate(timeout=120)
        finally:
            process.kill()
    assert process.returncode == 130, said
    assert said == "foldcast: interrupted; what is done is kept, run the same command again to go on\n"
    assert not store.exists(layout.cycle_manifest(CYCLE))
    assert not store.exists(layout.latest(CYCLE.model))
    assert [status.state for status in list_cycles(store)] == ["unfinished"]

    reached: list[int] = []
    run_cycle(
        CYCLE, load_settings(tmp_path / "foldcast.toml"), progress=lambda latest: reached.append(latest.step)
    )
    assert 1 < min(reached) <= max(reached) == STEPS
    assert read_manifest(store, CYCLE).steps == STEPS
