"""Services that end are started again, but not for ever; all end with the one that started them."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from infra.supervision import Service, ServiceError, Supervisor


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def service(code: str, started: list[subprocess.Popen[bytes]]) -> Service:
    @contextmanager
    def run() -> Iterator[subprocess.Popen[bytes]]:
        with subprocess.Popen([sys.executable, "-S", "-c", code], stdin=subprocess.PIPE) as process:
            started.append(process)
            yield process
            process.kill()

    return run


def test_what_runs_is_left_alone_and_ends_with_the_block() -> None:
    started: list[subprocess.Popen[bytes]] = []
    with Supervisor() as supervisor:
        supervisor.start("steady", service("input()", started))
        assert supervisor.look() == []
        assert started[0].poll() is None
    assert started[0].poll() is not None


def test_what_ended_is_started_again_until_it_ends_too_often() -> None:
    clock, started = Clock(), []
    with Supervisor(restarts=2, within_seconds=100, clock=clock) as supervisor:
        supervisor.start("brief", service("raise SystemExit(7)", started))
        for now in (0.0, 60.0, 120.0):  # the first has been forgotten by the third
            clock.now = now
            started[-1].wait()
            assert supervisor.look() == ["brief"]
        started[-1].wait()
        with pytest.raises(ServiceError, match="brief: ended 3 times within 100 s, now with code 7"):
            supervisor.look()
    assert len(started) == 4


PARENT = """
import subprocess, sys
program = [sys.executable, "-m", "infra.service_program", "http.server", "0", "--bind", "127.0.0.1"]
child = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
print(child.pid, flush=True)
print(child.stdout.readline(), flush=True)
input()
"""


def test_a_service_ends_when_its_parent_is_killed() -> None:
    with subprocess.Popen(
        [sys.executable, "-u", "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        service_process = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    assert service_process.wait(timeout=60) is None  # no child of ours: psutil waits until it is gone


DEAF = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
os.execv(sys.executable, [sys.executable, "-m", "infra.service_program", "http.server", "0", "--bind", "127.0.0.1"])
"""


def test_a_service_that_a_background_shell_started_hears_an_interrupt() -> None:
    program = [sys.executable, "-u", "-c", DEAF]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as service_process:
        assert service_process.stdout is not None
        assert b"Serving" in service_process.stdout.readline()
        service_process.send_signal(signal.SIGINT)
        try:
            assert service_process.wait(timeout=60) in (0, -signal.SIGINT)  # as far as its start had come
        finally:
            service_process.kill()
