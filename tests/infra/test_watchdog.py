"""The watchdog ends a process that hangs, even with the interpreter's lock held, and leaves a busy one alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from infra.watchdog import Watchdog


def run(repository: Path, body: str) -> subprocess.CompletedProcess[str]:
    program = f"import ctypes, time\nfrom infra.watchdog import Watchdog\n{body}"
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=repository,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_call_that_never_returns_ends_the_process_and_says_where(repository: Path) -> None:
    # PyDLL calls keep the interpreter's lock: neither signal handlers nor other threads run meanwhile.
    done = run(
        repository,
        "with Watchdog(0.3) as dog:\n"
        "    with dog.watching('device 0'):\n"
        "        ctypes.PyDLL(None).sleep(30)\n"
        "print('survived')",
    )
    assert done.returncode == 1
    assert "Timeout" in done.stderr
    assert "survived" not in done.stdout


def test_progress_keeps_the_process_alive_and_rest_is_not_watched(repository: Path) -> None:
    done = run(
        repository,
        "with Watchdog(2.0) as dog:\n"
        "    for _ in range(4):\n"
        "        with dog.watching():\n"
        "            time.sleep(0.6)\n"
        "    time.sleep(2.2)\n"
        "print('survived')",
    )
    assert (done.returncode, done.stdout.strip()) == (0, "survived"), done.stderr


def test_one_hung_activity_among_busy_ones_is_noticed(repository: Path) -> None:
    done = run(
        repository,
        "with Watchdog(0.6) as dog:\n"
        "    dog.beat('device 0')\n"
        "    for _ in range(20):\n"
        "        dog.beat('device 1')\n"
        "        time.sleep(0.1)\n"
        "print('survived')",
    )
    assert done.returncode == 1
    assert "survived" not in done.stdout


def test_without_a_limit_nothing_is_watched() -> None:
    with Watchdog(None) as dog, dog.watching():
        pass
    with pytest.raises(ValueError, match="positive"):
        Watchdog(0.0)
