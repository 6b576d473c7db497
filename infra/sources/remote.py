"""Bytes of a provider's files by URL: over HTTP, or any fsspec file system (``s3://``, ``gs://``, a path).

Every failure becomes one of three: ``MissingDataError`` (it is not there), ``TransientSourceError`` (it may
work in a while) or ``InvalidFieldError`` (the answer makes no sense). No answer is waited for without end: besides
the time without a byte, the whole of it has a limit that grows with its length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from time import monotonic
from typing import Any, Protocol

import fsspec
import httpx
from fsspec.asyn import AsyncFileSystem

from infra.errors import InvalidFieldError, MissingDataError, StoreError, TransientSourceError
from infra.store_errors import translated

_ABSENT = {403, 404, 410}  # object stores that forbid listing answer 403 for what is not there
_PASSING = {408, 425, 429}
_PIECE = 4 * 1024 * 1024
_UNKNOWN_LENGTH = 4 * 1024 * 1024
_SLOWEST = 16 * 1024
"""Bytes a second; what comes slower in all is given up, and asked for again."""


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
        timeout: seconds without any byte until a request counts as failed; see also ``time_limit``.
        options: fsspec storage options, e.g. ``{"anon": True}``.
    """
    if root.startswith(("http://", "https://")):
        limits = httpx.Timeout(timeout, connect=min(timeout, 10.0))
        with httpx.Client(timeout=limits, follow_redirects=True) as client:
            yield HttpRemote(client, timeout=timeout)
    else:
        with provider_errors(root):
            filesystem, _ = fsspec.core.url_to_fs(root, **(options or {}))
        yield FilesystemRemote(filesystem, timeout=timeout)


def time_limit(timeout: float, length: int | None) -> float:
    """Seconds that an answer of so many bytes (None: not known) may take in all."""
    return timeout + (_UNKNOWN_LENGTH if length is None else length) / _SLOWEST


def within(
    pieces: Iterable[bytes], *, seconds: float, url: str, clock: Callable[[], float] = monotonic
) -> Iterator[bytes]:
    """Pieces as they come, as long as the waiting for them does not exceed a time in all.

    A server that sends a byte now and then never exceeds the time without a byte.

    Raises:
        TransientSourceError: it did.
    """
    waited, got = 0.0, 0
    coming = iter(pieces)
    while True:
        asked = clock()
        piece = next(coming, None)
        waited += clock() - asked
        if piece is None:
            return
        got += len(piece)
        if waited > seconds:
            raise TransientSourceError(
                f"{url}: too slow: expected all of it within {seconds:.0f} s, got {got} bytes in {waited:.0f} s"
            )
        yield piece


def stated_length(response: httpx.Response) -> int | None:
    """The Content-Length of an answer, if it has one."""
    length = response.headers.get("content-length", "")
    return int(length) if length.isdigit() else None


class HttpRemote:
    """HTTP with range requests.

    Args:
        client: carries timeouts, limits and connections.
        timeout: seconds without a byte, as the client's.
        clock: replaced in tests.
    """

    def __init__(
        self, client: httpx.Client, *, timeout: float = 30.0, clock: Callable[[], float] = monotonic
    ) -> None:
        self._client = client
        self._timeout = timeout
        self._clock = clock

    def read(self, url: str) -> bytes:
        """A whole file."""
        with http_errors(url), self._client.stream("GET", url) as response:
            _check_status(response, url, expected=200)
            return b"".join(self._pieces(response, url, stated_length(response)))

    def size(self, url: str) -> int:
        """A file's length from its headers."""
        with http_errors(url):
            response = self._client.head(url)
            _check_status(response, url, expected=200)
        length = stated_length(response)
        if length is None:
            raise InvalidFieldError(
                f"{url}: expected a Content-Length, got {response.headers.get('content-length', '')!r}"
            )
        return length

    def stream(self, url: str, *, start: int, length: int) -> Iterator[bytes]:
        """A range, in pieces."""
        last = start + length - 1
        with (
            http_errors(url),
            self._client.stream("GET", url, headers={"Range": f"bytes={start}-{last}"}) as response,
        ):
            _check_status(response, url, expected=206, wanted=f"bytes {start}–{last}")
            got = 0
            for piece in self._pieces(response, url, length):
                got += len(piece)
                yield piece
        if got != length:
            raise TransientSourceError(f"{url}: expected {length} bytes from {start}, got {got}")

    def _pieces(self, response: httpx.Response, url: str, length: int | None) -> Iterator[bytes]:
        limit = time_limit(self._timeout, length)
        return within(response.iter_bytes(), seconds=limit, url=url, clock=self._clock)


class FilesystemRemote:
    """Any fsspec file system.

    Args:
        filesystem: the opened file system.
        timeout: seconds for an answer without a body; see ``time_limit`` for the others.
    """

    def __init__(self, filesystem: fsspec.AbstractFileSystem, *, timeout: float = 30.0) -> None:
        self._filesystem = filesystem
        self._timeout = timeout

    def read(self, url: str) -> bytes:
        """A whole file."""
        return self._call("cat_file", url, length=None)

    def size(self, url: str) -> int:
        """A file's length as the file system states it."""
        return int(self._call("size", url, length=0))

    def stream(self, url: str, *, start: int, length: int) -> Iterator[bytes]:
        """A range, in pieces of a few megabytes."""
        end = start + length
        while start < end:
            stop = min(start + _PIECE, end)
            piece = self._call("cat_file", url, length=stop - start, start=start, end=stop)
            if len(piece) != stop - start:
                raise TransientSourceError(
                    f"{url}: expected {stop - start} bytes from {start}, got {len(piece)}"
                )
            yield piece
            start = stop

    def _call(self, method: str, url: str, *, length: int | None, **arguments: int) -> Any:
        filesystem, seconds = self._filesystem, time_limit(self._timeout, length)
        path = filesystem._strip_protocol(url)
        with provider_errors(url):
            if isinstance(filesystem, AsyncFileSystem) and not filesystem.asynchronous:
                coroutine = getattr(filesystem, f"_{method}")
                return fsspec.asyn.sync(filesystem.loop, coroutine, path, timeout=seconds, **arguments)
            return getattr(filesystem, method)(path, **arguments)


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
def http_errors(url: str) -> Iterator[None]:
    """What httpx raises, as one of the three."""
    try:
        yield
    except (httpx.TransportError, httpx.DecodingError) as error:
        raise TransientSourceError(f"{url}: {type(error).__name__}: {error}") from error
    except (httpx.InvalidURL, httpx.TooManyRedirects) as error:
        raise InvalidFieldError(f"{url}: {error}") from error


@contextmanager
def provider_errors(url: str) -> Iterator[None]:
    """What a file system or its client library raises, as one of the three."""
    try:
        with translated(f"read {url}"):
            try:
                yield
            except (IsADirectoryError, NotADirectoryError) as error:  # fsspec raises them without a number
                raise MissingDataError(f"{url}: not there ({type(error).__name__})") from error
    except StoreError as error:
        reason = error.__cause__ or error
        raise MissingDataError(f"{url}: not there ({type(reason).__name__})") from error
