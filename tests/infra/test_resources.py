"""Memory of machine, container, process and devices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil
import pytest

from infra.resources import host_memory_available, host_memory_limit, memory_use, size_text


class Accelerator:
    def __init__(self, **statistics: int) -> None:
        self._statistics = statistics

    def memory_stats(self) -> dict[str, int] | None:
        return self._statistics or None


def test_host_memory_is_counted() -> None:
    use = memory_use()
    assert use.peak_host_bytes >= use.host_bytes > 10_000_000
    assert use.device_bytes is None
    assert 0 < host_memory_available() <= psutil.virtual_memory().total


def test_the_fullest_device_counts() -> None:
    devices: list[Any] = [
        Accelerator(bytes_in_use=10, peak_bytes_in_use=30),
        Accelerator(bytes_in_use=20, peak_bytes_in_use=25),
        Accelerator(),
    ]
    use = memory_use(devices)
    assert (use.device_bytes, use.peak_device_bytes) == (20, 30)


@pytest.mark.parametrize(("text", "expected"), [("1048576\n", 1048576), ("max\n", None), (None, None)])
def test_a_containers_limit_counts(tmp_path: Path, text: str | None, expected: int | None) -> None:
    path = tmp_path / "memory.max"
    if text is not None:
        path.write_text(text)
    assert host_memory_limit((path,)) == (expected or psutil.virtual_memory().total)


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (3482, "3.4 KiB"),
        (123 * 2**20, "123 MiB"),
        (8 * 2**30, "8.0 GiB"),
        (2**41, "2.0 TiB"),
    ],
)
def test_sizes_in_words(count: int, words: str) -> None:
    assert size_text(count) == words
