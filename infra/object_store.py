"""Bytes under keys below one root, on any fsspec file system, with the guarantees publication rests on.

* ``write`` replaces a whole object or leaves the old one: never a part of it.
* ``create`` is a conditional put: of several writers exactly one succeeds.

Local folders write under a temporary name and rename or link; S3 and compatible stores put whole objects
and use ``If-None-Match: *`` for ``create``.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import fsspec
import zarr.storage
from fsspec.implementations.local import LocalFileSystem
from zarr.abc.store import Store

from infra.errors import StoreError, TransientSourceError

_TEMPORARY_PREFIX = ".writing-"
LOCK_PREFIX = ".lock-"
_PIECE = 8 << 20
_PERMANENT_ERRNOS = {errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR}
_CONNECTION_ERRORS = frozenset(
    {
        "botocore.FlexibleChecksumError",
        "botocore.HTTPClientError",
        "botocore.IncompleteReadError",
        "botocore.ResponseParserError",  # an answer that was cut
        "aiohttp.ClientError",
        "gcsfs.HttpError",
    }
)


@dataclass(frozen=True, kw_only=True)
class ObjectStore:
    """A root URL and the options its file system needs.

    Args:
        root: local path or fsspec URL (``s3://bucket/prefix``, ``gs://…``).
        options: fsspec storage options, e.g. ``{"endpoint_url": …}``; may hold secrets, so it is not shown.
    """

    root: str
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)

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
                try:
                    self.filesystem.pipe_file(self.path(key), data, mode="create")
                except OSError as error:
                    if precondition_failed(error):
                        return False
                    raise
                return True
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
                self.filesystem.put_file(str(path), self.path(key))
                return
            target = Path(self.path(key))
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.with_name(f"{_TEMPORARY_PREFIX}{uuid.uuid4().hex}")
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
            self.filesystem.open(self.path(key), "rb", block_size=_PIECE, cache_type="none") as stored,
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
            self.filesystem.open(self.path(key), "rb", block_size=_PIECE, cache_type="none") as file,
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
            if not Path(path).name.startswith((_TEMPORARY_PREFIX, LOCK_PREFIX)):
                yield path[base:]

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
        return sorted(Path(entry["name"]).name for entry in found if entry["type"] == "directory")

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

    def _write_temporary(self, key: str, data: bytes) -> Path:
        target = Path(self.path(key))
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f"{_TEMPORARY_PREFIX}{uuid.uuid4().hex}")
        try:
            with open(temporary, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return temporary


class translated:
    """Turns a file system's exceptions into Foldcast's: may it pass on its own, or not?"""

    def __init__(self, action: str) -> None:
        self._action = action

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, FileNotFoundError):
            raise StoreError(f"could not {self._action}: no such object") from error
        if isinstance(error, PermissionError):
            raise StoreError(f"could not {self._action}: permission denied") from error
        if isinstance(error, OSError) and error.errno in _PERMANENT_ERRNOS:
            raise StoreError(f"could not {self._action}: {error}") from error
        if isinstance(error, (OSError, TimeoutError)) or (error is not None and _may_pass(error)):
            raise TransientSourceError(f"could not {self._action}: {error}") from error


def _may_pass(error: BaseException) -> bool:
    """Whether a client library's own exception is about the connection (they are not all OSErrors)."""
    kinds = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(error).__mro__}
    return not kinds.isdisjoint(_CONNECTION_ERRORS)


def precondition_failed(error: BaseException) -> bool:
    """Whether a conditional put was refused because its condition did not hold."""
    if isinstance(error, FileExistsError):
        return True
    response = getattr(error.__cause__, "response", None)
    code = str(response.get("Error", {}).get("Code")) if isinstance(response, Mapping) else ""
    return code in {"PreconditionFailed", "412"} or getattr(error, "code", None) in {412, "412"}
