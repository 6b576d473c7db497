"""Uploads that S3 checks itself, so that asking for a checksum takes the place of reading back.

S3 compares what arrives with the SHA-256 sent along, refuses other bytes (``BadDigest``), keeps the checksum
and returns it on request; a multipart object's is the SHA-256 over its parts' ("Checking object integrity in
Amazon S3", AWS documentation). Some compatible servers keep whatever is sent, so a server is believed only
after it has refused a wrong checksum.
"""

from __future__ import annotations

import hashlib
import mimetypes
from base64 import b64encode
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import fsspec

PART = 16 << 20
"""Bytes of a part; files up to twice that go in one request."""

_PARTS = 10_000
_PARTS_AT_ONCE = 4
_REFUSALS = {"BadDigest", "XAmzContentChecksumMismatch", "InvalidDigest"}


def compares_checksums(filesystem: fsspec.AbstractFileSystem, path: str) -> bool:
    """Whether the server refuses an upload because its checksum is wrong; nothing is left at ``path``.

    Raises:
        OSError: the server could not be asked.
    """
    bucket, key, _ = filesystem.split_path(path)
    wrong = b64encode(hashlib.sha256(b"other bytes").digest()).decode()
    try:
        filesystem.call_s3("put_object", Bucket=bucket, Key=key, Body=b"bytes", ChecksumSHA256=wrong)
    except OSError as error:
        response = getattr(error.__cause__, "response", None)
        if not isinstance(response, Mapping):
            raise
        if response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500) >= 500:
            raise
        return response.get("Error", {}).get("Code") in _REFUSALS  # others refuse the header, or the writer
    filesystem.call_s3("delete_object", Bucket=bucket, Key=key)
    return False


def put_with_checksum(
    filesystem: fsspec.AbstractFileSystem, source: Path, path: str, sha256: bytes, *, part: int | None = None
) -> str:
    """Put a local file as one object; returns the checksum a server that compares will hold of it.

    Args:
        filesystem: an s3fs file system.
        source: the file.
        path: bucket and key.
        sha256: digest of the whole file.
        part: bytes of a part, at least 5 MiB on S3; default ``PART``.
    """
    part = part or PART
    bucket, key, _ = filesystem.split_path(path)
    size = source.stat().st_size
    content = mimetypes.guess_type(source.name)[0]
    target = {"Bucket": bucket, "Key": key}
    described = {**target, "ChecksumAlgorithm": "SHA256", **({"ContentType": content} if content else {})}
    if size <= 2 * part:
        checksum = b64encode(sha256).decode()
        filesystem.call_s3("put_object", **described, Body=source.read_bytes(), ChecksumSHA256=checksum)
    else:
        checksum = _put_in_parts(filesystem, source, target, described, max(part, -(-size // _PARTS)))
    filesystem.invalidate_cache(filesystem._parent(path))
    return checksum


def kept_checksum(filesystem: fsspec.AbstractFileSystem, path: str) -> tuple[str, int]:
    """The SHA-256 checksum (base64, without a multipart object's number of parts) and size a server holds.

    The checksum is empty where the server keeps none.
    """
    bucket, key, _ = filesystem.split_path(path)
    head = filesystem.call_s3("head_object", Bucket=bucket, Key=key, ChecksumMode="ENABLED")
    return str(head.get("ChecksumSHA256", "")).partition("-")[0], int(head["ContentLength"])


def _put_in_parts(
    filesystem: fsspec.AbstractFileSystem,
    source: Path,
    target: Mapping[str, Any],
    described: Mapping[str, Any],
    part: int,
) -> str:
    """Multipart upload with a checksum of each part; what was begun and failed is given up at the server."""
    count = -(-source.stat().st_size // part)
    upload = {
        **target,
        "UploadId": filesystem.call_s3("create_multipart_upload", **described)["UploadId"],
    }

    def put(number: int) -> tuple[dict[str, Any], bytes]:
        with open(source, "rb") as file:
            file.seek((number - 1) * part)
            body = file.read(part)
        digest = hashlib.sha256(body).digest()
        checksum = b64encode(digest).decode()
        answer = filesystem.call_s3(
            "upload_part", **upload, PartNumber=number, Body=body, ChecksumAlgorithm="SHA256",
            ChecksumSHA256=checksum,
        )  # fmt: skip
        return {"PartNumber": number, "ETag": answer["ETag"], "ChecksumSHA256": checksum}, digest

    try:
        with ThreadPoolExecutor(_PARTS_AT_ONCE, "upload-part") as pool:
            parts, digests = zip(*pool.map(put, range(1, count + 1)), strict=True)
        filesystem.call_s3("complete_multipart_upload", **upload, MultipartUpload={"Parts": list(parts)})
    except BaseException as error:
        with suppress(OSError):  # it may be complete, and only its answer lost; the cause counts
            filesystem.call_s3("abort_multipart_upload", **upload)
        if isinstance(error, FileNotFoundError):  # as well, if the client asked again by itself
            raise ConnectionError(f"{target['Key']}: the multipart upload is gone") from error
        raise
    return b64encode(hashlib.sha256(b"".join(digests)).digest()).decode()
