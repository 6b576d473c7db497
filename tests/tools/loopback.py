"""A file server on loopback with byte ranges, a log of requests, and faults on demand."""

from __future__ import annotations

import re
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import SHUT_RDWR, SO_LINGER, SOL_SOCKET


@dataclass(frozen=True)
class Request:
    """One request as the server saw it; end is exclusive."""

    method: str
    path: str
    start: int | None = None
    end: int | None = None


@dataclass
class Fault:
    """What goes wrong with the next ``times`` requests whose path contains ``matching``.

    Args:
        matching: part of the path.
        status: answer with this status instead.
        cut_after: send so many bytes of the body, then end the connection.
        reset: end it with a TCP reset, which may also lose bytes sent before.
        times: how often; a large number for always.
    """

    matching: str
    status: int | None = None
    cut_after: int | None = None
    reset: bool = False
    times: int = 1


@dataclass
class FileServer:
    """What a test sees of the running server."""

    url: str
    log: list[Request] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def ranges(self, suffix: str) -> list[tuple[int, int]]:
        """Byte ranges asked of files whose path ends so."""
        return [(r.start, r.end) for r in self.log if r.path.endswith(suffix) and r.start is not None]

    def take_fault(self, path: str) -> Fault | None:
        """The fault that strikes this request, used up by it."""
        with self.lock:
            for fault in self.faults:
                if fault.times > 0 and fault.matching in path:
                    fault.times -= 1
                    return fault
        return None


@contextmanager
def serving(folder: Path) -> Iterator[FileServer]:
    """Serve a folder on a free port of 127.0.0.1."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *arguments: object) -> None:
            """Say nothing on standard error."""

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, *, body: bool) -> None:
            path = folder / self.path.lstrip("/")
            size = path.stat().st_size if path.is_file() else 0
            wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            start, end = (int(wanted[1]), int(wanted[2]) + 1) if wanted else (0, size)
            with server.lock:
                server.log.append(
                    Request(self.command, self.path, *((start, end) if wanted else (None, None)))
                )
            fault = server.take_fault(self.path)
            if fault is not None and fault.status is not None:
                return self._status(fault.status)
            if not path.is_file():
                return self._status(404)
            if start >= size:
                return self._status(416)
            end = min(end, size)
            self.send_response(206 if wanted else 200)
            self.send_header("Content-Length", str(end - start))
            if wanted:
                self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
            self.end_headers()
            if not body:
                return None
            with open(path, "rb") as file:
                file.seek(start)
                data = file.read(end - start)
            if fault is not None and fault.cut_after is not None:
                self.wfile.write(data[: fault.cut_after])
                self.wfile.flush()
                if fault.reset:
                    self.connection.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
                self.close_connection = True
                if not fault.reset:
                    self.connection.shutdown(SHUT_RDWR)
                self.connection.close()
                return None
            self.wfile.write(data)
            return None

        def _status(self, status: int) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """Connections that this server cut itself are no news."""

    http = Quiet(("127.0.0.1", 0), Handler)
    server = FileServer(url=f"http://127.0.0.1:{http.server_address[1]}")
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
