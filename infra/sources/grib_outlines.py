"""What the messages of a GRIB file hold, read without their data.

For files far away: of every message only the sections that describe its fields are read. What comes out is the
message with bitmap and data left empty, which says the same about its fields as the whole one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from infra.errors import InvalidFieldError
from infra.grib_messages import message_length

_FIRST_BYTES = 4096
"""Read at once: sections 0 to 5 of nearly every message lie within."""

_END = b"7777"
_NO_BITMAP, _NO_DATA = b"\0\0\0\6\6\xff", b"\0\0\0\5\7"  # sections 6 and 7 of edition 2
_NO_DATA_EDITION_1 = b"\0\0\x0c\x08" + bytes(8)
_GRID_THERE, _BITMAP_THERE, _LARGE = 0x80, 0x40, 0x800000
_UNIT_OF_LARGE = 120

ReadRange = Callable[[int, int], bytes]
"""(start, length) → those bytes of a file; fewer only at its end."""


@dataclass(frozen=True, kw_only=True)
class Outline:
    """A message without its data.

    Args:
        offset, length: bytes of the whole message in its file.
        message: with empty bitmap and data; a message for ``infra.grib_messages.fields``.
    """

    offset: int
    length: int
    message: bytes


def outlines(read: ReadRange, size: int, *, where: str) -> Iterator[Outline]:
    """Of every message of a file, in order.

    Args:
        read: reads the file.
        size: its length in bytes.
        where: its name, for the error message.

    Raises:
        InvalidFieldError: the file is empty, is cut off, or something in it is no message; names the offset.
    """
    offset, found = 0, False
    window = _Window(read=read, size=size)
    while offset < size:
        window.origin = offset
        start = window[0:_FIRST_BYTES]
        padding = len(start) - len(start.lstrip(b"\0"))
        if padding:
            offset += padding
            continue
        here = f"{where} at byte {offset}"
        length = _length(window, here)
        if not 16 <= length <= size - offset:
            raise InvalidFieldError(
                f"{here}: expected {length} bytes, there are {size - offset}: the message is cut off"
            )
        message = _edition_1(window) if start[7] == 1 else _edition_2(window, length, here)
        yield Outline(offset=offset, length=length, message=message)
        found = True
        offset += length
    if not found:
        raise InvalidFieldError(f"{where}: expected GRIB messages, got {size} empty bytes")


@dataclass(kw_only=True)
class _Window:
    """The bytes of a file from the start of a message, read where they are looked at."""

    read: ReadRange
    size: int
    origin: int = 0
    _start: int = 0
    _bytes: bytes = field(default=b"", repr=False)

    def __getitem__(self, part: slice) -> bytes:
        start, stop = self.origin + part.start, min(self.origin + part.stop, self.size)
        if not self._start <= start <= stop <= self._start + len(self._bytes):
            length = min(max(stop - start, _FIRST_BYTES), self.size - start)
            self._start, self._bytes = start, self.read(start, max(length, 0))
        return self._bytes[start - self._start : max(stop, start) - self._start]


def _length(window: _Window, where: str) -> int:
    header = window[0:16]
    length = message_length(header, where=where)
    if len(header) > 7 and header[7] == 1 and length & _LARGE:  # completed by the length of the data section
        rest = window[0 : (length & ~_LARGE) * _UNIT_OF_LARGE + _UNIT_OF_LARGE]
        return message_length(header, where=where, rest=rest)
    return length


def _edition_1(window: _Window) -> bytes:
    product = window[8 : 8 + int.from_bytes(window[8:11], "big")]
    body = product[:7] + bytes([product[7] & ~_BITMAP_THERE]) + product[8:]
    if product[7] & _GRID_THERE:
        grid = 8 + len(product)
        body += window[grid : grid + int.from_bytes(window[grid : grid + 3], "big")]
    body += _NO_DATA_EDITION_1
    return b"GRIB" + (8 + len(body) + 4).to_bytes(3, "big") + b"\1" + body + _END


def _edition_2(window: _Window, length: int, where: str) -> bytes:
    start = window[0:8]
    body, offset = b"", 16
    while offset < length - 4:
        section = window[offset : offset + 5]
        size = int.from_bytes(section[:4], "big")
        if not 5 <= size <= length - 4 - offset:
            raise InvalidFieldError(
                f"{where}: a section at byte {offset} states {size} bytes; {length - 4 - offset} bytes are left"
            )
        kept = {6: _NO_BITMAP, 7: _NO_DATA}.get(section[4])
        body += window[offset : offset + size] if kept is None else kept
        offset += size
    return start + (16 + len(body) + 4).to_bytes(8, "big") + body + _END
