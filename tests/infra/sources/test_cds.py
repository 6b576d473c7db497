from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from infra.errors import MissingDataError, TransientSourceError
from infra.grib import decode, experiment_versions
from infra.retry import RetryPolicy
from infra.sources.cds import Cds, build_requests
from infra.sources.source import FieldRequest
from tests.tools.grib_fields import axes, message, weather

TIME = datetime(2026, 3, 1, 3, tzinfo=UTC)


def request(*variables: str, levels: tuple[int, ...] = (500, 850)) -> FieldRequest:
    return FieldRequest(valid_time=TIME, variables=variables, levels=levels)


def test_surface_and_levels_are_asked_for_apart() -> None:
    wanted = request("2m_temperature", "geopotential_at_surface", "geopotential", "temperature")
    single, upper = build_requests(wanted)
    assert single.dataset == "reanalysis-era5-single-levels"
    assert single.inputs["variable"] == ["2m_temperature", "geopotential"]
    assert "pressure_level" not in single.inputs
    assert upper.dataset == "reanalysis-era5-pressure-levels"
    assert upper.inputs["pressure_level"] == ["500", "850"]
    assert upper.inputs["time"] == ["03:00"]
    assert (upper.inputs["year"], upper.inputs["month"], upper.inputs["day"]) == (["2026"], ["03"], ["01"])


def test_the_hours_of_precipitation_may_lie_in_two_months() -> None:
    before, after = build_requests(request("total_precipitation_6hr", levels=()))
    assert (before.inputs["month"], before.inputs["day"]) == (["02"], ["28"])
    assert before.inputs["time"] == ["22:00", "23:00"]
    assert after.inputs["time"] == ["00:00", "01:00", "02:00", "03:00"]
    assert before.file_name != after.file_name


class Service:
    """The retrieve API: every job is queued once, then done (or failed)."""

    def __init__(self) -> None:
        self.posted: list[dict] = []
        self.keys: set[str | None] = set()
        self.polls = 0
        self.fail = False
        self.never = False
        self.lose_answer = False
        self.forgotten = False
        self.url = ""

    def result(self) -> bytes:
        latitude, longitude = axes(30.0)
        field = weather("2t", None, TIME, latitude, longitude)
        return message("2t", field, latitude, longitude, init_time=TIME, edition=1, expver="0005")


@pytest.fixture
def service() -> Iterator[Service]:
    state = Service()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *arguments: object) -> None:
            """Say nothing."""

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            state.posted.append(json.loads(body)["inputs"])
            if state.lose_answer:
                state.lose_answer = False
                self.close_connection = True
                return
            self.answer({"jobID": "j1", "status": "accepted"}, 201)

        def do_GET(self) -> None:
            state.keys.add(self.headers.get("PRIVATE-TOKEN"))
            if self.path.endswith("/results"):
                size = len(state.result())
                asset = {"href": f"{state.url}/file", "file:size": size}
                failure = {"title": "failed", "detail": "no such data"}
                self.answer(
                    failure if state.fail else {"asset": {"value": asset}}, 400 if state.fail else 200
                )
            elif "/jobs?" in self.path:
                jobs = [
                    {"jobID": "other", "status": "running", "processID": "reanalysis-era5-pressure-levels"},
                    {"jobID": "old", "status": "successful", "processID": "reanalysis-era5-single-levels"},
                    *({"jobID": "j1", "status": "running", "processID": "reanalysis-era5-single-levels"}
                      for _ in state.posted[:1]),
                ]  # fmt: skip
                self.answer({"jobs": jobs})
            elif self.path.endswith("?request=true"):
                self.answer({"jobID": "j1", "metadata": {"request": {"ids": state.posted[0]}}})
            elif state.forgotten and "/jobs/" in self.path:
                state.forgotten = False
                self.answer({"title": "job not found"}, 404)
            elif "/jobs/" in self.path:
                state.polls += 1
                done = "failed" if state.fail else "successful"
                self.answer({"jobID": "j1", "status": "running" if state.never or state.polls < 2 else done})
            elif self.path.endswith("/file"):
                self.send_response(200)
                self.send_header("Content-Length", str(len(state.result())))
                self.end_headers()
                self.wfile.write(state.result())
            else:
                interval = [["1940-01-01T00:00:00Z", "2026-03-05T00:00:00Z"]]
                self.answer({"extent": {"temporal": {"interval": interval}}})

        def answer(self, body: dict, status: int = 200) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{http.server_address[1]}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield state
    http.shutdown()
    http.server_close()
    thread.join()


