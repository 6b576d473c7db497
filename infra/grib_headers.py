"""Headers of foreign GRIB messages, read in a child process.

ecCodes ends the program, or counts for hours, on some damaged messages; the process that fetches them must
outlive that. One child reads the headers of many messages and is replaced if a message kills it. Run as a
program this module is that child.
"""

from __future__ import annotations

import json
import selectors
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from infra.errors import InvalidFieldError
from infra.grib_field import Header, header, opened
from infra.grib_parameters import Parameter

HEADER_TIMEOUT_SECONDS = 60.0
_LENGTH_BYTES = 8


@dataclass(kw_only=True)
class HeaderReader:
    """Reads headers through a child process, started for the first message; safe to use from several threads.

    Args:
        timeout: seconds for one header.
    """

    timeout: float = HEADER_TIMEOUT_SECONDS
    _child: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def read(self, message: bytes, *, where: str) -> Header:
        """What a message with one field says about it.

        Raises:
            InvalidFieldError: ecCodes cannot read it, died of it, or did not come to an end.
        """
        with self._lock:
            child = self._child or self._start()
            self._child = child
            try:
                answer = self._ask(child, message)
            except TimeoutError:
                self._end()
                raise InvalidFieldError(
                    f"{where}: ecCodes did not read the header within {self.timeout:g} s: a damaged message"
                ) from None
            except OSError:
                answer = b""
            if not answer.endswith(b"\n"):
                self._end()
                raise InvalidFieldError(
                    f"{where}: ecCodes died of a damaged message (status {child.returncode})"
                )
        found = json.loads(answer)
        if "error" in found:
            raise InvalidFieldError(f"{where}: {found['error']}")
        return _from_json(found)

    def close(self) -> None:
        """End the child."""
        with self._lock:
            self._end()

    def _start(self) -> subprocess.Popen[bytes]:
        from infra.settings import child_environment  # not needed in the child

        return subprocess.Popen(
            [sys.executable, "-m", "infra.grib_headers"],
            env=child_environment(PYTHONPATH=str(Path(__file__).resolve().parent.parent)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def _ask(self, child: subprocess.Popen[bytes], message: bytes) -> bytes:
        if child.stdin is None or child.stdout is None:
            raise OSError("the child has no pipes")
        child.stdin.write(len(message).to_bytes(_LENGTH_BYTES, "big") + message)
        child.stdin.flush()
        with selectors.DefaultSelector() as selector:
            selector.register(child.stdout, selectors.EVENT_READ)
            if not selector.select(self.timeout):
                raise TimeoutError
        return child.stdout.readline()

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):  # what was still to be written to a dead child
                    pipe.close()
        child.wait()


@contextmanager
def header_reader(*, timeout: float = HEADER_TIMEOUT_SECONDS) -> Iterator[HeaderReader]:
    """A reader whose child ends with the block."""
    reader = HeaderReader(timeout=timeout)
    try:
        yield reader
    finally:
        reader.close()


def _to_json(found: Header) -> str:
    return json.dumps(asdict(found), default=datetime.isoformat)


def _from_json(found: dict[str, Any]) -> Header:
    values = {**found, "parameter": Parameter(**found["parameter"]) if found["parameter"] else None}
    for name in ("init_time", "valid_time"):
        values[name] = datetime.fromisoformat(values[name])
    if values["accumulation"]:
        values["accumulation"] = tuple(map(datetime.fromisoformat, values["accumulation"]))
    return Header(**values)


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer every message (its length in 8 bytes, then itself) with a line of JSON, until there are no more."""
    while len(length := requests.read(_LENGTH_BYTES)) == _LENGTH_BYTES:
        message = requests.read(int.from_bytes(length, "big"))
        try:
            with opened(message, where="header") as handle:
                answer = _to_json(header(handle))
        except InvalidFieldError as error:
            answer = json.dumps({"error": " ".join(str(error).removeprefix("header: ").split())})
        answers.write(answer.encode() + b"\n")
        answers.flush()


if __name__ == "__main__":
    serve(sys.stdin.buffer, sys.stdout.buffer)
