"""Files into a store, each one checked there: what lies in the store afterwards is what was meant, or an error.

* Local folder: a file of a scratch folder on the same file system is taken over as it is (a link, no copy) and
  its checksum is that of the bytes found there; others are copied, hashed on the way, and compared.
* S3 whose server compares checksums: asked for the checksum it holds.
* Google Cloud Storage: asked for the MD5 it computed.
* All others, S3-compatible servers that compare nothing among them: read back and compared.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from base64 import b64encode
from pathlib import Path

from infra.errors import TransientSourceError
from infra.object_store import TEMPORARY_PREFIX, ObjectStore
from infra.s3_upload import compares_checksums, kept_checksum, put_with_checksum
from infra.store_errors import translated

_PIECE = 1 << 20


def upload_verified(store: ObjectStore, path: Path, key: str, *, adopt: bool = False) -> tuple[str, int]:
    """Put a file as a whole object, replacing any, and check what lies in the store.

    Args:
        store: where to.
        path: the file.
        key: of the object.
        adopt: the file is the caller's alone and will not be written again, so the store may keep it itself.

    Returns:
        sha256 in hex, and size in bytes.

    Raises:
        TransientSourceError: the store failed in a way that may pass, or holds other bytes than were sent.
    """
    if store.is_local:
        sha256, whole = _into_folder(store, path, key, adopt=adopt)
    else:
        sha256, whole = _over_network(store, path, key)
    if not whole:
        raise TransientSourceError(f"{store.url(key)}: holds other bytes than were written")
    return sha256.hex(), path.stat().st_size


def _into_folder(store: ObjectStore, path: Path, key: str, *, adopt: bool) -> tuple[bytes, bool]:
    """Digest of the file, and whether it lies there whole and on the disk itself."""
    target = Path(store.path(key))
    with translated(f"write {store.url(key)}"):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}")
        try:
            linked = adopt and _linked(path, temporary)
            sha256 = _synchronised_digest(temporary) if linked else _copied(path, temporary)
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
    return sha256, linked or store.holds(key, path)


def _over_network(store: ObjectStore, path: Path, key: str) -> tuple[bytes, bool]:
    with open(path, "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").digest()
    target, size = store.path(key), path.stat().st_size
    if "s3" in store.protocols and _believed(store):
        with translated(f"write {store.url(key)}"):
            checksum = put_with_checksum(store.filesystem, path, target, sha256)
        with translated(f"look up {store.url(key)}"):
            return sha256, kept_checksum(store.filesystem, target) == (checksum, size)
    store.upload(path, key)
    if "gs" in store.protocols:
        with translated(f"look up {store.url(key)}"):
            store.filesystem.invalidate_cache()
            kept = store.filesystem.info(target)
        if "md5Hash" in kept:  # an object composed of others has none
            with open(path, "rb") as file:
                md5 = b64encode(hashlib.file_digest(file, "md5").digest()).decode()
            return sha256, (kept["md5Hash"], int(kept["size"])) == (md5, size)
    return sha256, store.holds(key, path)


def _believed(store: ObjectStore) -> bool:
    """Whether the store's own checksums prove anything; asked once per store."""
    known = store.findings.get("compares checksums")
    if known is None:
        probe = f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}"
        with translated(f"probe {store.url(probe)}"):
            known = compares_checksums(store.filesystem, store.path(probe))
        store.findings["compares checksums"] = known
    return known


def _linked(path: Path, temporary: Path) -> bool:
    """Make a file appear under a second name; False where the file system cannot."""
    try:
        os.link(path, temporary)
    except OSError:
        return False
    return True


def _synchronised_digest(path: Path) -> bytes:
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").digest()
        os.fsync(file.fileno())
    return digest


def _copied(path: Path, temporary: Path) -> bytes:
    """Copy a file to the disk itself; returns the digest of what was copied."""
    digest = hashlib.sha256()
    with open(path, "rb") as source, open(temporary, "xb") as target:
        while piece := source.read(_PIECE):
            digest.update(piece)
            target.write(piece)
        target.flush()
        os.fsync(target.fileno())
    return digest.digest()
