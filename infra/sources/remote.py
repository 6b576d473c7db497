"""Bytes of a provider's files by URL: over HTTP, or any fsspec file system (``s3://``, ``gs://``, a path).

Every failure becomes one of three: ``MissingDataError`` (it is not there), ``TransientSourceError`` (it may
work in a while) or ``InvalidFieldError`` (the answer makes no sense).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import fsspec
import httpx
from botocore.exceptions import BotoCoreError

from infra.errors import InvalidFieldError, MissingDataError, TransientSourceError

_ABSENT = {403, 404, 410}  # object stores that forbid listing answer 403 for what is not there
_PASSING = {408, 425, 429}
_PIECE = 4 * 1024 * 1024


class Remote(Protocol):
    """Reads files by URL; safe to use from several threads."""

    def read(self, url: str) -> bytes:
        """A whole (small) file."""

    def size(self, url: str) -> int:
        """A file's length in bytes, without reading it."""

    def stream(self, url: str, *, start: int, length: int) -> Iterator[bytes]:
        """The bytes from ``start``, in pieces as they come; ends early only by raising."""


@contextmanager
def open_remote(
    root: str, *, timeout: float = 30.0, options: Mapping[str, Any] | None = None
) -> Iterator[Remote]:
    """What reads below a root URL.

    Args:
        root: ``http(s)://…`` or anything fsspec opens.
        timeout: seconds without any byte until a request counts as failed (HTTP).
        options: fsspec storage options, e.g. ``{"anon": True}``.
    """
    if root.startswith(("http://", "https://")):
        limits = httpx.Timeout(timeout, connect=min(timeout, 10.0))
        with httpx.Client(timeout=limits, follow_redirects=True) as client:
            yield HttpRemote(client)
    else:
        filesystem, _ = fsspec.core.url_to_fs(root, **(options or {}))
        yield FilesystemRemote(filesystem)


class HttpRemote:
    """HTTP with range requests.

    Args:
        client: carries timeouts, limits and connections.
    """

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def read(self, url: str) -> bytes:
        """A whole file."""
        with _http_errors(url):
            response = self._client.get(url)
            _check_status(response, url, expected=200)
            return response.content

    def size(self, url: str) -> int:
        """A file's length from its headers."""
        with _http_errors(url):
            response = self._client.head(url)
            _check_status(response, url, expected=200)
        length = response.headers.get("content-length", "")
        if not length.isdigit():
            raise InvalidFieldError(f"{url}: expected a Content-Length, got {length!r}")
        return int(length)

    def stream(self, url: str, *, start: int, length: int) -> Iterator[bytes]:
        """A range, in pieces."""
        last = start + length - 1
        with (
            _http_errors(url),
            self._client.stream("GET", url, headers={"Range": f"bytes={start}-{last}"}) as response,
        ):
            _check_status(response, url, expected=206, wanted=f"bytes {start}–{last}")
            got = 0
            for piece in response.iter_bytes():
                got += len(piece)
                yield piece
        if got != length:
            raise TransientSourceError(f"{url}: expected {length} bytes from {start}, got {got}")


class FilesystemRemote:
    """Any fsspec file system.

    Args:
        filesystem: the opened file system.
    """

    def __init__(self, filesystem: fsspec.AbstractFileSystem) -> None:
        self._filesystem = filesystem

    def read(self, url: str) -> bytes:
        """A whole file."""
        with _filesystem_errors(url):
            return self._filesystem.cat_file(self._path(url))

    def size(self, url: str) -> int:
        """A file's length as the file system states it."""
        with _filesystem_errors(url):
            return int(self._filesystem.size(self._path(url)))

    def stream(self, url: str, *, start: int, length: int) -> Iterator[bytes]:
        """A range, in pieces of a few megabytes."""
        end = start + length
        while start < end:
            stop = min(start + _PIECE, end)
            with _filesystem_errors(url):
                piece = self._filesystem.cat_file(self._path(url), start=start, end=stop)
            if len(piece) != stop - start:
                raise TransientSourceError(
                    f"{url}: expected {stop - start} bytes from {start}, got {len(piece)}"
                )
            yield piece
            start = stop

    def _path(self, url: str) -> str:
        return self._filesystem._strip_protocol(url)


def _check_status(response: httpx.Response, url: str, *, expected: int, wanted: str = "") -> None:
    status = response.status_code
    if status == expected:
        return
    if status in _ABSENT:
        raise MissingDataError(f"{url}: not there (HTTP {status})")
    if status in _PASSING or status >= 500:
        raise TransientSourceError(f"{url}: HTTP {status} {response.reason_phrase}")
    if status == 416:
        raise InvalidFieldError(f"{url}: the file is shorter than its index says: no {wanted} (HTTP 416)")
    raise InvalidFieldError(f"{url}: expected HTTP {expected} {wanted}, got {status}")


@contextmanager
def _http_errors(url: str) -> Iterator[None]:
    try:
        yield
    except httpx.TransportError as error:
        raise TransientSourceError(f"{url}: {type(error).__name__}: {error}") from error
    except (httpx.InvalidURL, httpx.TooManyRedirects) as error:
        raise InvalidFieldError(f"{url}: {error}") from error


@contextmanager
def _filesystem_errors(url: str) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise MissingDataError(f"{url}: not there ({type(error).__name__})") from error
    except (OSError, TimeoutError, BotoCoreError) as error:
        raise TransientSourceError(f"{url}: {type(error).__name__}: {error}") from error
