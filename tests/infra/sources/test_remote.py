from __future__ import annotations

from pathlib import Path

import pytest

from infra.errors import InvalidFieldError, MissingDataError, TransientSourceError
from infra.sources.remote import open_remote
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
