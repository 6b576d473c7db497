"""The demo does not start on a disk that it would fill."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from flows import demo
from infra.errors import StoreError


def test_a_disk_that_the_demo_would_fill_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo.shutil, "disk_usage", lambda path: SimpleNamespace(free=100_000_000))
    with pytest.raises(StoreError, match=r"expected \d+ MiB of free space, got 95.4 MiB"):
        demo.demo(output=tmp_path / "demo")
    assert not (tmp_path / "demo" / "store").exists()


def test_what_is_written_already_needs_no_room_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo.shutil, "disk_usage", lambda path: SimpleNamespace(free=10_000_000))
    monkeypatch.setattr(demo, "_WHOLE_SIZE", 15_000_000)
    (tmp_path / "half").write_bytes(bytes(6_000_000))
    demo._require_room(tmp_path)
