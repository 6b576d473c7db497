"""Local files that are seen only when they are whole."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from infra.object_store import TEMPORARY_PREFIX

_ABANDONED_SECONDS = 24 * 3600.0


@contextmanager
def whole_when_done(path: Path) -> Iterator[Path]:
    """A temporary path beside a file's, whose folder is made: to be written in the block, and renamed at its end.

    A block that fails leaves what was there before, and nothing else.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_whole(path: Path, data: bytes) -> Path:
    """Write a file under a temporary name and rename it; its folder is made. Returns the path.

    What a writer that was killed left there goes after a day.

    Raises:
        OSError: it cannot be written; what was there before stays.
    """
    for left in path.parent.glob(f"{TEMPORARY_PREFIX}*"):
        with suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > _ABANDONED_SECONDS:
                left.unlink()
    with whole_when_done(path) as temporary:
        temporary.write_bytes(data)
    return path
