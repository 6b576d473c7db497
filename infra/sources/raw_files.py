"""Raw files that are not GRIB messages: NetCDF files and Zarr folders, hashed whole."""

from __future__ import annotations

import hashlib
from pathlib import Path

from infra.grib_messages import messages
from infra.sources.source import RawFile, RawFormat


def files_of(path: Path) -> list[Path]:
    """The file itself, or all files below a folder in order of their paths; empty if there is nothing."""
    if path.is_dir():
        return sorted(each for each in path.rglob("*") if each.is_file())
    return [path] if path.exists() else []


def sha256_of(path: Path) -> str:
    """Checksum of a file, or of a folder's files one after the other in order of their paths."""
    digest = hashlib.sha256()
    for each in files_of(path):
        digest.update(each.read_bytes())
    return digest.hexdigest()


def checksums_of(path: Path, file_format: RawFormat) -> tuple[str, ...]:
    """What ``RawFile.sha256`` holds: of every GRIB message in file order, or of the whole file or folder.

    Raises:
        InvalidFieldError: a GRIB file that is not made of whole messages.
    """
    if file_format == "grib":
        return tuple(hashlib.sha256(message).hexdigest() for message in messages(path))
    return (sha256_of(path),)


def raw_file(path: Path, file_format: RawFormat, *, url: str) -> RawFile:
    """Describe a fetched file or folder with its checksum and size."""
    size = sum(each.stat().st_size for each in files_of(path))
    return RawFile(path=path, format=file_format, url=url, sha256=(sha256_of(path),), size=size)
