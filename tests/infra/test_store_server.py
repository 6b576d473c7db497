"""What people see of the store over HTTP, and what they do not."""

from __future__ import annotations

import base64
import http.client
import io
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from infra import object_store, store_server
from infra.errors import StoreError, TransientSourceError
from infra.object_store import ObjectStore
from infra.store_server import serve_store, shown_key
from tests.conftest import free_port

Get = Callable[..., tuple[int, str, bytes]]


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    store = ObjectStore(root=str(tmp_path))
    store.write("catalog/index.html", b"<p>all cycles")
    store.write("cycles/tiny/latest.json", b"{}")
    store.write("initial-conditions/tiny/secret", b"inputs")
    return store


@pytest.fixture(params=[None, "admin:hush"])
def credentials(request: pytest.FixtureRequest) -> str | None:
    return request.param


@pytest.fixture
def get(store: ObjectStore, credentials: str | None) -> Iterator[Get]:
    with served(store, credentials) as get:
        yield get


@contextmanager
def served(store: ObjectStore, credentials: str | None = None) -> Iterator[Get]:
    port = free_port()
    stop = serve_store(lambda: store, host="127.0.0.1", port=port, credentials=credentials)

    def get(path: str, given: str | None = credentials, method: str = "GET") -> tuple[int, str, bytes]:
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
        if given:
            request.add_header("Authorization", "Basic " + base64.b64encode(given.encode()).decode())
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.headers["Content-Type"], answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, "", b""

    try:
        yield get
    finally:
        stop()


class Connection(io.BufferedIOBase):
    """What a handler writes to: passes on what a rule lets through."""

    def __init__(self, inner: io.BufferedIOBase, rule: Callable[[int], None]) -> None:
        self._inner, self._rule = inner, rule

    def write(self, data: Any) -> int:
        self._rule(len(data))
        return self._inner.write(data)


def connect_by(rule: Callable[[int], None], monkeypatch: pytest.MonkeyPatch) -> None:
    set_up = store_server._Handler.setup

    def setup(self: store_server._Handler) -> None:
        set_up(self)
        self.wfile = Connection(self.wfile, rule)

    monkeypatch.setattr(store_server._Handler, "setup", setup)


def test_the_root_is_the_index_and_products_are_shown(get: Get) -> None:
    assert get("/") == (200, "text/html; charset=utf-8", b"<p>all cycles")
    assert get("/catalog/")[2] == b"<p>all cycles"
    assert get("/cycles/tiny/latest.json") == (200, "application/json", b"{}")


def test_inputs_and_what_does_not_exist_are_not_found(get: Get) -> None:
    assert get("/initial-conditions/tiny/secret")[0] == 404
    assert get("/cycles/../initial-conditions/tiny/secret")[0] == 404
    assert get("/cycles/none")[0] == 404


def test_without_the_credentials_nothing_is_shown(get: Get, credentials: str | None) -> None:
    assert get("/", None)[0] == (200 if credentials is None else 401)
    assert get("/", "admin:wrong")[0] == (200 if credentials is None else 401)


@pytest.mark.parametrize(
    "path", ["/cycles/%2e%2e/runs/x", "/..%2f..%2fetc/passwd", "//etc/passwd", "/runs/x"]
)
def test_no_path_leads_out_of_what_is_shown(path: str) -> None:
    assert shown_key(path) is None


