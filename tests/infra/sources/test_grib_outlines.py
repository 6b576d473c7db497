from __future__ import annotations

from datetime import UTC, datetime

import pytest

from infra.errors import InvalidFieldError
from infra.grib_field import header, opened
from infra.grib_messages import fields
from infra.sources.grib_outlines import outlines
from tests.infra.sources.test_gfs import together
from tests.tools.grib_fields import axes, message, weather

TIME = datetime(2026, 1, 1, 6, tzinfo=UTC)


def raw(short_name: str, level: int | None = None, **options) -> bytes:
    latitude, longitude = axes(5.0, first_longitude=0.0)
    field = weather(short_name, level, TIME, latitude, longitude)
    return message(short_name, field, latitude, longitude, init_time=TIME, level=level, **options)


def headers(single_or_several: bytes) -> list:
    found = []
    for single in fields(single_or_several, where="here"):
        with opened(single, where="here") as handle:
            found.append(header(handle))
    return found


def test_an_outline_says_the_same_as_the_message() -> None:
    simple = {"packing": "grid_simple"}
    messages = [
        raw("t", 500),
        raw("2t", edition=1),
        raw("lsm", missing=0.0),
        raw("lsm", edition=1, missing=0.0),
        raw("tp", step=6, expver="0005"),
        together(raw("u", 500, **simple), raw("v", 500, **simple)),
        raw("msl", number=7),
    ]
    data = b"\0\0".join(messages)

    def read(start: int, length: int) -> bytes:
        return data[start : start + length]

    found = list(outlines(read, len(data), where="here"))
    assert [data[each.offset : each.offset + each.length] for each in found] == messages
    assert [headers(each.message) for each in found] == [headers(whole) for whole in messages]
    assert len(headers(found[5].message)) == 2


@pytest.mark.parametrize("kept", [3, 12, 100, -1])
def test_a_file_that_is_cut_off_is_refused(kept: int) -> None:
    data = raw("t", 500)[:kept]
    with pytest.raises(InvalidFieldError, match="here at byte 0"):
        list(outlines(lambda start, length: data[start : start + length], len(data), where="here"))


def test_what_is_no_message_is_refused() -> None:
    data = raw("t", 500) + b"<html>" * 9
    with pytest.raises(InvalidFieldError, match=rf"here at byte {len(raw('t', 500))}: .* got b'<htm'"):
        list(outlines(lambda start, length: data[start : start + length], len(data), where="here"))
    with pytest.raises(InvalidFieldError, match="got 9 empty bytes"):
        list(outlines(lambda start, length: bytes(length), 9, where="here"))
