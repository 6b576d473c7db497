"""Raw and regridded analyses in the object store: fetched once, read whole or not at all.

Raw files have a manifest that is written last. Regridded fields are a Zarr group; a marker, written last, carries
their checksum. What lacks its manifest or marker does not exist for a reader.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import xarray as xr

from infra import layout
from infra.dataset_checksum import dataset_sha256
from infra.errors import StoreError, TransientSourceError
from infra.object_store import ObjectStore
from infra.sources.raw_files import checksums_of, files_of
from infra.sources.source import FieldRequest, RawFile, Source, source_fingerprint


@contextmanager
def raw_folder(store: ObjectStore, source: Source, valid_time: datetime) -> Iterator[Path]:
    """A folder of this machine to fetch into: the store's own where it is local, else a temporary one."""
    if store.is_local:
        folder = Path(store.path(_raw_files(source, valid_time)))
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
    else:
        with TemporaryDirectory(prefix="foldcast-raw-") as temporary:
            yield Path(temporary)


def store_raw(store: ObjectStore, source: Source, request: FieldRequest, files: Sequence[RawFile]) -> str:
    """Put fetched files in the store, the manifest last; returns the manifest's key."""
    entries = []
    for file in files:
        prefix = f"{_raw_files(source, request.valid_time)}/{file.path.name}"
        for path in files_of(file.path):
            inner = "" if path == file.path else f"/{path.relative_to(file.path).as_posix()}"
            if not (store.is_local and path.resolve() == Path(store.path(f"{prefix}{inner}")).resolve()):
                store.write(f"{prefix}{inner}", path.read_bytes())
        entries.append({**asdict(file), "path": prefix})
    key = raw_manifest_key(source, request)
    manifest = {
        "source": source.name,
        "kind": source.kind,
        "request": {
            "valid_time": request.valid_time.isoformat(),
            "variables": request.variables,
            "levels": request.levels,
        },
        "files": entries,
    }
    store.write(key, json.dumps(manifest, indent=1).encode())
    return key


def raw_manifest_key(source: Source, request: FieldRequest) -> str:
    """Key of the manifest of a request's raw files; another configuration of the source has another one."""
    return layout.raw(source.name, request.valid_time, f"{request.digest}-{source_fingerprint(source)}.json")


def _raw_files(source: Source, valid_time: datetime) -> str:
    return layout.raw(source.name, valid_time, f"files-{source_fingerprint(source)}")


@contextmanager
def open_raw(store: ObjectStore, key: str) -> Iterator[tuple[FieldRequest, dict, tuple[RawFile, ...]]]:
    """The request, the manifest and the files (on this machine) under a manifest's key.

    Raises:
        StoreError: there is no manifest, or a file it names is gone or has another length.
        TransientSourceError: a file is not what was fetched; it and the manifest were removed, so that the next
            attempt fetches it again.
    """
    manifest = json.loads(store.read(key))
    request = FieldRequest(
        valid_time=datetime.fromisoformat(manifest["request"]["valid_time"]),
        variables=tuple(manifest["request"]["variables"]),
        levels=tuple(manifest["request"]["levels"]),
    )
    with TemporaryDirectory(prefix="foldcast-raw-") as temporary:
        files = []
        for entry in manifest["files"]:
            path = (
                Path(store.path(entry["path"]))
                if store.is_local
                else Path(temporary, Path(entry["path"]).name)
            )
            if not store.is_local:
                _download(store, entry["path"], path)
            files.append(RawFile(**{**entry, "path": path, "sha256": tuple(entry["sha256"])}))
            size = sum(each.stat().st_size for each in files_of(path))
            if size != entry["size"]:
                raise StoreError(f"{store.url(entry['path'])}: expected {entry['size']} bytes, got {size}")
            if checksums_of(path, entry["format"]) != tuple(entry["sha256"]):
                drop_raw(store, key)
                raise TransientSourceError(
                    f"{store.url(entry['path'])}: expected the bytes that were fetched, got others of that length; "
                    "removed, to be fetched again"
                )
        yield request, manifest, tuple(files)


