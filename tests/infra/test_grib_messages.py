from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.errors import InvalidFieldError
from infra.grib_field import header, opened
from infra.grib_messages import check_message, fields, message_length, messages
from tests.tools.grib_fields import axes, message

INIT = datetime(2026, 1, 1, tzinfo=UTC)
LATITUDE, LONGITUDE = axes(30.0)


def one(short_name: str = "t", level: int = 500, edition: int = 2) -> bytes:
    values = np.full((LATITUDE.size, LONGITUDE.size), 250.0)
    return message(short_name, values, LATITUDE, LONGITUDE, init_time=INIT, level=level, edition=edition)


def joined(first: bytes, second: bytes) -> bytes:
    """NCEP's way: sections 4 to 7 of the second field behind those of the first, in one message."""
    body, offset = b"", 16
    while offset < len(second) - 4:
        length = int.from_bytes(second[offset : offset + 4], "big")
        if second[offset + 4] >= 4:
            body += second[offset : offset + length]
        offset += length
    whole = first[:-4] + body + b"7777"
    return whole[:8] + len(whole).to_bytes(8, "big") + whole[16:]


def test_messages_come_in_order_and_whole(tmp_path: Path) -> None:
    expected = [one(level=500), one(level=850, edition=1), one("u")]
    path = tmp_path / "three.grib"
    path.write_bytes(expected[0] + b"\0" * 7 + expected[1] + expected[2])
    assert list(messages(path)) == expected


@pytest.mark.parametrize("edition", [1, 2])
def test_length_is_the_messages_own(edition: int) -> None:
    raw = one(edition=edition)
    assert message_length(raw[:16], where="here") == len(raw)


def test_an_edition_1_message_beyond_8_mib_counts_in_120_bytes() -> None:
    # 3 + 3 bytes of sections 1 and 4 would do: section 1 of 28 bytes without grid or bitmap, then the data
    # section whose length field holds what is to be subtracted: total = 120 × units − that + 4.
    total = 9_000_000
    units = -(-total // 120)
    correction = units * 120 - total + 4
    stated = (0x800000 | units).to_bytes(3, "big")
    section_1 = (28).to_bytes(3, "big") + bytes(25)
    head = b"GRIB" + stated + b"\x01" + section_1 + correction.to_bytes(3, "big")
    assert message_length(head[:16], where="here", rest=head) == total


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda raw: raw[:-1], "expected .* bytes, got .*: the message is cut off"),
        (lambda raw: raw[: len(raw) // 2], "expected .* bytes, got .*: the message is cut off"),
        (lambda raw: raw[:-4] + b"7778", "to end with '7777', got b'7778'"),
        (lambda raw: b"BUFR" + raw[4:], "starting with 'GRIB', got b'BUFR'"),
        (lambda raw: raw[:7] + b"\x05" + raw[8:], "edition 1 or 2, got 5"),
        (lambda raw: b"", "starting with 'GRIB', got b''"),
    ],
)
def test_damage_is_refused_with_what_was_expected_and_came(damage, reason: str) -> None:
    with pytest.raises(InvalidFieldError, match=reason):
        check_message(damage(one()), where="here")


def test_a_wrong_length_in_an_index_is_named() -> None:
    raw = one()
    with pytest.raises(InvalidFieldError, match=rf"index gives {len(raw) - 8} bytes, .* states {len(raw)}"):
        check_message(raw[:-8], where="here", length=len(raw) - 8)


def test_an_empty_file_and_rubbish_between_messages_are_refused(tmp_path: Path) -> None:
    empty, rubbish = tmp_path / "empty.grib", tmp_path / "rubbish.grib"
    empty.write_bytes(b"")
    rubbish.write_bytes(one() + b"<html>not found</html>")
    with pytest.raises(InvalidFieldError, match="expected GRIB messages, got 0"):
        list(messages(empty))
    with pytest.raises(InvalidFieldError, match=f"at byte {len(one())}: expected a message"):
        list(messages(rubbish))


def test_two_fields_in_one_message_become_two_messages() -> None:
    u, v = one("u"), one("v")
    taken_apart = fields(joined(u, v), where="here")
    assert taken_apart == [u, v]


def test_a_repeated_bitmap_is_put_back_in_its_place() -> None:
    values = np.full((LATITUDE.size, LONGITUDE.size), 280.0)
    values[0, 0] = 9999.0
    u, v = (
        message(name, values, LATITUDE, LONGITUDE, init_time=INIT, level=500, missing=9999.0)
        for name in ("u", "v")
    )
    whole, offset, number = joined(u, v), 16, 0
    while number < 2:  # the second section 6
        length = int.from_bytes(whole[offset : offset + 4], "big")
        number += whole[offset + 4] == 6
        if number < 2:
            offset += length
    shared = whole[:offset] + (6).to_bytes(4, "big") + b"\x06\xfe" + whole[offset + length :]
    shared = shared[:8] + len(shared).to_bytes(8, "big") + shared[16:]
    assert fields(shared, where="here") == [u, v]


@given(st.binary(min_size=1, max_size=6), st.integers(min_value=16, max_value=200))
@settings(max_examples=60, deadline=None, derandomize=True)  # ecCodes may abort on what was never tried
def test_any_damaged_header_is_read_or_refused_but_never_worse(noise: bytes, position: int) -> None:
    raw = one()
    damaged = raw[:position] + noise + raw[position + len(noise) :]
    try:
        for single in fields(damaged, where="here"):
            with opened(single, where="here") as handle:
                header(handle)
    except InvalidFieldError as error:
        assert "here" in str(error)  # noqa: PT017 - either outcome is right


def test_every_field_of_a_real_gfs_file_is_found(shared_data: Path) -> None:
    path = shared_data / "gfs" / "gfs.t12z.pgrbf120.2p5deg.grib2"
    counts = [len(fields(raw, where="gfs")) for raw in messages(path)]
    assert sum(counts) == 343  # as its provider counts them: u and v share a message
    assert max(counts) == 2
