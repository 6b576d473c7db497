"""The catalogue of published cycles: STAC for programs, an index page for people.

STAC 1.1 (stacspec.org): ``catalog/catalog.json`` links a collection per model, which links an item per cycle.
All links are relative, so the store can be read from disk or under any URL. What the documents need of each
cycle is kept in one list, ``catalog/cycles.json``, so that publishing a cycle reads that cycle's manifest and the
list, however many cycles there are. List and documents are replaced by compare and swap; the last publisher to
finish has seen every cycle listed before.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from infra import layout
from infra.conditional_replace import read_versioned, replace, update
from infra.cycle_status import CycleStatus, list_cycles, readable_manifest, stored_cycles
from infra.errors import TransientSourceError
from infra.object_store import ObjectStore
from infra.pages import CycleRow, index_html
from infra.publication import RETRY, Manifest
from model.cycle import Cycle, parse_init_time

STAC_VERSION = "1.1.0"
FORECAST_EXTENSION = "https://stac-extensions.github.io/forecast/v0.2.0/schema.json"
_LIST = "cycles.json"
_FORMAT = 1
_ATTEMPTS = 50
_WORLD = [-180.0, -90.0, 180.0, 90.0]
_WORLD_POLYGON = {
    "type": "Polygon",
    "coordinates": [[[-180, -90], [180, -90], [180, 90], [-180, 90], [-180, -90]]],
}
_ASSETS = {
    "index.html": ("text/html", ["overview"], "Page of the cycle"),
    "ensemble.zarr/zarr.json": ("application/vnd.zarr; version=3", ["data"], "Ensemble products (Zarr v3)"),
    "representative_member.zarr/zarr.json": (
        "application/vnd.zarr; version=3",
        ["data"],
        "Most representative member (Zarr v3)",
    ),
    "points.nc": ("application/x-netcdf", ["data"], "Members at named points"),
}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What the catalogue keeps of a published cycle.

    Args:
        model, init_time: its cycle.
        members: how many.
        published_at: ISO 8601, UTC.
        page: key of its page.
        simulated: whether its weather is a nature run's.
    """

    model: str
    init_time: str
    members: int
    published_at: str
    page: str
    simulated: bool = False

    @property
    def cycle(self) -> Cycle:
        """Which cycle it is."""
        return Cycle(model=self.model, init_time=parse_init_time(self.init_time))

    @property
    def status(self) -> CycleStatus:
        """As the list of all cycles shows it."""
        return CycleStatus(
            cycle=self.cycle,
            state="published",
            members=self.members,
            published_at=datetime.fromisoformat(self.published_at),
            simulated=self.simulated,
        )

    @classmethod
    def of(cls, manifest: Manifest) -> Entry:
        """The entry of a published cycle."""
        return cls(
            model=manifest.cycle.model,
            init_time=manifest.cycle.identifier,
            members=len(manifest.members),
            published_at=manifest.published_at.astimezone(UTC).isoformat(timespec="seconds"),
            page=f"{manifest.prefix}index.html",
            simulated=manifest.simulated,
        )


def update_catalog(store: ObjectStore, changed: Collection[Cycle] | None = None) -> None:
    """Bring the catalogue and the index page up to date.

    Cycles that appeared or went unnoticed, because a publisher died, are found by listing their folders. A
    cycle whose manifest cannot be read is left out.

    Args:
        store: where.
        changed: the cycles whose manifests are read, beside those not listed yet; None reads all.

    Raises:
        TransientSourceError: the store kept failing, or other publishers came first every time.
    """
    read: dict[Cycle, Manifest | None] = {}
    models: set[str] = set()

    def change(current: bytes | None) -> bytes:
        known = _parse(current)
        present = set(stored_cycles(store))
        for cycle in present - set(known) | set(
            present if changed is None else present.intersection(changed)
        ):
            if cycle not in read:
                read[cycle] = RETRY.run(partial(readable_manifest, store, cycle))
        found = {cycle: entry for cycle, entry in known.items() if cycle in present}
        for cycle, manifest in read.items():
            if manifest is not None:
                found[cycle] = Entry.of(manifest)
            else:
                found.pop(cycle, None)
        entries = sorted(found.values(), key=lambda entry: (entry.model, entry.cycle.init_time))
        models.update(entry.model for entry in (*known.values(), *entries))
        return _dump({"format": _FORMAT, "cycles": [asdict(entry) for entry in entries]})

    RETRY.run(
        lambda: change(read_versioned(store, layout.catalog(_LIST)).data)
    )  # to know which items to write
    for manifest in filter(None, read.values()):
        _rebuild(store, layout.catalog_item(manifest.cycle), partial(_dump, stac_item(manifest)))
    RETRY.run(lambda: update(store, layout.catalog(_LIST), change))
    for model in sorted(models):
        _rebuild(store, layout.catalog_collection(model), partial(_dump_collection, store, model))
    _rebuild(store, layout.catalog(), lambda: _dump(stac_catalog(catalog_entries(store))))
    _rebuild(store, layout.catalog("index.html"), lambda: index_page(store).encode())


def catalog_entries(store: ObjectStore) -> list[Entry]:
    """All cycles in the catalogue, by model and ascending init_time."""
    data = RETRY.run(lambda: read_versioned(store, layout.catalog(_LIST)).data)
    return list(_parse(data).values())


