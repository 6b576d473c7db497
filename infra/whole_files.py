"""Local files that are seen only when they are whole."""

from __future__ import annotations

import os
import time
import uuid
from contextlib import suppress
from pathlib import Path

_WRITING = ".writing-"
_ABANDONED_SECONDS = 24 * 3600.0


def write_whole(path: Path, data: bytes) -> Path:
    """Write a file under a temporary name and rename it; its folder is made. Returns the path.

    What a writer that was killed left there goes after a day.

    Raises:
        OSError: it cannot be written; what was there before stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f"{_WRITING}*"):
        with suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > _ABANDONED_SECONDS:
                left.unlink()
    temporary = path.with_name(f"{_WRITING}{uuid.uuid4().hex}")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
