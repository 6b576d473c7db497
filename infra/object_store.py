"""Bytes under keys below one root, on any fsspec file system, with the guarantees publication rests on.

* ``write`` replaces a whole object or leaves the old one: never a part of it.
* ``create`` is a conditional put: of several writers exactly one succeeds.

Local folders write under a temporary name and rename or link; S3 and compatible stores put whole objects
and use ``If-None-Match: *`` for ``create``.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import fsspec
import zarr.storage
from fsspec.implementations.local import LocalFileSystem
from zarr.abc.store import Store

import infra.s3_upload
from infra.conditional_replace import LOCK_PREFIX, create_remote
from infra.store_errors import translated

TEMPORARY_PREFIX = ".writing-"
"""Names of what is being written begin so; no listing shows them."""

_PIECE = 8 << 20


@dataclass(frozen=True, kw_only=True)
class ObjectStore:
    """A root URL and the options its file system needs.

    Args:
        root: local path or fsspec URL (``s3://bucket/prefix``, ``gs://…``).
        options: fsspec storage options, e.g. ``{"endpoint_url": …}``; may hold secrets, so it is not shown.
        findings: what was found out about the server behind, so that it is found out once.
    """

    root: str
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    findings: dict[str, bool] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def _resolved(self) -> tuple[fsspec.AbstractFileSystem, str]:
        filesystem, path = fsspec.core.url_to_fs(self.root, **self.options)
        return filesystem, path.rstrip("/")

    @property
    def filesystem(self) -> fsspec.AbstractFileSystem:
        """The fsspec file system under the root."""
        return self._resolved[0]

    @property
    def is_local(self) -> bool:
        """Whether the root is a folder of this machine."""
        return isinstance(self.filesystem, LocalFileSystem)

    @property
    def protocols(self) -> frozenset[str]:
        """Names of the file system's protocol, e.g. ``s3``."""
        named = self.filesystem.protocol
        return frozenset({named} if isinstance(named, str) else named)

    @contextmanager
    def scratch(self, purpose: str) -> Iterator[Path]:
        """An empty folder of this machine, removed afterwards; beside the objects if they lie in a folder.

        Files made there can become objects without being copied. No listing shows them.
        """
        beside = None
        if self.is_local:
            beside = Path(self._resolved[1])
            beside.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{TEMPORARY_PREFIX}{purpose}-", dir=beside) as folder:
            yield Path(folder)

    def remove_abandoned(self, *, age: timedelta, now: datetime) -> list[str]:
        """Remove scratch folders of processes that were killed, last written longer ago than that; their names."""
        if not self.is_local:
            return []
        found = []
        for folder in sorted(Path(self._resolved[1]).glob(f"{TEMPORARY_PREFIX}*")):
            if now - datetime.fromtimestamp(folder.stat().st_mtime, UTC) > age:
                shutil.rmtree(folder, ignore_errors=True)
                found.append(folder.name)
        return found

    def path(self, key: str) -> str:
        """The file system's own path of a key."""
        if key.startswith("/") or ".." in key.split("/"):
            raise ValueError(f"key: expected a relative path without '..', got {key!r}")
        return f"{self._resolved[1]}/{key}"

    def url(self, key: str) -> str:
        """Full URL of a key, for people and for other programs."""
        return self.filesystem.unstrip_protocol(self.path(key)) if not self.is_local else self.path(key)

    def read(self, key: str) -> bytes:
        """An object's bytes.

        Raises:
            StoreError: there is no such object.
            TransientSourceError: the store failed in a way that may pass.
        """
        with translated(f"read {self.url(key)}"):
            return self.filesystem.cat_file(self.path(key))

    def exists(self, key: str) -> bool:
        """Whether the object exists now (no listing cache is consulted)."""
        with translated(f"look up {self.url(key)}"):
            self.filesystem.invalidate_cache()
            return self.filesystem.exists(self.path(key))

    def modified(self, key: str) -> datetime:
        """When the object was last written, by the store's clock, in UTC.

        Raises:
            StoreError: there is no such object.
            TransientSourceError: the store failed in a way that may pass.
        """
        with translated(f"look up {self.url(key)}"):
            self.filesystem.invalidate_cache()
            return self.filesystem.modified(self.path(key)).astimezone(UTC)

    @contextmanager
    def reading(self, key: str) -> Iterator[tuple[int, Iterator[bytes]]]:
        """An object's size, and its bytes in pieces that fit in memory however large it is.

        Raises:
            StoreError: there is no such object.
            TransientSourceError: the store failed in a way that may pass.
        """
        with (
            translated(f"read {self.url(key)}"),
            self._open(key) as file,
        ):
            yield int(file.size), iter(partial(file.read, _PIECE), b"")

    def write(self, key: str, data: bytes) -> str:
        """Put a whole object, replacing any; returns its sha256 in hex."""
        with translated(f"write {self.url(key)}"):
            if self.is_local:
                temporary = self._write_temporary(key, data)
                try:
                    os.replace(temporary, self.path(key))
                finally:
                    temporary.unlink(missing_ok=True)
            else:
                self.filesystem.pipe_file(self.path(key), data)
        return hashlib.sha256(data).hexdigest()

    def create(self, key: str, data: bytes) -> bool:
        """Put an object only if none is there; False, and nothing changed, if there is one.

        After an attempt whose answer was lost, a repeated ``create`` returns False though the object is this
        writer's: who needs to know reads it.
        """
        with translated(f"create {self.url(key)}"):
            if not self.is_local:
                return create_remote(self, key, data)
            temporary = self._write_temporary(key, data)
            try:
                os.link(temporary, self.path(key))
            except FileExistsError:
                return False
            finally:
                temporary.unlink(missing_ok=True)
            return True

    def upload(self, path: Path, key: str) -> None:
        """Put a local file as a whole object, replacing any; large files go in parts, not through memory."""
        with translated(f"write {self.url(key)}"):
            if not self.is_local:
                parts = {"chunksize": infra.s3_upload.PART} if "s3" in self.protocols else {}
                self.filesystem.put_file(str(path), self.path(key), **parts)
                return
            target = Path(self.path(key))
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}")
            try:
                shutil.copyfile(path, temporary)
                os.replace(temporary, target)
            finally:
                temporary.unlink(missing_ok=True)

    def holds(self, key: str, path: Path) -> bool:
        """Whether the bytes stored now are those of a local file, compared in pieces."""
        with (
            translated(f"read {self.url(key)}"),
            open(path, "rb") as expected,
            self._open(key) as stored,
        ):
            while True:
                piece = stored.read(_PIECE)
                if piece != expected.read(len(piece) or 1):
                    return False
                if not piece:
                    return True

    def digest(self, key: str) -> tuple[str, int]:
        """sha256 in hex and size of the bytes stored now, read in pieces."""
        found, size = hashlib.sha256(), 0
        with (
            translated(f"read {self.url(key)}"),
            self._open(key) as file,
        ):
            while piece := file.read(_PIECE):
                found.update(piece)
                size += len(piece)
        return found.hexdigest(), size

    def list(self, prefix: str) -> Iterator[str]:
        """Keys of all objects below a prefix (which ends with ``/``), in order."""
        with translated(f"list {self.url(prefix)}"):
            self.filesystem.invalidate_cache()
            base = len(self._resolved[1]) + 1
            found = self.filesystem.find(self.path(prefix))
        for path in sorted(found):
            key = path[base:]
            if not any(part.startswith((TEMPORARY_PREFIX, LOCK_PREFIX)) for part in key.split("/")):
                yield key

    def sizes(self, prefix: str) -> dict[str, int]:
        """Size in bytes of all objects below a prefix (which ends with ``/``), by key."""
        with translated(f"list {self.url(prefix)}"):
            self.filesystem.invalidate_cache()
            base = len(self._resolved[1]) + 1
            found = self.filesystem.find(self.path(prefix), detail=True)
        return {path[base:]: int(info["size"]) for path, info in found.items()}

    def folders(self, prefix: str) -> Sequence[str]:
        """Names directly below a prefix (which ends with ``/``) that are prefixes themselves, in order."""
        with translated(f"list {self.url(prefix)}"):
            self.filesystem.invalidate_cache()
            try:
                found = self.filesystem.ls(self.path(prefix).rstrip("/"), detail=True)
            except FileNotFoundError:
                return []
        names = (Path(entry["name"]).name for entry in found if entry["type"] == "directory")
        return sorted(name for name in names if not name.startswith(TEMPORARY_PREFIX))

    def delete(self, prefix: str) -> None:
        """Remove an object, or everything below a prefix ending with ``/``; nothing there is no error."""
        with translated(f"delete {self.url(prefix)}"):
            self.filesystem.invalidate_cache()
            path = self.path(prefix).rstrip("/")
            if self.filesystem.exists(path):
                self.filesystem.rm(path, recursive=prefix.endswith("/"))

    def zarr(self, key: str, *, read_only: bool = False) -> Store:
        """A Zarr v3 store at a key."""
        if self.is_local:
            return zarr.storage.LocalStore(self.path(key), read_only=read_only)
        return zarr.storage.FsspecStore.from_url(
            self.url(key), storage_options={**self.options}, read_only=read_only
        )

    def _open(self, key: str) -> Any:
        """A file to read in pieces; size and version are asked of the store, not of an old listing."""
        self.filesystem.invalidate_cache()
        return self.filesystem.open(self.path(key), "rb", block_size=_PIECE, cache_type="none")

    def _write_temporary(self, key: str, data: bytes) -> Path:
        target = Path(self.path(key))
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}")
        try:
            with open(temporary, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return temporary