def test_an_object_larger_than_a_piece_comes_in_pieces(
    store: ObjectStore, get: Get, credentials: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = bytes(range(256)) * 400
    store.write("cycles/tiny/ensemble.nc", content)
    monkeypatch.setattr(object_store, "_PIECE", 1000)
    monkeypatch.setattr(ObjectStore, "read", whole)
    assert get("/cycles/tiny/ensemble.nc") == (200, "application/x-netcdf", content)
    assert get("/cycles/tiny/none.nc")[0] == 404


def whole(self: ObjectStore, key: str) -> bytes:
    raise AssertionError(f"{key} was read whole")


def test_a_head_tells_the_size_and_reads_nothing(
    store: ObjectStore, get: Get, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[int] = []
    opened = ObjectStore.reading

    @contextmanager
    def counted(self: ObjectStore, key: str) -> Iterator[tuple[int, Iterator[bytes]]]:
        with opened(self, key) as (size, pieces):
            yield size, (reads.append(len(piece)) or piece for piece in pieces)

    monkeypatch.setattr(ObjectStore, "read", whole)
    monkeypatch.setattr(ObjectStore, "reading", counted)
    assert get("/cycles/tiny/latest.json", method="HEAD") == (200, "application/json", b"")
    assert reads == []
    assert get("/cycles/tiny/latest.json")[2] == b"{}"
    assert reads == [2]


def test_a_store_that_fails_in_the_middle_is_seen_by_the_reader(
    store: ObjectStore, get: Get, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def failing(self: ObjectStore, key: str) -> Iterator[tuple[int, Iterator[bytes]]]:
        def pieces() -> Iterator[bytes]:
            yield b"half of"
            raise TransientSourceError("503")

        yield 14, pieces()

    monkeypatch.setattr(ObjectStore, "reading", failing)
    with pytest.raises(http.client.IncompleteRead):
        get("/cycles/tiny/latest.json")


@pytest.mark.parametrize(("fault", "code"), [(StoreError("no"), 404), (TransientSourceError("503"), 502)])
def test_what_cannot_be_opened_is_an_answer(
    fault: Exception, code: int, get: Get, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def failing(self: ObjectStore, key: str) -> Iterator[tuple[int, Iterator[bytes]]]:
        raise fault
        yield 0, iter(())

    monkeypatch.setattr(ObjectStore, "reading", failing)
    assert get("/cycles/tiny/latest.json")[0] == code


def test_a_slow_reader_gets_the_whole_of_a_large_object(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As sendall: its timeout is of the whole call; this reader takes 10 kB/s."""

    def slow(size: int) -> None:
        if size / 10e3 > store_server._Handler.timeout:
            raise TimeoutError("timed out")

    content = bytes(range(256)) * 8192
    store.write("cycles/tiny/ensemble.nc", content)
    connect_by(slow, monkeypatch)
    with served(store) as get:
        assert get("/cycles/tiny/ensemble.nc")[2] == content


@pytest.mark.parametrize("path", ["/cycles/tiny/latest.json", "/cycles/tiny/none.nc", "/elsewhere"])
@pytest.mark.parametrize("fault", [BrokenPipeError, ConnectionResetError, TimeoutError])
def test_of_a_reader_that_leaves_nothing_is_told(
    path: str,
    fault: type[OSError],
    store: ObjectStore,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    writes: list[int] = []

    def gone(size: int) -> None:
        writes.append(size)
        raise fault("gone")

    connect_by(gone, monkeypatch)
    with served(store) as get, pytest.raises(http.client.RemoteDisconnected):
        get(path)
    assert len(writes) == 1  # no second answer on the broken connection
    assert capsys.readouterr().err == ""


def test_small_objects_and_heads_wait_for_no_reader(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_server, "_AT_ONCE", 0)
    monkeypatch.setattr(store_server._Handler, "timeout", 0.5)
    store.write("cycles/tiny/ensemble.nc", bytes(2 << 20))
    with served(store) as get:
        assert get("/cycles/tiny/ensemble.nc")[0] == 503
        assert get("/cycles/tiny/ensemble.nc", method="HEAD")[0] == 200
        assert get("/")[2] == b"<p>all cycles"


def test_only_so_many_large_objects_are_read_at_once(
    store: ObjectStore, get: Get, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, most, lock = 0, 0, threading.Lock()
    enough = threading.Event()
    opened = ObjectStore.reading

    @contextmanager
    def counted(self: ObjectStore, key: str) -> Iterator[tuple[int, Iterator[bytes]]]:
        def limited(pieces: Iterator[bytes]) -> Iterator[bytes]:
            nonlocal reading, most
            with lock:
                reading += 1
                most = max(most, reading)
                if reading == 8:
                    enough.set()
            assert enough.wait(30)
            yield from pieces
            with lock:
                reading -= 1

        with opened(self, key) as (size, pieces):
            yield size, limited(pieces)

    monkeypatch.setattr(store_server, "_SMALL", 0)
    monkeypatch.setattr(ObjectStore, "reading", counted)
    with ThreadPoolExecutor(16) as readers:
        answers = list(readers.map(lambda _: get("/cycles/tiny/latest.json")[0], range(32)))
    assert answers == [200] * 32
    assert most == 8
