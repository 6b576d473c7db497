"""Params files and statistics from paths and URLs, remote ones kept in a local cache.

A cached file is bound to the checksum its store gives (etag, generation, size and time, whichever it has), and its
own sha256 is verified every time it is taken from the cache.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path, PurePosixPath

import fsspec
import xarray as xr

from infra.errors import CheckpointFileError, InvalidFieldError, StoreError
from infra.failures import missing_extra
from model.normalization import Statistics

DEFAULT_CACHE = Path("~/.cache/foldcast")
_STATISTICS = ("diffs_stddev_by_level", "stddev_by_level", "mean_by_level", "min_by_level")


def local_copy(url: str, *, cache: Path = DEFAULT_CACHE) -> Path:
    """The file at a path or fsspec URL (``gs://``, ``s3://``, ``https://``, …) as a local file.

    Args:
        url: where it is.
        cache: folder for copies of remote files.

    Raises:
        StoreError: it is not there or cannot be read.
    """
    if "://" not in url:
        path = Path(url).expanduser()
        if not path.is_file():
            raise StoreError(f"expected a file, found none at {path}")
        return path
    try:
        filesystem, remote = fsspec.core.url_to_fs(url)
        identity = f"{url} {filesystem.checksum(remote)}"
    except ImportError as error:
        raise StoreError(f"{url}: {missing_extra(error) or error}") from error
    except (OSError, ValueError) as error:
        raise StoreError(f"{url}: could not be found: {error}") from error
    name = PurePosixPath(remote).name
    folder = cache.expanduser() / "files" / hashlib.sha256(identity.encode()).hexdigest()[:32]
    copy, checksum = folder / name, folder / "sha256"
    if copy.is_file() and checksum.is_file() and _sha256(copy) == checksum.read_text():
        return copy
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{name}.{os.getpid()}.tmp"
    try:
        filesystem.get_file(remote, str(partial))
        checksum.write_text(_sha256(partial))
        partial.replace(copy)
    except OSError as error:
        raise StoreError(f"{url}: could not be fetched: {error}") from error
    finally:
        partial.unlink(missing_ok=True)
    return copy


def read_checkpoint(url: str, *, cache: Path = DEFAULT_CACHE) -> Path:
    """A params file as a local file.

    Raises:
        CheckpointFileError: there is no such file.
    """
    try:
        return local_copy(url, cache=cache)
    except StoreError as error:
        raise CheckpointFileError(f"checkpoint: {error}") from error


def read_statistics(url: str, *, cache: Path = DEFAULT_CACHE) -> Statistics:
    """The ``*_by_level.nc`` files of a folder, whatever stands before these names.

    Args:
        url: path or URL of the folder.
        cache: folder for copies of remote files.

    Raises:
        InvalidFieldError: mean, stddev or diffs_stddev is missing, or a file is not NetCDF.
    """
    found: dict[str, str] = {}
    for file in _files_in(url):
        for statistic in _STATISTICS:
            if file.endswith(f"{statistic}.nc"):
                found[statistic] = file
                break
    missing = [name for name in _STATISTICS[:3] if name not in found]
    if missing:
        raise InvalidFieldError(f"statistics in {url}: expected files …{', …'.join(missing)}.nc, found none")
    opened = {name: _open_statistic(file, cache) for name, file in found.items()}
    return Statistics(
        mean=opened["mean_by_level"],
        stddev=opened["stddev_by_level"],
        diffs_stddev=opened["diffs_stddev_by_level"],
        minimum=opened.get("min_by_level"),
    )


def _files_in(url: str) -> list[str]:
    if "://" not in url:
        folder = Path(url).expanduser()
        if not folder.is_dir():
            raise InvalidFieldError(f"statistics: expected a folder, found none at {folder}")
        return [str(path) for path in sorted(folder.iterdir())]
    try:
        filesystem, remote = fsspec.core.url_to_fs(url)
        return [filesystem.unstrip_protocol(path) for path in sorted(filesystem.ls(remote, detail=False))]
    except ImportError as error:
        raise InvalidFieldError(f"statistics in {url}: {missing_extra(error) or error}") from error
    except (OSError, ValueError) as error:
        raise InvalidFieldError(f"statistics in {url}: could not be listed: {error}") from error


def _open_statistic(file: str, cache: Path) -> xr.Dataset:
    path = local_copy(file, cache=cache)
    try:
        return xr.load_dataset(path)
    except (OSError, ValueError) as error:
        raise InvalidFieldError(f"statistics: {path}: expected a NetCDF file: {error}") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
