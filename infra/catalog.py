"""The catalogue of published cycles: STAC for programs, an index page for people.

STAC 1.1 (stacspec.org): ``catalog/catalog.json`` links a collection per model, which links an item per cycle.
All links are relative, so the store can be read from disk or under any URL. Documents are built from the
manifests alone; whoever publishes rebuilds them by compare and swap, so the last one to finish has seen every
cycle published before.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Callable
from datetime import UTC, timedelta
from functools import partial
from typing import Any

from infra import layout
from infra.conditional_replace import read_versioned, replace
from infra.cycle_status import list_cycles, published_cycles
from infra.errors import TransientSourceError
from infra.object_store import ObjectStore
from infra.pages import CycleRow, index_html
from infra.publication import RETRY, Manifest

STAC_VERSION = "1.1.0"
FORECAST_EXTENSION = "https://stac-extensions.github.io/forecast/v0.2.0/schema.json"
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


def update_catalog(store: ObjectStore) -> None:
    """Rebuild the catalogue and the index page from what is published now.

    Raises:
        TransientSourceError: the store kept failing, or other publishers came first every time.
    """
    manifests = RETRY.run(lambda: list(published_cycles(store)))
    for manifest in manifests:
        _rebuild(store, layout.catalog_item(manifest.cycle), partial(_dump, stac_item(manifest)))
    for model in sorted({manifest.cycle.model for manifest in manifests}):
        _rebuild(store, layout.catalog_collection(model), partial(_dump_collection, store, model))
    _rebuild(store, layout.catalog(), lambda: _dump(stac_catalog(store)))
    _rebuild(store, layout.catalog("index.html"), lambda: index_page(store).encode())


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


def stac_collection(store: ObjectStore, model: str) -> dict[str, Any]:
    """The STAC collection of a model's cycles."""
    manifests = list(published_cycles(store, model))
    starts = [manifest.cycle.init_time for manifest in manifests]
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
                    "href": posixpath.basename(layout.catalog_item(m.cycle)),
                    "type": "application/geo+json",
                }
                for m in manifests
            ),
        ],
    }


def stac_catalog(store: ObjectStore) -> dict[str, Any]:
    """The root of the catalogue."""
    models = sorted({manifest.cycle.model for manifest in published_cycles(store)})
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
    pages = {manifest.cycle: f"{manifest.prefix}index.html" for manifest in published_cycles(store)}
    key = layout.catalog("index.html")
    rows = []
    for status in list_cycles(store):
        page = pages.get(status.cycle, "")
        hours = "" if status.latency is None else f"{status.latency.total_seconds() / 3600:.1f} h"
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
    return _dump(stac_collection(store, model))


def _dump(document: dict[str, Any]) -> bytes:
    return json.dumps(document, indent=1).encode()
