"""Shows what an object store holds for people over HTTP: product pages, maps, Data Docs, quarantine reasons.

Read-only. Only what the pages and the links in the orchestration's UI point to is shown; initial conditions,
members and checkpoints are not. It reads through the store, so a bucket need not be public, and in pieces: products
may be larger than the memory of the process that shows them.
"""

from __future__ import annotations

import base64
import hmac
import mimetypes
import posixpath
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from infra import layout
from infra.errors import FoldcastError, StoreError
from infra.object_store import ObjectStore

_AT_ONCE = 8
"""Large objects read at once; a piece of each is in memory."""

_SMALL = 1 << 20
"""Objects up to this size wait for no other: pages, however many take products slowly."""

_SLICE = 64 << 10
"""Bytes a reader must take within the timeout: Python's sockets count it from the start of each call of sendall."""

_PATIENCE_SECONDS = 60.0


def serve_store(
    open_store: Callable[[], ObjectStore], *, host: str, port: int, credentials: str | None = None
) -> Callable[[], None]:
    """Answer requests from a thread; returns what ends it.

    Args:
        open_store: makes the store that is read; called for every request.
        host: address to bind to.
        port: TCP port.
        credentials: ``user:password`` that is asked for; None for everybody on that address.

    Raises:
        OSError: the port is in use.
    """

    class Handler(_Handler):
        pass

    Handler.open_store = staticmethod(open_store)
    Handler.places = threading.BoundedSemaphore(_AT_ONCE)
    Handler.authorization = _basic(credentials) if credentials else None
    server = _Server((host, port), Handler)
    thread = threading.Thread(target=server.serve_forever, name="store server", daemon=True)
    thread.start()

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return stop


def _basic(credentials: str) -> str:
    return "Basic " + base64.b64encode(credentials.encode()).decode()


def shown_key(path: str) -> str | None:
    """The key a request's path stands for; None for what is not shown.

    The root is the index page, and a folder its ``index.html``.
    """
    key = posixpath.normpath(unquote(urlsplit(path).path)).lstrip("/")
    if key in ("", "."):
        return layout.catalog("index.html")
    if path.endswith("/"):
        key = f"{key}/index.html"
    return key if key.startswith(layout.shown_prefixes()) and ".." not in key.split("/") else None


class _ReaderLeft(Exception):
    """The connection is closed, or its reader takes nothing: no fault of the store, so no OSError."""


class _Busy(Exception):
    """Enough large objects are being read."""


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Readers may leave at any time: nothing to tell of."""
        if not isinstance(sys.exception(), (_ReaderLeft, ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    open_store: Callable[[], ObjectStore]
    authorization: str | None
    places: threading.BoundedSemaphore
    timeout = _PATIENCE_SECONDS  # of a reader that takes nothing, and of one that waits for a place
    server_version = "Foldcast"
    sys_version = ""

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def _answer(self, *, body: bool) -> None:
        if not self._is_allowed():
            self.send_response(HTTPStatus.UNAUTHORIZED)
            self.send_header("WWW-Authenticate", 'Basic realm="Foldcast"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        key = shown_key(self.path)
        if key is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        self._show(key, body=body)

    def _show(self, key: str, *, body: bool) -> None:
        begun = False
        try:
            with self.open_store().reading(key) as (size, pieces), self._place(size if body else 0):
                begun = True
                with _taking():
                    self._head(key, size)
                for piece in pieces if body else ():
                    self._write(piece)
        except _Busy:
            self.send_error(HTTPStatus.SERVICE_UNAVAILABLE, "Others are reading; try again later")
        except FoldcastError as error:
            if begun:  # too late for another answer: fewer bytes than announced tell of it
                self.close_connection = True
            elif isinstance(error, StoreError):
                self.send_error(HTTPStatus.NOT_FOUND)
            else:
                self.send_error(HTTPStatus.BAD_GATEWAY, "The store does not answer")

    @contextmanager
    def _place(self, size: int) -> Iterator[None]:
        if size <= _SMALL:
            yield
            return
        if not self.places.acquire(timeout=self.timeout):
            raise _Busy
        try:
            yield
        finally:
            self.places.release()

    def _write(self, piece: bytes) -> None:
        rest = memoryview(piece)
        with _taking():
            for start in range(0, len(rest), _SLICE):
                self.wfile.write(rest[start : start + _SLICE])

    def _head(self, key: str, size: int) -> None:
        kind = mimetypes.guess_type(key)[0] or "application/octet-stream"
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", f"{kind}; charset=utf-8" if kind.startswith("text/") else kind)
        self.send_header("Content-Length", str(size))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()

    def _is_allowed(self) -> bool:
        if self.authorization is None:
            return True
        given = self.headers.get("Authorization", "")
        return hmac.compare_digest(given.encode(), self.authorization.encode())

    def log_message(self, *_: object) -> None:
        """Requests are not logged."""


@contextmanager
def _taking() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _ReaderLeft from error
