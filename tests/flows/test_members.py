"""One block on one worker: its watchdog looks at everything that may hang."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from infra.settings import child_environment

_PROGRAM = """
import sys, threading
from datetime import UTC, datetime
from pathlib import Path
from flows.ensemble import forecast_ensemble
from flows.members import prepare_block
from infra import layout
from infra.analyses import write_analysis
from infra.watchdog import Watchdog
from model.cycle import Cycle
from tests.fakes import pass_through
from tests.tasks.test_run_description import CYCLE, configure

root, where = Path(sys.argv[1]), sys.argv[2]
settings = configure(root)
write_analysis(settings.store.open(), layout.initial_condition(CYCLE), pass_through.initial_condition(CYCLE.init_time))
run = forecast_ensemble(CYCLE, settings).run
hang = lambda *_, **__: threading.Event().wait()
forecaster = pass_through.PassThroughForecaster()
if where != "load":
    setattr(forecaster, where, hang)
load = hang if where == "load" else lambda: [forecaster]
print("begins", flush=True)
prepare_block(CYCLE, run=run, members=[1], steps=1, settings=settings, load=load, watchdog=Watchdog(0.5)).run()
print("ends", flush=True)
"""


@pytest.mark.parametrize("where", ["load", "advance"])
def test_a_worker_that_hangs_ends_itself(repository: Path, tmp_path: Path, where: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(tmp_path), where],
        cwd=repository,
        env=child_environment(),
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.stdout == "begins\n", done.stderr[-2000:]
    assert done.returncode == 1
    assert "Timeout" in done.stderr, "where each thread stood is printed"
