from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest
from botocore.parsers import ResponseParserError
from fsspec.asyn import AsyncFileSystem

from infra.errors import InvalidFieldError, MissingDataError, TransientSourceError
from infra.sources.remote import FilesystemRemote, HttpRemote, open_remote, provider_errors, within
from tests.tools.loopback import Fault, serving


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data").write_bytes(bytes(range(200)))
    return tmp_path


def test_http_and_a_folder_give_the_same(folder: Path) -> None:
    with serving(folder) as server:
        for root in (server.url, str(folder)):
            with open_remote(root) as remote:
                assert remote.read(f"{root}/data") == bytes(range(200))
                assert remote.size(f"{root}/data") == 200
                assert b"".join(remote.stream(f"{root}/data", start=50, length=7)) == bytes(range(50, 57))
                with pytest.raises(MissingDataError, match="nothing: not there"):
                    remote.read(f"{root}/nothing")


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (403, MissingDataError),
        (404, MissingDataError),
        (408, TransientSourceError),
        (429, TransientSourceError),
        (500, TransientSourceError),
        (503, TransientSourceError),
        (418, InvalidFieldError),
    ],
)
def test_what_a_status_means(folder: Path, status: int, error: type[Exception]) -> None:
    with serving(folder) as server, open_remote(server.url) as remote:
        server.faults.append(Fault("data", status=status))
        with pytest.raises(error, match=f"/data: .*{status}"):
            remote.read(f"{server.url}/data")


def test_an_answer_that_ends_early_may_pass(folder: Path) -> None:
    with serving(folder) as server, open_remote(server.url) as remote:
        server.faults.append(Fault("data", cut_after=3))
        with pytest.raises(TransientSourceError, match="/data"):
            b"".join(remote.stream(f"{server.url}/data", start=0, length=100))


def test_a_range_beyond_the_end_is_damage(folder: Path) -> None:
    shorter = pytest.raises(InvalidFieldError, match="shorter than its index says")
    with serving(folder) as server, open_remote(server.url) as remote, shorter:
        b"".join(remote.stream(f"{server.url}/data", start=500, length=10))


def test_a_range_answered_with_the_whole_file_is_refused(folder: Path) -> None:
    with serving(folder) as server, open_remote(server.url) as remote:
        server.faults.append(Fault("data", status=200))
        with pytest.raises(InvalidFieldError, match="expected HTTP 206 bytes 0–9, got 200"):
            b"".join(remote.stream(f"{server.url}/data", start=0, length=10))


def test_nobody_listening_may_pass(folder: Path) -> None:
    with serving(folder) as server:
        url = server.url
    with open_remote(url) as remote, pytest.raises(TransientSourceError, match="ConnectError"):
        remote.read(f"{url}/data")


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (ResponseParserError("an answer that was cut"), TransientSourceError),
        (ConnectionResetError("reset"), TransientSourceError),
        (TimeoutError("no answer"), TransientSourceError),
        (FileNotFoundError("no object"), MissingDataError),
        (PermissionError("forbidden"), MissingDataError),
        (IsADirectoryError("a folder"), MissingDataError),
    ],
    ids=lambda given: type(given).__name__ if isinstance(given, Exception) else given.__name__,
)
def test_what_a_client_librarys_failure_means(failure: Exception, error: type[Exception]) -> None:
    with pytest.raises(error, match="s3://there"), provider_errors("s3://there"):
        raise failure


def test_google_clouds_own_failure_may_pass() -> None:
    gcsfs = pytest.importorskip("gcsfs")
    with pytest.raises(TransientSourceError, match="gs://there"), provider_errors("gs://there"):
        raise gcsfs.retry.HttpError({"message": "backend error", "code": 503})


def test_a_server_that_sends_a_byte_now_and_then_is_given_up() -> None:
    seconds = iter(range(0, 10**6, 29))  # below any limit on the time without a byte
    taken = []
    with pytest.raises(TransientSourceError, match=r"there: too slow: .* 100 s, got 4 bytes in 116 s"):
        taken.extend(within(iter([b"x"] * 99), seconds=100, url="there", clock=lambda: float(next(seconds))))
    assert taken == [b"x"] * 3


def test_every_answer_over_http_has_a_limit(folder: Path) -> None:
    def hours() -> float:
        hours.now += 3600.0
        return hours.now

    hours.now = 0.0
    with serving(folder) as server, httpx.Client() as client:
        remote = HttpRemote(client, clock=hours)
        with pytest.raises(TransientSourceError, match="too slow"):
            remote.read(f"{server.url}/data")
        with pytest.raises(TransientSourceError, match="too slow"):
            b"".join(remote.stream(f"{server.url}/data", start=0, length=100))


class Silent(AsyncFileSystem):
    """Accepts requests and never answers."""

    cachable = False
    protocol = "silent"

    async def _cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **_: object
    ) -> bytes:
        await asyncio.Event().wait()
        return b""

    async def _size(self, path: str) -> int:
        await asyncio.Event().wait()
        return 0


def test_every_answer_of_an_object_store_has_a_limit() -> None:
    remote = FilesystemRemote(Silent(), timeout=0.05)
    with pytest.raises(TransientSourceError, match="silent://bucket/key"):
        remote.size("silent://bucket/key")
    with pytest.raises(TransientSourceError, match="silent://bucket/key"):
        b"".join(remote.stream("silent://bucket/key", start=0, length=10))
