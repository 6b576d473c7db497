"""What the embedded default runs on: sample analyses, statistics, a climatology and trained checkpoints.

They lie in this package as files; `README.md` beside them says how they were made.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from infra.errors import MissingDataError

FIRST_ANALYSIS = datetime(2021, 12, 27, tzinfo=UTC)
LAST_ANALYSIS = datetime(2022, 1, 8, tzinfo=UTC)
"""The bundled analyses are six-hourly, both ends included."""

INIT_TIME = datetime(2021, 12, 28, tzinfo=UTC)
"""Where the demonstration starts: the earlier frame of either family and ten days of truth are there."""

RESOLUTION = 5.0
"""Degrees of the bundled models' grid."""


def bundled(name: str) -> Path:
    """A bundled file or folder: ``analyses``, ``graphcast_stats``, ``gencast_stats``, ``climatology.nc``, ….

    Raises:
        MissingDataError: this installation lacks it.
    """
    path = Path(__file__).parent / name
    if not path.exists():
        present = ", ".join(sorted(p.name for p in path.parent.iterdir() if not p.name.startswith("__")))
        raise MissingDataError(f"{path}: not in this installation; there are {present}")
    return path
