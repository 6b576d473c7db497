"""What a published cycle is held against: the same cycle, run in one process without anything happening to it."""

from __future__ import annotations

from collections.abc import Mapping

from flows.forecast import run_cycle
from infra import layout
from infra.manifests import load_member_manifest
from infra.object_store import ObjectStore
from infra.publication import FileRecord, Manifest
from infra.settings import Settings


def different_cycles(published: list[Manifest], store: ObjectStore, quiet: Settings) -> list[str]:
    """Cycles whose members or product files are not those of a run in this process, by checksum.

    Args:
        published: manifests of the cycles.
        store: where they lie.
        quiet: settings with an empty store of their own.
    """
    different = []
    for manifest in published:
        run_cycle(manifest.cycle, quiet)
        undisturbed = quiet.store.open()
        files = Manifest.from_json(undisturbed.read(layout.cycle_manifest(manifest.cycle))).files
        if not (_same_members(manifest, store, undisturbed) and same_files(manifest.files, files)):
            different.append(manifest.cycle.identifier)
    return different


def _same_members(manifest: Manifest, store: ObjectStore, undisturbed: ObjectStore) -> bool:
    for member in manifest.members:
        got = load_member_manifest(store, manifest.cycle, manifest.run, member)
        want = load_member_manifest(undisturbed, manifest.cycle, manifest.run, member)
        if got is None or want is None or got.chunks != want.chunks:
            return False
    return True


def same_files(one: Mapping[str, FileRecord], other: Mapping[str, FileRecord]) -> bool:
    """Whether two publications have files of the same names, and the same data in them.

    Pages, Data Docs and reports tell times; the Data Docs by their names too.
    """
    if {name for name in one if _is_named_alike(name)} != {name for name in other if _is_named_alike(name)}:
        return False
    first, second = (
        {name: r.sha256 for name, r in files.items() if _is_data(name)} for files in (one, other)
    )
    return bool(first) and first == second


def _is_named_alike(name: str) -> bool:
    return not name.startswith("checks/docs/")


def _is_data(name: str) -> bool:
    return (not name.startswith("checks/") and name.endswith((".png", ".nc", ".grib2"))) or ".zarr/" in name
