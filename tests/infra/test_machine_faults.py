"""A full disk is recognised through whatever library it came."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path

import pytest

from infra.machine_faults import machine_fault


def test_a_full_disk_says_where_and_what_to_do() -> None:
    reason = machine_fault(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/x"))
    assert reason == (
        "/data/x: no space left on the disk; what is done is kept: make room and run the same command again"
    )


@pytest.mark.parametrize(
    "error",
    [
        sqlite3.OperationalError("database or disk is full"),
        RuntimeError("Unable to flush file (errno = 28, error message = 'No space left on device')"),
        ExceptionGroup("several", [ValueError("other"), OSError(errno.ENOSPC, "full")]),
    ],
)
def test_it_is_found_in_words_and_in_groups(error: Exception) -> None:
    assert str(machine_fault(error)).startswith("no space left on the disk")


def test_it_is_found_behind_another_error() -> None:
    error = RuntimeError("a library's own")
    error.__context__ = KeyError("between")
    error.__context__.__cause__ = OSError(errno.ENOSPC, "full")
    assert machine_fault(error) is not None


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_real_refusal_is_recognised() -> None:
    with (
        pytest.raises(OSError, match="No space left") as caught,
        open("/dev/full", "wb", buffering=0) as file,
    ):
        file.write(b"x")
    assert str(machine_fault(caught.value)).startswith("no space left on the disk")


def test_other_errors_are_none() -> None:
    assert machine_fault(KeyError("x")) is None
    assert machine_fault(OSError(errno.ENOENT, "no such file")) is None
