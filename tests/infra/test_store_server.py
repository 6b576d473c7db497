"""What people see of the store over HTTP, and what they do not."""

from __future__ import annotations

import base64
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

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
    port = free_port()
    stop = serve_store(lambda: store, host="127.0.0.1", port=port, credentials=credentials)

    def get(path: str, given: str | None = credentials) -> tuple[int, str, bytes]:
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}")
        if given:
            request.add_header("Authorization", "Basic " + base64.b64encode(given.encode()).decode())
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.headers["Content-Type"], answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, "", b""

    yield get
    stop()


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
