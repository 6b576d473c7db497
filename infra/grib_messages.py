"""GRIB files as bytes: where messages begin and end, and one message for every field.

The framing is checked here, before ecCodes sees a byte: a message starts with ``GRIB``, states its own length
and ends with ``7777`` (WMO Manual on Codes, FM 92 GRIB). ecCodes' own multi-field support is a switch for the
whole process, so messages that hold several fields (NCEP puts v behind u) are taken apart here instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from infra.errors import InvalidFieldError

_START, _END = b"GRIB", b"7777"
_LARGE_EDITION_1 = 0x800000
_PREVIOUS_BITMAP = 254


def messages(path: Path) -> Iterator[bytes]:
    """Every message of a file in order, whole and framed.

    Raises:
        InvalidFieldError: the file is empty, or something in it is no message; names the offset.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidFieldError(f"{path}: cannot be read: {error}") from error
    offset = 0
    while offset < len(data):
        length = message_length(
            data[offset : offset + 16], where=f"{path} at byte {offset}", rest=memoryview(data)[offset:]
        )
        message = data[offset : offset + length]
        check_message(message, where=f"{path} at byte {offset}", length=length)
        yield message
        offset += length
        while offset < len(data) and data[offset] == 0:
            offset += 1
    if not data.strip(b"\0"):
        raise InvalidFieldError(f"{path}: expected GRIB messages, got {len(data)} empty bytes")


def message_length(header: bytes, *, where: str, rest: bytes | memoryview = b"") -> int:
    """The length in bytes that a message states in its first 16 bytes.

    Args:
        header: the first 16 bytes.
        where: for the error message.
        rest: the message from its start, for edition 1 messages beyond 8 MiB, whose stated length counts in
            units of 120 bytes and is completed by the length of the data section (ECMWF's convention).

    Raises:
        InvalidFieldError: these are not the first bytes of a GRIB message.
    """
    if header[:4] != _START:
        raise InvalidFieldError(f"{where}: expected a message starting with 'GRIB', got {header[:4]!r}")
    edition = header[7] if len(header) > 7 else None
    if edition == 2 and len(header) >= 16:
        return int.from_bytes(header[8:16], "big")
    if edition == 1:
        length = int.from_bytes(header[4:7], "big")
        return _large_edition_1_length(length, rest) if length & _LARGE_EDITION_1 and rest else length
    raise InvalidFieldError(f"{where}: expected GRIB edition 1 or 2, got {edition} ({len(header)} bytes)")


def _large_edition_1_length(stated: int, message: bytes | memoryview) -> int:
    offset = 8
    flags = message[offset + 7] if len(message) > offset + 7 else 0
    sections = 1 + bool(flags & 0x80) + bool(flags & 0x40)  # product definition, grid, bitmap
    for _ in range(sections):
        offset += int.from_bytes(message[offset : offset + 3], "big")
    data_section = int.from_bytes(message[offset : offset + 3], "big")
    if data_section >= 120:  # an ordinary length that merely has its highest bit set
        return stated
    return (stated & ~_LARGE_EDITION_1) * 120 - data_section + 4


def check_message(message: bytes, *, where: str, length: int | None = None) -> None:
    """Refuse bytes that are not exactly one whole GRIB message.

    Args:
        message: the bytes.
        where: what they are, for the error message.
        length: how long an index says the message is; default: as the message itself states.

    Raises:
        InvalidFieldError: says what was expected and what came.
    """
    stated = message_length(message[:16], where=where, rest=message)
    expected = stated if length is None else length
    if stated != expected:
        raise InvalidFieldError(
            f"{where}: the index gives {expected} bytes, the message itself states {stated} bytes"
        )
    if len(message) != expected:
        raise InvalidFieldError(
            f"{where}: expected {expected} bytes, got {len(message)}: the message is cut off"
        )
    if message[-4:] != _END:
        raise InvalidFieldError(f"{where}: expected the message to end with '7777', got {message[-4:]!r}")


def fields(message: bytes, *, where: str) -> list[bytes]:
    """A message for each field of a message: most hold one field, NCEP's hold u and v.

    In edition 2 sections 2–7, 3–7 or 4–7 may repeat; a field takes what was said last. A repeated section 6
    may refer to the bitmap before it, which is then put in its place.

    Raises:
        InvalidFieldError: the sections do not add up to the message.
    """
    if message[7] == 1:
        return [message]
    latest: dict[int, bytes] = {}
    bitmap = b""
    found: list[list[bytes]] = []
    offset = 16
    while offset < len(message) - 4:
        length = int.from_bytes(message[offset : offset + 4], "big")
        number = message[offset + 4]
        if not (5 <= length <= len(message) - 4 - offset and 1 <= number <= 7):
            raise InvalidFieldError(
                f"{where}: section {number} at byte {offset} states {length} bytes; "
                f"{len(message) - 4 - offset} bytes are left"
            )
        section = message[offset : offset + length]
        if number == 6:
            if section[5:6] == bytes([_PREVIOUS_BITMAP]):
                section = bitmap
            bitmap = section
        latest[number] = section
        if number == 7:
            missing = [n for n in (1, 3, 4, 5, 6) if n not in latest]
            if missing:
                raise InvalidFieldError(
                    f"{where}: expected sections 1 and 3 to 6 before the data, lacks {missing}"
                )
            found.append([latest[n] for n in range(1, 8) if n in latest])
        offset += length
    if offset != len(message) - 4 or not found:
        raise InvalidFieldError(f"{where}: expected sections up to the end mark and data in them")
    if len(found) == 1:
        return [message]
    return [_assemble(message[:8], sections) for sections in found]


def _assemble(start: bytes, sections: list[bytes]) -> bytes:
    body = b"".join(sections)
    return start + (16 + len(body) + 4).to_bytes(8, "big") + body + _END
