"""Raw and regridded analyses in the object store: fetched once, read whole or not at all.

Raw files have a manifest that is written last. Regridded fields are one Zarr group; a marker beside it,
written last, carries their checksum. What lacks its manifest or marker does not exist for a reader.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import xarray as xr

from infra import layout
from infra.dataset_checksum import dataset_sha256
from infra.errors import StoreError
from infra.object_store import ObjectStore
from infra.sources.raw_files import files_of
from infra.sources.source import FieldRequest, RawFile, Source


@contextmanager
def raw_folder(store: ObjectStore, source: str, valid_time: datetime) -> Iterator[Path]:
    """A folder of this machine to fetch into: the store's own where it is local, else a temporary one."""
    if store.is_local:
        folder = Path(store.path(layout.raw(source, valid_time, "files")))
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
    else:
        with TemporaryDirectory(prefix="foldcast-raw-") as temporary:
            yield Path(temporary)


def store_raw(store: ObjectStore, source: Source, request: FieldRequest, files: Sequence[RawFile]) -> str:
    """Put fetched files in the store, the manifest last; returns the manifest's key."""
    entries = []
    for file in files:
        prefix = layout.raw(source.name, request.valid_time, f"files/{file.path.name}")
        for path in files_of(file.path):
            inner = "" if path == file.path else f"/{path.relative_to(file.path).as_posix()}"
            if not (store.is_local and path.resolve() == Path(store.path(f"{prefix}{inner}")).resolve()):
                store.write(f"{prefix}{inner}", path.read_bytes())
        entries.append({**asdict(file), "path": prefix})
    key = raw_manifest_key(source.name, request)
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


def raw_manifest_key(source: str, request: FieldRequest) -> str:
    """Key of the manifest of a request's raw files."""
    return layout.raw(source, request.valid_time, f"{request.digest}.json")


@contextmanager
def open_raw(store: ObjectStore, key: str) -> Iterator[tuple[FieldRequest, dict, tuple[RawFile, ...]]]:
    """The request, the manifest and the files (on this machine) under a manifest's key.

    Raises:
        StoreError: there is no manifest, or a file it names is gone or has another length.
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
        yield request, manifest, tuple(files)


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
    """Put regridded fields in the store; returns their sha256.

    Args:
        store: the store.
        key: of the Zarr group; half-written remains of an earlier attempt are replaced.
        dataset: the fields; one chunk for each time (and level).
    """
    store.delete(f"{key}.json")
    store.delete(f"{key}/")
    encoding = {
        name: {"chunks": tuple(1 if dim in ("time", "level") else size for dim, size in array.sizes.items())}
        for name, array in dataset.data_vars.items()
    }
    dataset.to_zarr(store.zarr(key), mode="w", consolidated=False, encoding=encoding)
    sha256 = dataset_sha256(dataset)
    marker = {"sha256": sha256, "variables": sorted(map(str, dataset.data_vars))}
    store.write(f"{key}.json", json.dumps(marker, indent=1).encode())
    return sha256


def has_analysis(store: ObjectStore, key: str) -> bool:
    """Whether regridded fields are there, whole."""
    return store.exists(f"{key}.json")


def analysis_sha256(store: ObjectStore, key: str) -> str:
    """Checksum of regridded fields as written; they are not read.

    Raises:
        StoreError: they are not there.
    """
    return str(json.loads(store.read(f"{key}.json"))["sha256"])


def read_analysis(store: ObjectStore, key: str) -> xr.Dataset:
    """Regridded fields, in memory, compared with their checksum.

    Raises:
        StoreError: they are not there, or are not what was written.
    """
    expected = analysis_sha256(store, key)
    with xr.open_zarr(store.zarr(key, read_only=True), consolidated=False, chunks=None) as opened:
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