def stac_item(manifest: Manifest) -> dict[str, Any]:
    """The STAC item of a cycle; asset links are relative to it."""
    key = layout.catalog_item(manifest.cycle)
    start = manifest.cycle.init_time
    end = start + timedelta(hours=manifest.steps * manifest.step_hours)
    assets = {
        name.split("/")[0].replace(".", "-"): {
            "href": _relative(key, f"{manifest.prefix}{name.removesuffix('/zarr.json')}"),
            "type": media,
            "roles": roles,
            "title": title,
        }
        for name, (media, roles, title) in _ASSETS.items()
        if name in manifest.files
    }
    assets["manifest"] = {
        "href": _relative(key, layout.cycle_manifest(manifest.cycle)),
        "type": "application/json",
        "roles": ["metadata"],
        "title": "Manifest with the checksum of every object",
    }
    return {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": [FORECAST_EXTENSION],
        "id": f"{manifest.cycle.model}-{manifest.cycle.identifier}",
        "collection": manifest.cycle.model,
        "geometry": _WORLD_POLYGON,
        "bbox": _WORLD,
        "properties": {
            "datetime": _iso(start),
            "start_datetime": _iso(start),
            "end_datetime": _iso(end),
            "created": _iso(manifest.published_at),
            "forecast:reference_datetime": _iso(start),
            "forecast:horizon": f"PT{manifest.steps * manifest.step_hours}H",
            "foldcast:run": manifest.run,
            "foldcast:members": len(manifest.members),
        },
        "assets": assets,
        "links": [
            {"rel": "root", "href": "../catalog.json", "type": "application/json"},
            {"rel": "parent", "href": "collection.json", "type": "application/json"},
            {"rel": "collection", "href": "collection.json", "type": "application/json"},
        ],
    }


def stac_collection(model: str, entries: Sequence[Entry]) -> dict[str, Any]:
    """The STAC collection of a model's cycles."""
    own = [entry.cycle for entry in entries if entry.model == model]
    starts = [cycle.init_time for cycle in own]
    interval = [_iso(min(starts)), _iso(max(starts))] if starts else [None, None]
    return {
        "type": "Collection",
        "stac_version": STAC_VERSION,
        "id": model,
        "title": f"Forecasts of {model}",
        "description": f"Ensemble forecast cycles of the model {model}, each verified before publication.",
        "license": "other",
        "extent": {"spatial": {"bbox": [_WORLD]}, "temporal": {"interval": [interval]}},
        "links": [
            {"rel": "root", "href": "../catalog.json", "type": "application/json"},
            {"rel": "parent", "href": "../catalog.json", "type": "application/json"},
            *(
                {
                    "rel": "item",
                    "href": posixpath.basename(layout.catalog_item(cycle)),
                    "type": "application/geo+json",
                }
                for cycle in own
            ),
        ],
    }


def stac_catalog(entries: Sequence[Entry]) -> dict[str, Any]:
    """The root of the catalogue."""
    models = sorted({entry.model for entry in entries})
    return {
        "type": "Catalog",
        "stac_version": STAC_VERSION,
        "id": "foldcast",
        "title": "Foldcast forecasts",
        "description": "Machine-learned ensemble weather forecasts.",
        "links": [
            {"rel": "root", "href": "catalog.json", "type": "application/json"},
            *(
                {"rel": "child", "href": f"{model}/collection.json", "type": "application/json"}
                for model in models
            ),
        ],
    }


def index_page(store: ObjectStore) -> str:
    """The index over all cycles as HTML."""
    entries = catalog_entries(store)
    pages = {entry.cycle: entry.page for entry in entries}
    key = layout.catalog("index.html")
    rows = []
    for status in list_cycles(store, published=[entry.status for entry in entries]):
        page = pages.get(status.cycle, "")
        hours = "" if status.published_at is None else "–"
        if status.latency is not None:
            hours = f"{status.latency.total_seconds() / 3600:.1f} h"
        rows.append(
            CycleRow(
                model=status.cycle.model,
                init_time=status.cycle.init_time,
                state=status.state,
                members=status.members,
                latency=hours,
                page=_relative(key, page) if page else "",
                reason=status.reasons[0] if status.reasons else "",
            )
        )
    return index_html(rows)


def _rebuild(store: ObjectStore, key: str, build: Callable[[], bytes]) -> None:
    """Replace a document by one built after its present state was seen."""

    def once() -> bool:
        before = read_versioned(store, key)
        data = build()
        return data == before.data or replace(store, key, data, expected=before)

    for _ in range(_ATTEMPTS):
        if RETRY.run(once):
            return
    raise TransientSourceError(f"{store.url(key)}: other publishers came first {_ATTEMPTS} times")


def _relative(source: str, target: str) -> str:
    return posixpath.relpath(target, posixpath.dirname(source))


def _iso(time: Any) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _dump_collection(store: ObjectStore, model: str) -> bytes:
    return _dump(stac_collection(model, catalog_entries(store)))


def _parse(data: bytes | None) -> dict[Cycle, Entry]:
    """The list of cycles; empty, to be made anew, if it is absent, damaged or of another format."""
    try:
        document = json.loads(data or b"{}")
        if document.get("format") != _FORMAT:
            return {}
        entries = [Entry(**entry) for entry in document["cycles"]]
        return {entry.cycle: entry for entry in entries}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _dump(document: dict[str, Any]) -> bytes:
    return json.dumps(document, indent=1).encode()
