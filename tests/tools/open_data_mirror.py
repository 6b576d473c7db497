"""A folder laid out as ECMWF's open data, with real ``.index`` files, for any resolution."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np

from tests.tools.grib_fields import LEVELS, axes, message, weather

SURFACE = ("2t", "10u", "10v", "msl", "skt", "lsm", "z")
ON_LEVELS = ("t", "u", "v", "w", "q", "gh", "r")

Fields = Callable[[str, int | None, datetime, np.ndarray, np.ndarray], np.ndarray]
"""(short name, level, valid time, latitude, longitude) → values, like ``grib_fields.weather``."""


def run_folder(init_time: datetime, stream: str = "oper") -> str:
    """Folder of a run's files below the root."""
    return f"{init_time:%Y%m%d}/{init_time:%H}z/ifs/0p25/{stream}"


def write_run(
    root: Path,
    init_time: datetime,
    *,
    resolution: float,
    steps: Sequence[int] = (0, 6),
    levels: Iterable[int] = LEVELS,
    surface: Iterable[str] = SURFACE,
    on_levels: Iterable[str] = ON_LEVELS,
    stream: str = "oper",
    fields: Fields = weather,
) -> None:
    """One run: step 0 with everything, later steps with precipitation between unwanted neighbours."""
    folder = root / run_folder(init_time, stream)
    folder.mkdir(parents=True, exist_ok=True)
    latitude, longitude = axes(resolution)
    for step in steps:
        valid_time = datetime.fromtimestamp(init_time.timestamp() + step * 3600, tz=init_time.tzinfo)
        wanted: list[tuple[str, int | None]] = [(name, None) for name in surface]
        wanted += [(name, level) for level in levels for name in on_levels]
        if step:
            wanted = [("msl", None), ("tp", None), ("2t", None)]
        name = f"{init_time:%Y%m%d%H}0000-{step}h-{stream}-fc"
        offset = 0
        with open(folder / f"{name}.grib2", "wb") as data, open(folder / f"{name}.index", "w") as index:
            for short_name, level in wanted:
                values = fields(short_name, level, valid_time, latitude, longitude)
                raw = message(
                    short_name, values, latitude, longitude, init_time=init_time, level=level, step=step
                )
                data.write(raw)
                entry = {
                    "domain": "g",
                    "date": f"{init_time:%Y%m%d}",
                    "time": f"{init_time:%H}00",
                    "expver": "0001",
                    "class": "od",
                    "type": "fc",
                    "stream": stream,
                    "step": str(step),
                    "levtype": "sfc" if level is None else "pl",
                    **({} if level is None else {"levelist": str(level)}),
                    "param": short_name,
                    "_offset": offset,
                    "_length": len(raw),
                }
                index.write(json.dumps(entry) + "\n")
                offset += len(raw)
