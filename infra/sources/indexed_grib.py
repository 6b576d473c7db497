"""Single messages out of large GRIB files, by an index of their byte ranges.

Neighbouring messages are read in one request. Every message is checked as it arrives (its length against the
index, its own header, its end mark, what it says it holds) and stored under its final name at once, so that a
broken connection, a failed mirror or a killed process costs at most the message that was on its way.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from infra.errors import FoldcastError, InvalidFieldError, MissingDataError, TransientSourceError
from infra.grib_field import Header
from infra.grib_headers import HeaderReader, header_reader
from infra.grib_messages import check_message, fields
from infra.retry import RetryPolicy
from infra.sources.remote import Remote, open_remote
from infra.sources.source import Availability, RawFile
from infra.whole_files import whole_when_done

_LARGEST_REQUEST = 32 * 1024 * 1024
_Result = TypeVar("_Result")


@dataclass(frozen=True, kw_only=True, order=True)
class IndexedMessage:
    """A message and where it lies.

    Args:
        path: of the file below the provider's root.
        offset, length: its bytes in the file.
        label: what it holds, for people and for its file name (``"q-850-20260101T00Z-0h"``).
        short_names: ecCodes short names of the fields it may hold; empty: not checked.
        level: hPa, or None where the level is not checked.
        valid_time: when the field must be valid, or None where that is not checked.
    """

    path: str
    offset: int
    length: int
    label: str = field(compare=False)
    short_names: tuple[str, ...] = field(default=(), compare=False)
    level: int | None = field(default=None, compare=False)
    valid_time: datetime | None = field(default=None, compare=False)

    @property
    def stem(self) -> str:
        """The beginning of the name of the file it is kept in; unique to field, place and length."""
        return f"{self.label}-{self.offset}-{self.length}"

    def check(self, message: bytes, headers: HeaderReader, *, where: str) -> None:
        """Refuse anything but this whole message.

        Args:
            message: the bytes that came.
            headers: reads what they say.
            where: for the error message.

        Raises:
            InvalidFieldError: says what the index promised and what came.
        """
        check_message(message, where=where, length=self.length)
        if not self.short_names:
            return
        found = [headers.read(single, where=where) for single in fields(message, where=where)]
        if not any(self._matches(each) for each in found):
            at = "" if self.level is None else f" at {self.level}"
            when = "" if self.valid_time is None else f", valid {self.valid_time:%Y-%m-%dT%HZ}"
            raise InvalidFieldError(
                f"{where}: the index promises {'/'.join(self.short_names)}{at}{when}; "
                f"the message holds {', '.join(map(str, found))}"
            )

    def _matches(self, found: Header) -> bool:
        return (
            found.short_name in self.short_names
            and self.level in (None, found.level)
            and self.valid_time in (None, found.valid_time)
        )


@dataclass(frozen=True, kw_only=True)
class Mirrors:
    """Several copies of the same files.

    Args:
        roots: URLs in order of preference.
        parallel: requests at once.
        timeout: seconds without a byte.
        options: fsspec storage options of roots that are not HTTP.
        retry: for each request.
    """

    roots: tuple[str, ...]
    parallel: int = 4
    timeout: float = 30.0
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    retry: RetryPolicy = field(default_factory=RetryPolicy)

    def __post_init__(self) -> None:
        if not self.roots or self.parallel < 1:
            raise ValueError(
                f"expected at least one root and parallel ≥ 1, got {self.roots}, {self.parallel}"
            )

    def first(self, operation: Callable[[str, Remote], _Result]) -> _Result:
        """What the first mirror gives for which the operation does not fail.

        Raises:
            TransientSourceError: no mirror served and at least one of them may later.
            InvalidFieldError: otherwise, if one had damaged data.
            MissingDataError: none has it.
        """
        failures: list[FoldcastError] = []
        for root in self.roots:
            try:
                with ExitStack() as opened:
                    remote = self.retry.run(partial(self._open, root, opened))
                    return operation(root.rstrip("/"), remote)
            except (TransientSourceError, InvalidFieldError, MissingDataError) as error:
                failures.append(error)
        if len(failures) == 1:
            raise failures[0]
        for kind in (TransientSourceError, InvalidFieldError, MissingDataError):
            if any(isinstance(failure, kind) for failure in failures):
                reasons = "; ".join(str(failure) for failure in failures)
                raise kind(f"all {len(failures)} mirrors failed: {reasons}") from failures[0]
        raise AssertionError("unreachable")

    def _open(self, root: str, opened: ExitStack) -> Remote:
        return opened.enter_context(open_remote(root, timeout=self.timeout, options=self.options))

    def available(self, messages: Callable[[str, Remote], Sequence[IndexedMessage]]) -> Availability:
        """Whether some mirror has all messages, as ``messages`` finds them below a root."""
        try:
            found = self.first(messages)
        except MissingDataError as error:
            return Availability(complete=False, missing=(str(error),), source=", ".join(self.roots))
        return Availability(complete=True, source=found[0].path)

    def fetch(
        self, folder: Path, messages: Callable[[str, Remote], Sequence[IndexedMessage]]
    ) -> tuple[RawFile, ...]:
        """Bring messages into a folder, one file each, from the first mirror that has them all.

        Args:
            folder: sound messages that lie there already are not read again, whichever mirror they came from.
            messages: looks them up in the indexes below a root.
        """
        folder.mkdir(parents=True, exist_ok=True)

        def from_one(root: str, remote: Remote) -> tuple[RawFile, ...]:
            wanted = list(messages(root, remote))
            kept = {message: _kept(folder, message) for message in wanted}
            self._bring(root, remote, folder, [message for message, path in kept.items() if path is None])
            return tuple(_raw_file(folder, message, f"{root}/{message.path}") for message in wanted)

        return self.first(from_one)

    def _bring(self, root: str, remote: Remote, folder: Path, absent: Sequence[IndexedMessage]) -> None:
        with header_reader() as headers, ThreadPoolExecutor(max_workers=self.parallel) as pool:
            running = [
                pool.submit(self.retry.run, _RangeReader(root, remote, folder, tuple(run), headers))
                for run in merge(absent)
            ]
            done, waiting = wait(running, return_when=FIRST_EXCEPTION)
            for future in waiting:
                future.cancel()
        for future in done:
            future.result()


def merge(
    messages: Iterable[IndexedMessage], *, largest: int = _LARGEST_REQUEST
) -> list[list[IndexedMessage]]:
    """Group messages that lie end to end in one file, up to a number of bytes a group."""
    groups: list[list[IndexedMessage]] = []
    for message in sorted(set(messages)):
        last = groups[-1][-1] if groups else None
        if (
            last is not None
            and last.path == message.path
            and last.offset + last.length == message.offset
            and message.offset + message.length - groups[-1][0].offset <= largest
        ):
            groups[-1].append(message)
        else:
            groups.append([message])
    return groups


@dataclass(frozen=True)
class _RangeReader:
    """Reads neighbouring messages; called again, it goes on behind the last one that arrived whole."""

    root: str
    remote: Remote
    folder: Path
    messages: tuple[IndexedMessage, ...]
    headers: HeaderReader

    def __call__(self) -> None:
        left = [message for message in self.messages if _kept(self.folder, message) is None]
        if not left:
            return
        url = f"{self.root}/{left[0].path}"
        start, end = left[0].offset, left[-1].offset + left[-1].length
        pieces = self.remote.stream(url, start=start, length=end - start)
        for message, data in _split(pieces, left):
            message.check(data, self.headers, where=f"{url}, {message.label} at byte {message.offset}")
            _keep(self.folder, message, data)


def _split(
    pieces: Iterable[bytes], messages: Sequence[IndexedMessage]
) -> Iterator[tuple[IndexedMessage, bytes]]:
    buffer = bytearray()
    waiting = iter(messages)
    message = next(waiting, None)
    for piece in pieces:
        buffer += piece
        while message is not None and len(buffer) >= message.length:
            yield message, bytes(buffer[: message.length])
            del buffer[: message.length]
            message = next(waiting, None)


def _kept(folder: Path, message: IndexedMessage) -> Path | None:
    """The file of a message that arrived before, if its bytes still have the checksum in its name."""
    for path in sorted(folder.glob(f"{message.stem}.*.grib")):
        if hashlib.sha256(path.read_bytes()).hexdigest() == path.name.split(".")[-2]:
            return path
        path.unlink()
    return None


def _keep(folder: Path, message: IndexedMessage, data: bytes) -> None:
    with whole_when_done(folder / f"{message.stem}.{hashlib.sha256(data).hexdigest()}.grib") as temporary:
        temporary.write_bytes(data)


def _raw_file(folder: Path, message: IndexedMessage, url: str) -> RawFile:
    path = _kept(folder, message)
    if path is None:
        raise TransientSourceError(f"{url}: {message.label} vanished from {folder} while it was fetched")
    return RawFile(
        path=path,
        format="grib",
        url=f"{url}#{message.offset}+{message.length}",
        sha256=(path.name.split(".")[-2],),
        size=message.length,
    )
