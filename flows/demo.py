"""The whole main job on the embedded default: bundled data and models, no network, server or accelerator."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from rich.table import Table

from flows.forecast import forecast_here
from infra import layout
from infra.demo import INIT_TIME
from infra.demo.configuration import DETERMINISTIC, ENSEMBLE, deliver_analyses, demo_settings
from infra.errors import StoreError
from infra.publication import read_manifest
from infra.resources import size_text
from infra.terminal import FoldingTable, command_console
from model.cycle import Cycle
from tasks.verification import SkillRow, skill_rows, verify_cycle

_WHOLE_SIZE = 300_000_000
"""Bytes that a finished demo takes on disk."""

_SHOWN_DAYS = (1, 2, 3, 5, 7, 10)
_SHOWN_FIELDS = {
    "z500": "z500",
    "t850": "t850",
    "u850": "u850",
    "2m_temperature": "2t",
    "mean_sea_level_pressure": "msl",
}
_COLUMNS = ("field", "day", "RMSE", "pers.", "clim.", "ACC", "CRPS", "spread")
_CAPTION = (
    "RMSE of the ensemble mean; of persistence; of climatology. ACC: anomaly correlation. CRPS: fair. "
    "spread: spread over RMSE, 1 is reliable. SI units."
)


def demo(*, output: Path) -> None:
    """Run both bundled models over one cycle, publish, verify, and say where to look.

    Args:
        output: folder for everything that is written; what is done there is not done again.

    Raises:
        StoreError: the folder cannot be written.
        FoldcastError: a stage failed.
    """
    console = command_console()
    output = output.resolve()
    try:
        deliver_analyses(output)
    except OSError as error:
        raise StoreError(f"output folder {output}: cannot be written: {error.strerror}") from None
    _require_room(output)
    settings = demo_settings(output)
    cycles = [Cycle(model=name, init_time=INIT_TIME) for name in (DETERMINISTIC, ENSEMBLE)]
    store = settings.store.open()
    for cycle in cycles:
        forecast_here(cycle, settings, console)
        if not store.exists(layout.verification(cycle)):
            verify_cycle(cycle, settings)
        console.print(skill_table(cycle.model, skill_rows(store, cycle.model, cycles=[cycle])))
    console.print("\nOpen these pages:")
    for cycle in cycles:
        page = f"{read_manifest(store, cycle).prefix}index.html"
        console.print(f"  {cycle.model}: {store.url(page)}", soft_wrap=True)


def _require_room(output: Path) -> None:
    """Refuse a disk that would be full before the demo is done, rather than stop in its middle."""
    written = 0
    for path in output.rglob("*"):
        with suppress(FileNotFoundError):  # a database's own files come and go
            written += path.stat().st_size if path.is_file() else 0
    expected, free = _WHOLE_SIZE - written, shutil.disk_usage(output).free
    if free < expected:
        raise StoreError(
            f"output folder {output}: expected {size_text(expected)} of free space, got {size_text(free)}"
        )


def skill_table(model: str, rows: Sequence[SkillRow]) -> Table:
    """Scores of the main fields at the main lead times; a forecast with skill has an RMSE below both references.

    Args:
        model: name of the model.
        rows: scores of all its fields and lead times in one region.
    """
    table = FoldingTable(title=f"Skill of {model} against the nature run, globally", caption=_CAPTION)
    for column in _COLUMNS:
        table.add_column(column, justify="left" if column == "field" else "right")
    for name in _SHOWN_FIELDS:
        for row in rows:
            if row.field == name and row.lead_days in _SHOWN_DAYS:
                table.add_row(*_cells(row), end_section=row.lead_days == _SHOWN_DAYS[-1])
    return table


def _cells(row: SkillRow) -> tuple[str, ...]:
    def number(value: float, digits: int = 2) -> str:
        return "" if math.isnan(value) else f"{value:.{digits}f}"

    return (
        _SHOWN_FIELDS[row.field],
        f"{row.lead_days:g}",
        number(row.rmse),
        number(row.persistence_rmse),
        number(row.climatology_rmse),
        number(row.acc),
        number(row.crps),
        number(row.spread_skill),
    )