def source(service: Service) -> Cds:
    return Cds(
        key="secret",
        endpoint=service.url,
        retry=RetryPolicy(attempts=2, sleep=lambda _: None),
        pause=lambda _: None,
    )


def test_a_job_is_posted_waited_for_and_read(service: Service, tmp_path: Path) -> None:
    (file,) = source(service).fetch(request("2m_temperature", levels=()), tmp_path)
    assert service.posted[0]["variable"] == ["2m_temperature"]
    assert service.keys == {"secret", None}  # the file itself needs no key
    dataset = decode(file.path)
    assert experiment_versions(dataset) == {"20260301T03Z": ["0005"]}
    assert "secret" not in repr(source(service))


def test_what_is_there_is_not_asked_for_again(service: Service, tmp_path: Path) -> None:
    wanted = request("2m_temperature", levels=())
    assert source(service).fetch(wanted, tmp_path) == source(service).fetch(wanted, tmp_path)
    assert len(service.posted) == 1


def test_a_failed_job_gives_its_reason(service: Service, tmp_path: Path) -> None:
    service.fail = True
    with pytest.raises(MissingDataError, match="failed: no such data"):
        source(service).fetch(request("2m_temperature", levels=()), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_queue_that_does_not_move_may_pass(service: Service, tmp_path: Path) -> None:
    service.never = True
    ticks = iter(range(0, 10**6, 3600))
    waiting = Cds(
        key="k",
        endpoint=service.url,
        longest_wait=timedelta(minutes=5),
        pause=lambda _: None,
        clock=lambda: float(next(ticks)) / 1e3,
        retry=RetryPolicy(attempts=1),
    )
    with pytest.raises(TransientSourceError, match="still running after 0:05:00"):
        waiting.fetch(request("2m_temperature", levels=()), tmp_path)


def interrupted(service: Service, folder: Path) -> None:
    class Killed(BaseException):
        pass

    def pause(_: float) -> None:
        raise Killed

    service.never = True
    with pytest.raises(Killed):
        Cds(key="secret", endpoint=service.url, pause=pause).fetch(
            request("2m_temperature", levels=()), folder
        )
    service.never = False
    assert len(service.posted) == 1


def test_who_was_interrupted_takes_up_the_job(service: Service, tmp_path: Path) -> None:
    interrupted(service, tmp_path)
    (file,) = source(service).fetch(request("2m_temperature", levels=()), tmp_path)
    assert len(service.posted) == 1
    assert list(tmp_path.iterdir()) == [file.path]


def test_a_job_is_found_again_from_another_folder(service: Service, tmp_path: Path) -> None:
    interrupted(service, tmp_path / "temporary")
    source(service).fetch(request("2m_temperature", levels=()), tmp_path / "another")
    assert len(service.posted) == 1


def test_a_job_of_another_request_is_not_taken(service: Service, tmp_path: Path) -> None:
    interrupted(service, tmp_path)
    source(service).fetch(request("mean_sea_level_pressure", levels=()), tmp_path)
    assert len(service.posted) == 2


def test_an_answer_that_was_lost_makes_no_second_job(service: Service, tmp_path: Path) -> None:
    service.lose_answer = True
    source(service).fetch(request("2m_temperature", levels=()), tmp_path)
    assert len(service.posted) == 1


def test_a_job_that_was_forgotten_is_posted_anew(service: Service, tmp_path: Path) -> None:
    interrupted(service, tmp_path)
    service.forgotten = True
    service.posted[0] = {}  # nor is it in the list
    source(service).fetch(request("2m_temperature", levels=()), tmp_path)
    assert len(service.posted) == 2


def test_the_catalogue_says_where_era5t_ends(service: Service) -> None:
    assert source(service).available(request("2m_temperature", levels=())).complete
    late = FieldRequest(valid_time=TIME + timedelta(days=9), variables=("2m_temperature",))
    assert "ERA5T ends 20260305T00Z" in source(service).available(late).missing[0]
