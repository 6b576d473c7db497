"""The image's health check sees a worker that has stopped polling."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from infra.container_health import is_healthy
from tests.conftest import free_port

WORKER = ("tini", "-g", "--", "prefect", "worker", "start", "--pool", "gpu", "--with-healthcheck")
FLOW_RUN = ("tini", "-g", "--", "prefect", "flow-run", "execute")


@contextmanager
def answering(code: int) -> Iterator[str]:
    """A worker's report on loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(code)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/health"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(("code", "healthy"), [(200, True), (503, False)])
def test_a_worker_is_as_healthy_as_it_says(code: int, healthy: bool) -> None:
    with answering(code) as url:
        assert is_healthy(WORKER, url=url) is healthy


def test_a_worker_that_does_not_answer_is_not_healthy() -> None:
    assert not is_healthy(WORKER, url=f"http://127.0.0.1:{free_port()}/health")


def test_a_flow_run_has_no_worker_to_ask() -> None:
    assert is_healthy(FLOW_RUN, url=f"http://127.0.0.1:{free_port()}/health")


def test_prefects_worker_reports_where_it_is_asked() -> None:
    from prefect.settings import get_current_settings

    from infra.container_health import HEALTH_URL

    webserver = get_current_settings().worker.webserver
    assert f"http://127.0.0.1:{webserver.port}/health" == HEALTH_URL
    assert webserver.host in ("0.0.0.0", "127.0.0.1")
