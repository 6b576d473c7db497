"""Compare and swap on one object: replace it only if it is still what was read.

This is what keeps a pointer such as ``latest.json`` from going backwards when two publishers finish together.

* S3 and compatible: ``If-Match`` with the ETag that was read, ``If-None-Match: *`` for an absent object.
* Google Cloud Storage: ``ifGenerationMatch`` with the generation that was read.
* Local folders: an advisory lock on a file beside it, held from the comparison to the atomic rename.
* fsspec's memory store, which lives in one process: that process's lock.
"""

from __future__ import annotations

import fcntl
import hashlib
import threading
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from infra.errors import StoreError, TransientSourceError
from infra.store_errors import translated

if TYPE_CHECKING:
    from infra.object_store import ObjectStore

LOCK_PREFIX = ".lock-"
_MEMORY = threading.Lock()
_READS = 5
_UPDATES = 50


@dataclass(frozen=True, kw_only=True)
class Versioned:
    """An object as it was at one moment.

    Args:
        data: its bytes; None if there was no object.
        version: what the store calls this state: an ETag, a generation, a checksum; empty if there was none.
    """

    data: bytes | None
    version: str


def read_versioned(store: ObjectStore, key: str) -> Versioned:
    """An object with the version its bytes belong to.

    Raises:
        TransientSourceError: the store failed in a way that may pass, or the object changed at every look.
    """
    if store.is_local:
        try:
            data = Path(store.path(key)).read_bytes()
        except FileNotFoundError:
            return Versioned(data=None, version="")
        return Versioned(data=data, version=hashlib.sha256(data).hexdigest())
    for _ in range(_READS):  # the bytes belong to the version if it is the same before and after
        before = _version(store, key)
        if not before:
            return Versioned(data=None, version="")
        try:
            data = store.read(key)
        except StoreError:
            continue
        if _version(store, key) == before:
            return Versioned(data=data, version=before)
    raise TransientSourceError(f"read {store.url(key)}: it changed during each of {_READS} reads")


def replace(store: ObjectStore, key: str, data: bytes, *, expected: Versioned) -> bool:
    """Put an object only if it is still in the expected state; False, and nothing changed, if it is not.

    Raises:
        StoreError: the store knows no conditional replacement.
        TransientSourceError: the store failed in a way that may pass; it may have replaced the object or not.
    """
    if store.is_local:
        return _replace_local(store, key, data, expected)
    if not expected.version:
        return store.create(key, data)
    with translated(f"replace {store.url(key)}"):
        try:
            if "s3" in store.protocols:
                store.filesystem.pipe_file(store.path(key), data, IfMatch=expected.version)
            elif "gs" in store.protocols:
                _replace_on_google(store, key, data, expected.version)
            elif "memory" in store.protocols:
                return _replace_in_memory(store, key, data, expected)
            else:
                raise StoreError(
                    f"{store.root}: expected a local folder, S3 or GCS, got {sorted(store.protocols)}"
                )
        except FileNotFoundError:
            return False
        except OSError as error:
            if precondition_failed(error):
                return False
            raise
    return True


def create_remote(store: ObjectStore, key: str, data: bytes) -> bool:
    """Put an object only if none is there, by the server's own condition; False if there is one."""
    with _MEMORY if "memory" in store.protocols else nullcontext():
        try:
            store.filesystem.pipe_file(store.path(key), data, mode="create")
        except OSError as error:
            if precondition_failed(error):
                return False
            raise
    return True


def update(store: ObjectStore, key: str, change: Callable[[bytes | None], bytes | None]) -> bytes | None:
    """Apply a change to an object, again and again until no other writer came between.

    Args:
        store: where.
        key: the object.
        change: from the current bytes (None: no object) to the new ones; None leaves it as it is. It may be
            called several times.

    Returns:
        The bytes that lie there as far as this writer knows: its own, or those it left.

    Raises:
        TransientSourceError: other writers came between every time.
    """
    for _ in range(_UPDATES):
        current = read_versioned(store, key)
        new = change(current.data)
        if new is None or new == current.data:
            return current.data
        if replace(store, key, new, expected=current):
            return new
    raise TransientSourceError(f"replace {store.url(key)}: another writer came first {_UPDATES} times")


def precondition_failed(error: BaseException) -> bool:
    """Whether a conditional put was refused because its condition did not hold."""
    if isinstance(error, FileExistsError):
        return True
    response = getattr(error.__cause__, "response", None)
    code = str(response.get("Error", {}).get("Code")) if isinstance(response, Mapping) else ""
    return code in {"PreconditionFailed", "412"} or getattr(error, "code", None) in {412, "412"}


def _version(store: ObjectStore, key: str) -> str:
    """The current version without any cache; empty if there is no object."""
    with translated(f"look up {store.url(key)}"):
        store.filesystem.invalidate_cache()
        try:
            info = store.filesystem.info(store.path(key))
        except FileNotFoundError:
            return ""
        if info.get("type") != "file":
            return ""
        if "memory" in store.protocols:
            return hashlib.sha256(store.filesystem.cat_file(store.path(key))).hexdigest()
    return str(info.get("generation") or info.get("ETag") or "")


def _replace_local(store: ObjectStore, key: str, data: bytes, expected: Versioned) -> bool:
    path = Path(store.path(key))
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(f"{LOCK_PREFIX}{path.name}"), "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if read_versioned(store, key).version != expected.version:
            return False
        store.write(key, data)
    return True


def _replace_in_memory(store: ObjectStore, key: str, data: bytes, expected: Versioned) -> bool:
    with _MEMORY:
        if _version(store, key) != expected.version:
            return False
        store.filesystem.pipe_file(store.path(key), data)
    return True


def _replace_on_google(store: ObjectStore, key: str, data: bytes, generation: str) -> None:
    filesystem = store.filesystem
    bucket, name, _ = filesystem.split_path(store.path(key))
    filesystem.call(
        "POST",
        f"{filesystem._location}/upload/storage/v1/b/{quote(bucket)}/o",
        uploadType="media",
        name=name,
        ifGenerationMatch=generation,
        headers={"Content-Type": "application/octet-stream"},
        data=data,
        json_out=True,
    )
