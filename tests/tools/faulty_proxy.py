"""An HTTP proxy on loopback that drops, delays, cuts and refuses requests, from a seeded random sequence."""

from __future__ import annotations

import hashlib
import random
import re
import socket
import threading
import time
from base64 import b64encode
from collections import Counter
from typing import Literal

Fault = Literal[
    "none", "drop", "refuse", "delay", "cut request", "cut body", "damage body", "cut answer", "lose answer"
]

FAULTS: tuple[Fault, ...] = (
    "drop",
    "refuse",
    "delay",
    "cut request",
    "cut body",
    "cut answer",
    "lose answer",
)
"""What strikes by default. ``damage body`` is left to those who test what finds it."""


def _error(status: str, code: str, message: str) -> bytes:
    body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nConnection: close"
    return f"{head}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


_REFUSAL = _error("503 Slow Down", "SlowDown", "Reduce your request rate")
_BAD_DIGEST = _error("400 Bad Request", "BadDigest", "The SHA256 you specified did not match the body")


class FaultyProxy:
    """Forwards every request over a connection of its own; use it as a context manager.

    Args:
        server: (host, port) behind it.
        rate: share of requests that a fault strikes.
        seed: of the sequence of faults.
        faults: what may strike.
        compares_checksums: refuse bodies that do not have the SHA-256 sent along, as S3 does and the server
            behind may not.
    """

    def __init__(
        self,
        server: tuple[str, int],
        *,
        rate: float,
        seed: int,
        faults: tuple[Fault, ...] = FAULTS,
        compares_checksums: bool = False,
    ) -> None:
        self._server = server
        self._rate = rate
        self._faults = faults
        self._compares = compares_checksums
        self.requests: Counter[str] = Counter()
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._writing = threading.Lock()  # the server behind does not make conditional puts atomic by itself
        self.counts: Counter[Fault] = Counter()

    def __enter__(self) -> FaultyProxy:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, name="faulty-proxy", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    @property
    def faults(self) -> int:
        """How many struck so far."""
        return sum(count for fault, count in self.counts.items() if fault != "none")

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _choose(self, method: str) -> tuple[Fault, float]:
        with self._lock:
            self.requests[method] += 1
            fault: Fault = self._random.choice(self._faults) if self._random.random() < self._rate else "none"
            self.counts[fault] += 1
            return fault, self._random.random()

    def _serve(self, client: socket.socket) -> None:
        try:
            with client:
                client.settimeout(10)
                request = _read_request(client)
                if not request:
                    return
                fault, where = self._choose(request.split(b" ", 1)[0].decode())
                if fault == "drop":
                    return
                if fault == "refuse":
                    client.sendall(_REFUSAL)
                    return
                if fault == "delay":
                    time.sleep(0.05 * where)
                head, _, body = request.partition(b"\r\n\r\n")
                if fault in ("cut request", "cut body"):
                    # Never between two header lines: Python's HTTP server takes that end for the head's own,
                    # and would store an empty object without its condition.
                    whole = len(head) + 4 if body and fault == "cut body" else 0
                    within = len(body) if whole else head.index(b" HTTP/")
                    with socket.create_connection(self._server, timeout=10) as server:
                        server.sendall(request[: whole + int(within * where)])
                    return
                if fault == "damage body" and body:
                    position = int(len(body) * where)
                    body = body[:position] + bytes([body[position] ^ 1]) + body[position + 1 :]
                    request = head + b"\r\n\r\n" + body
                if self._compares and not _as_announced(head, body):
                    client.sendall(_BAD_DIGEST)
                    return
                answer = self._forward(request)
                if fault == "lose answer":
                    return
                client.sendall(answer[: int(len(answer) * where)] if fault == "cut answer" else answer)
        except OSError:
            return

    def _forward(self, request: bytes) -> bytes:
        if request.startswith(b"PUT"):
            with self._writing:
                return self._exchange(request)
        return self._exchange(request)

    def _exchange(self, request: bytes) -> bytes:
        with socket.create_connection(self._server, timeout=10) as server:
            server.sendall(request)
            return b"".join(iter(lambda: server.recv(65536), b""))


def _as_announced(head: bytes, body: bytes) -> bool:
    """Whether a request's body has the SHA-256 its header names, if it names one."""
    found = re.search(rb"(?i)\r\nx-amz-checksum-sha256: *(\S+)", head)
    return found is None or found[1] == b64encode(hashlib.sha256(body).digest())


def _read_request(client: socket.socket) -> bytes:
    """One whole request, made to close its connection; empty if the client went away."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = client.recv(65536)
        if not piece:
            return b""
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    headers = {line.partition(b":")[0].strip().lower(): line.partition(b":")[2].strip() for line in lines}
    if headers.pop(b"expect", b"").lower() == b"100-continue":
        client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    length = int(headers.get(b"content-length", b"0"))
    while len(body) < length:
        piece = client.recv(65536)
        if not piece:
            return b""
        body += piece
    headers[b"connection"] = b"close"
    return first + b"\r\n" + b"".join(b"%s: %s\r\n" % item for item in headers.items()) + b"\r\n" + body
