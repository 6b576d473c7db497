"""Headers read in a child process: the same as here, and what kills or stalls the child does no harm."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from infra.errors import InvalidFieldError
from infra.grib_field import header, opened
from infra.grib_headers import HeaderReader, header_reader
from tests.tools.grib_fields import axes, message, weather

INIT = datetime(2026, 1, 1, tzinfo=UTC)


def grib(short_name: str, level: int | None = None, **options: object) -> bytes:
    latitude, longitude = axes(30.0)
    field = weather(short_name, level, INIT, latitude, longitude)
    return message(short_name, field, latitude, longitude, init_time=INIT, level=level, **options)


def test_the_child_reads_what_this_process_would() -> None:
    with header_reader() as headers:
        for single in (grib("t", 500), grib("tp", step=6), grib("2t", edition=1), grib("r", 850)):
            with opened(single, where="here") as handle:
                assert headers.read(single, where="there") == header(handle)


def test_a_message_that_is_refused_is_an_error_and_the_next_one_is_read() -> None:
    with header_reader() as headers:
        with pytest.raises(InvalidFieldError, match="here: "):
            headers.read(b"GRIB" + bytes(40), where="here")
        assert headers.read(grib("t", 500), where="there").level == 500


def test_a_message_that_kills_the_child_costs_the_child_alone(shared_data: Path) -> None:
    # One wrong byte in the grid of an edition 1 message: ecCodes 2.50 reads beyond its memory.
    damaged = bytearray((shared_data / "metview" / "t_n48.grib").read_bytes())
    damaged[60] = 127
    with header_reader() as headers:
        with pytest.raises(
            InvalidFieldError, match=r"here: ecCodes died of a damaged message \(status -\d+\)"
        ):
            headers.read(bytes(damaged), where="here")
        assert headers.read(grib("t", 850), where="after").level == 850


def test_a_child_that_is_gone_is_replaced() -> None:
    with header_reader() as headers:
        child = headers._start()
        child.kill()
        child.wait()
        headers._child = child
        with pytest.raises(InvalidFieldError, match="status -9"):
            headers.read(grib("t", 500), where="here")
        assert headers.read(grib("t", 850), where="after").level == 850


def test_a_message_that_stalls_the_child_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    monkeypatch.setattr(
        HeaderReader,
        "_start",
        lambda self: subprocess.Popen(silent, stdin=subprocess.PIPE, stdout=subprocess.PIPE),
    )
    with (
        header_reader(timeout=0.01) as headers,
        pytest.raises(InvalidFieldError, match=r"here: ecCodes did not read the header within 0.01 s"),
    ):
        headers.read(grib("t", 500), where="here")
