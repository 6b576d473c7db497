"""The static pages of published cycles: plain HTML that opens from a bucket or from disk, on a phone too.

Nothing is loaded from elsewhere and all links are relative.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class MapSeries:
    """One kind of map over lead times.

    Args:
        title: what it shows.
        images: path relative to the page by lead time in hours.
    """

    title: str
    images: Mapping[int, str]


@dataclass(frozen=True, kw_only=True)
class Plume:
    """A plume at a point: place, quantity and the picture's path relative to the page."""

    place: str
    title: str
    image: str


@dataclass(frozen=True, kw_only=True)
class CheckRow:
    """One product check as shown: its name, ``"passed"``, ``"warning"`` or ``"blocked"``, and the detail."""

    name: str
    state: str
    detail: str = ""

    @property
    def mark(self) -> str:
        """✅ or ❌."""
        return "❌" if self.state == "blocked" else "✅"


@dataclass(frozen=True, kw_only=True)
class CyclePage:
    """What a cycle's page shows.

    Args:
        model: its name.
        init_time: UTC.
        members: how many.
        steps, step_hours: length of the forecast.
        representative_member: global number, or None.
        maps: in the order shown.
        plumes: in the order shown.
        checks: of the products.
        files: (path relative to the page, size in words, what it is).
        documents: (path relative to the page, title) of further pages.
        index: path of the index over cycles, relative to the page.
        simulated: whether the weather is a nature run's.
    """

    model: str
    init_time: datetime
    members: int
    steps: int
    step_hours: int
    representative_member: int | None
    maps: Sequence[MapSeries]
    plumes: Sequence[Plume]
    checks: Sequence[CheckRow]
    files: Sequence[tuple[str, str, str]]
    documents: Sequence[tuple[str, str]] = ()
    index: str = ""
    simulated: bool = False

    def to_html(self) -> str:
        """The page."""
        leads = sorted({lead for series in self.maps for lead in series.images})
        return _render("cycle.html", page=self, leads=leads)


@dataclass(frozen=True, kw_only=True)
class CycleRow:
    """One line of the index: a cycle, its state, and where its page is (relative to the index)."""

    model: str
    init_time: datetime
    state: str
    members: int
    latency: str
    page: str = ""
    picture: str = ""
    reason: str = ""


def index_html(rows: Sequence[CycleRow]) -> str:
    """The index over all cycles, newest first within each model."""
    models: dict[str, list[CycleRow]] = {}
    for row in rows:
        models.setdefault(row.model, []).append(row)
    return _render("index.html", models=models)


def _render(template: str, **context: Any) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**context)