def drop_raw(store: ObjectStore, key: str) -> None:
    """Remove a request's raw files and, before them, their manifest; nothing there is no error."""
    if not store.exists(key):
        return
    entries = json.loads(store.read(key))["files"]
    store.delete(key)
    for entry in entries:
        store.delete(f"{entry['path']}/" if entry["format"] == "zarr" else entry["path"])


def has_raw(store: ObjectStore, key: str) -> bool:
    """Whether a manifest is there and so are the files it names, in full length."""
    if not store.exists(key):
        return False
    entries = json.loads(store.read(key))["files"]
    if not store.is_local:
        return True  # objects are put whole, before the manifest
    return all(
        sum(each.stat().st_size for each in files_of(Path(store.path(entry["path"])))) == entry["size"]
        for entry in entries
    )


def write_analysis(store: ObjectStore, key: str, dataset: xr.Dataset) -> str:
    """Put fields that only one run works on in the store; returns their sha256.

    Args:
        store: the store.
        key: of the Zarr group; what is there, half-written or whole, is replaced.
        dataset: the fields; one chunk for each time (and level).
    """
    store.delete(f"{key}.json")
    store.delete(f"{key}/")
    marker = _write_group(store, key, dataset)
    store.write(f"{key}.json", json.dumps(marker, indent=1).encode())
    return str(marker["sha256"])


def write_shared_analysis(store: ObjectStore, key: str, dataset: xr.Dataset) -> None:
    """Put fields in the store that several runs may make at once; whoever completes them first is the author.

    Each writer has a Zarr group of its own below the key, and the marker names the author's: nobody's fields are
    touched while others read them.

    Args:
        store: the store.
        key: of the fields; if they are there already, nothing changes.
        dataset: the fields.
    """
    group = f"{key}/{uuid.uuid4().hex[:12]}"
    marker = {**_write_group(store, group, dataset), "group": group}
    first = store.create(f"{key}.json", json.dumps(marker, indent=1).encode())
    if (
        not first and _marker(store, key).get("group") != group
    ):  # another writer's, not an answer that was lost
        store.delete(f"{group}/")


def drop_analysis(store: ObjectStore, key: str) -> None:
    """Remove fields, their marker first; nothing there is no error."""
    store.delete(f"{key}.json")
    store.delete(f"{key}/")


def _write_group(store: ObjectStore, group: str, dataset: xr.Dataset) -> dict[str, Any]:
    encoding = {
        name: {"chunks": tuple(1 if dim in ("time", "level") else size for dim, size in array.sizes.items())}
        for name, array in dataset.data_vars.items()
    }
    dataset.to_zarr(store.zarr(group), mode="w", consolidated=False, encoding=encoding)
    return {"sha256": dataset_sha256(dataset), "variables": sorted(map(str, dataset.data_vars))}


def _marker(store: ObjectStore, key: str) -> dict[str, Any]:
    return dict(json.loads(store.read(f"{key}.json")))


def has_analysis(store: ObjectStore, key: str) -> bool:
    """Whether regridded fields are there, whole."""
    return store.exists(f"{key}.json")


def analysis_sha256(store: ObjectStore, key: str) -> str:
    """Checksum of regridded fields as written; they are not read.

    Raises:
        StoreError: they are not there.
    """
    return str(_marker(store, key)["sha256"])


def read_analysis(store: ObjectStore, key: str) -> xr.Dataset:
    """Regridded fields, in memory, compared with their checksum.

    Raises:
        StoreError: they are not there, or are not what was written.
    """
    marker = _marker(store, key)
    expected, group = marker["sha256"], marker.get("group", key)
    with xr.open_zarr(store.zarr(group, read_only=True), consolidated=False, chunks=None) as opened:
        dataset = opened.load()
    got = dataset_sha256(dataset)
    if got != expected:
        raise StoreError(f"{store.url(key)}: expected fields of sha256 {expected}, got {got}")
    return dataset


def _download(store: ObjectStore, prefix: str, path: Path) -> None:
    inner = list(store.list(f"{prefix}/"))
    for key in inner or [prefix]:
        target = path / key[len(prefix) + 1 :] if inner else path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(store.read(key))
