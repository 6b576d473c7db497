"""ERA5 from the Copernicus Climate Data Store as GRIB, by its retrieve API.

https://cds.climate.copernicus.eu/how-to-api: a request is posted, becomes a job, and its result is one GRIB
file. Only what is not already in the folder is asked for. A job waits in a queue, maybe for hours: its number is
noted beside the result, and where that was lost the account's jobs are looked through, so that who comes again
takes up the job instead of queueing anew. Final ERA5 (experiment 0001) and ERA5T (0005) come
in one file and are told apart in every message.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import httpx

from infra.errors import InvalidFieldError, MissingDataError, TransientSourceError
from infra.grib_messages import messages
from infra.retry import RetryPolicy
from infra.sources.remote import http_errors, stated_length, time_limit, within
from infra.sources.source import Availability, FieldRequest, RawFile, SourceKind, SourceOffer
from infra.whole_files import whole_when_done
from model.variables import COMPUTED_FORCINGS, LEVELS_37, VARIABLES

ENDPOINT = "https://cds.climate.copernicus.eu/api"
_SINGLE_LEVELS, _PRESSURE_LEVELS = "reanalysis-era5-single-levels", "reanalysis-era5-pressure-levels"
_ACCUMULATIONS = {"total_precipitation_6hr": 6, "total_precipitation_12hr": 12}
_CDS_NAMES = {
    "geopotential_at_surface": "geopotential",
    **dict.fromkeys(_ACCUMULATIONS, "total_precipitation"),
}
_POLL_SECONDS = 10.0
_TIMEOUT_SECONDS = 60.0
_JOBS_LOOKED_THROUGH = 50
_UNDER_WAY = ("accepted", "running")
"""States of a job that will change; the others are successful, failed, rejected, dismissed and deleted."""


@dataclass(frozen=True, kw_only=True)
class CdsRequest:
    """One retrieval.

    Args:
        dataset: collection of the data store.
        inputs: what it takes: variables, dates, times, levels, format.
    """

    dataset: str
    inputs: Mapping[str, Any]

    @property
    def file_name(self) -> str:
        """Where its result is kept: unique to the request."""
        text = json.dumps([self.dataset, self.inputs], sort_keys=True)
        return f"{self.dataset}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.grib"


def build_requests(request: FieldRequest) -> tuple[CdsRequest, ...]:
    """The retrievals that together hold a request: surface, pressure levels, and hours of precipitation."""
    now = request.valid_time
    surface = [name for name in request.variables if name not in (*request.on_levels, *_ACCUMULATIONS)]
    requests = []
    if surface:
        requests.append(_retrieval(_SINGLE_LEVELS, surface, [now]))
    if request.on_levels:
        requests.append(_retrieval(_PRESSURE_LEVELS, request.on_levels, [now], request.levels))
    hours = max((_ACCUMULATIONS.get(name, 0) for name in request.variables), default=0)
    ends = [now - timedelta(hours=hour) for hour in reversed(range(hours))]
    for day in sorted({end.date() for end in ends}):
        of_day = [end for end in ends if end.date() == day]
        requests.append(_retrieval(_SINGLE_LEVELS, [next(iter(_ACCUMULATIONS))], of_day))
    return tuple(requests)


def _retrieval(
    dataset: str, names: Sequence[str], times: Sequence[datetime], levels: Sequence[int] = ()
) -> CdsRequest:
    inputs: dict[str, Any] = {
        "product_type": ["reanalysis"],
        "variable": sorted({_CDS_NAMES.get(name, name) for name in names}),
        "year": [f"{times[0]:%Y}"],
        "month": [f"{times[0]:%m}"],
        "day": [f"{times[0]:%d}"],
        "time": [f"{time:%H}:00" for time in times],
        "data_format": "grib",
        "download_format": "unarchived",
    }
    if levels:
        inputs["pressure_level"] = [str(level) for level in levels]
    return CdsRequest(dataset=dataset, inputs=inputs)


@dataclass(frozen=True, kw_only=True)
class Cds:
    """The data store as a source.

    Args:
        name: as configured.
        key: personal access token.
        endpoint: URL of the API.
        longest_wait: for the jobs of one request, until they count as failed for now; whoever comes again goes
            on waiting for the same jobs.
        retry: for each HTTP request.
        clock, pause: replaced in tests.
    """

    key: str = field(repr=False)
    name: str = "cds"
    kind: SourceKind = "era5"
    endpoint: str = ENDPOINT
    longest_wait: timedelta = timedelta(minutes=25)
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    clock: Callable[[], float] = field(default=monotonic, repr=False, compare=False)
    pause: Callable[[float], None] = field(default=sleep, repr=False, compare=False)

    def offers(self) -> SourceOffer:
        """All of ERA5 that the models take."""
        known = (frozenset(VARIABLES) | {"skin_temperature", "sea_ice_cover"}) - COMPUTED_FORCINGS
        return SourceOffer(
            direct=known - frozenset(_ACCUMULATIONS),
            derived=dict.fromkeys(_ACCUMULATIONS, "the sum of hourly accumulations"),
            levels=LEVELS_37,
        )

    def available(self, request: FieldRequest) -> Availability:
        """Asks the catalogue for the end of the data; completeness shows when the result is read."""
        url = f"{self.endpoint}/catalogue/v1/collections/{_SINGLE_LEVELS}"
        interval = (
            self._json("GET", url).get("extent", {}).get("temporal", {}).get("interval", [[None, None]])
        )
        end = interval[0][1]
        last = datetime.fromisoformat(str(end).replace("Z", "+00:00")) if end else None
        if last is not None and request.valid_time > last:
            missing = (f"{request.valid_time:%Y%m%dT%HZ}: ERA5T ends {last:%Y%m%dT%HZ}",)
            return Availability(complete=False, missing=missing, source=url)
        return Availability(complete=True, source=url)

    def fetch(self, request: FieldRequest, folder: Path) -> tuple[RawFile, ...]:
        """One GRIB file for each retrieval; all are queued before the first is waited for."""
        folder.mkdir(parents=True, exist_ok=True)
        paths = {folder / retrieval.file_name: retrieval for retrieval in build_requests(request)}
        absent = {path: retrieval for path, retrieval in paths.items() if not path.exists()}
        jobs = {path: self._job(retrieval, _note(path)) for path, retrieval in absent.items()}
        deadline = self.clock() + self.longest_wait.total_seconds()
        for path, retrieval in absent.items():
            try:
                self._bring(jobs[path], retrieval, path, deadline)
            except (MissingDataError, InvalidFieldError):  # nothing will come of this job
                _note(path).unlink(missing_ok=True)
                raise
            _note(path).unlink(missing_ok=True)
        return tuple(self._described(path, retrieval) for path, retrieval in paths.items())

    def _described(self, path: Path, retrieval: CdsRequest) -> RawFile:
        return RawFile(
            path=path,
            format="grib",
            url=f"{self.endpoint}#{retrieval.dataset}",
            sha256=tuple(hashlib.sha256(message).hexdigest() for message in messages(path)),
            size=path.stat().st_size,
        )

    @property
    def _base(self) -> str:
        return f"{self.endpoint}/retrieve/v1"

    def _job(self, retrieval: CdsRequest, note: Path) -> str:
        """URL of a job for a retrieval: the one noted, one that is under way already, or a new one."""
        if note.exists():
            url = f"{self._base}/jobs/{note.read_text().strip()}"
            try:
                self._json("GET", url)
                return url
            except MissingDataError:  # the data store has forgotten it
                note.unlink(missing_ok=True)
        number = str(self.retry.run(lambda: self._under_way(retrieval) or self._posted(retrieval)))
        with whole_when_done(note) as temporary:
            temporary.write_text(number)
        return f"{self._base}/jobs/{number}"

    def _posted(self, retrieval: CdsRequest) -> str:
        url = f"{self._base}/processes/{retrieval.dataset}/execution"
        job = self._json_once("POST", url, {"inputs": dict(retrieval.inputs)})
        if "jobID" not in job:
            raise InvalidFieldError(f"{url}: expected jobID, got {job}")
        return str(job["jobID"])

    def _under_way(self, retrieval: CdsRequest) -> str | None:
        """A job of this account for the same retrieval, e.g. one whose number never reached us."""
        try:
            latest = self._json_once("GET", f"{self._base}/jobs?limit={_JOBS_LOOKED_THROUGH}&sort=-created")
            for job in latest.get("jobs", []):
                if job.get("processID") == retrieval.dataset and job.get("status") in _UNDER_WAY:
                    whole = self._json_once("GET", f"{self._base}/jobs/{job['jobID']}?request=true")
                    if _asks_for(whole, retrieval):
                        return str(job["jobID"])
        except MissingDataError:  # no such list: an older or a smaller server
            return None
        return None

    def _bring(self, url: str, retrieval: CdsRequest, path: Path, deadline: float) -> None:
        while (status := str(self._json("GET", url).get("status"))) in _UNDER_WAY:
            if self.clock() > deadline:
                raise TransientSourceError(f"{url}: still {status} after {self.longest_wait}")
            self.pause(_POLL_SECONDS)
        if status != "successful":
            reason = self._json("GET", f"{url}/results", tolerate=True)
            raise MissingDataError(
                f"{url}: {status}: {reason.get('detail') or reason.get('title') or reason} for {retrieval}"
            )
        asset = self._json("GET", f"{url}/results").get("asset", {}).get("value", {})
        if "href" not in asset:
            raise InvalidFieldError(f"{url}/results: expected asset.value.href, got {asset}")
        self.retry.run(lambda: self._download(asset["href"], asset.get("file:size"), path))

    def _json(self, method: str, url: str, *, tolerate: bool = False) -> dict[str, Any]:
        return self.retry.run(lambda: self._json_once(method, url, tolerate=tolerate))

    def _json_once(
        self, method: str, url: str, body: Mapping[str, Any] | None = None, *, tolerate: bool = False
    ) -> dict[str, Any]:
        headers = {"PRIVATE-TOKEN": self.key}
        with (
            http_errors(url),
            httpx.stream(method, url, json=body, headers=headers, timeout=_TIMEOUT_SECONDS) as response,
        ):
            if not tolerate:
                _check(response, url)
            limit = time_limit(_TIMEOUT_SECONDS, stated_length(response))
            text = b"".join(within(response.iter_bytes(), seconds=limit, url=url, clock=self.clock))
        try:
            return dict(json.loads(text))
        except (ValueError, TypeError) as error:
            raise InvalidFieldError(f"{url}: expected a JSON object, got {text[:120]!r}") from error

    def _download(self, url: str, size: int | None, path: Path) -> None:
        with whole_when_done(path) as temporary:
            with (
                http_errors(url),
                httpx.stream("GET", url, timeout=_TIMEOUT_SECONDS, follow_redirects=True) as response,
            ):
                _check(response, url)
                limit = time_limit(_TIMEOUT_SECONDS, size or stated_length(response))
                with open(temporary, "xb") as file:
                    for piece in within(response.iter_bytes(), seconds=limit, url=url, clock=self.clock):
                        file.write(piece)
            got = temporary.stat().st_size
            if size is not None and got != size:
                raise TransientSourceError(f"{url}: expected {size} bytes, got {got}")
            for _ in messages(temporary):
                pass  # every message framed and whole, or it does not get its name


def _check(response: httpx.Response, url: str) -> None:
    status = response.status_code
    if status in (408, 425, 429) or status >= 500:
        raise TransientSourceError(f"{url}: HTTP {status} {response.reason_phrase}")
    if status in (401, 403):
        raise MissingDataError(
            f"{url}: HTTP {status}: the key is not accepted, or the licence not yet agreed to"
        )
    if status >= 400:
        raise MissingDataError(f"{url}: HTTP {status} {response.reason_phrase}")


def _note(path: Path) -> Path:
    """Where the number of a result's job is kept until the result is there."""
    return path.with_suffix(".job")


def _asks_for(job: Mapping[str, Any], retrieval: CdsRequest) -> bool:
    asked = job.get("metadata", {}).get("request", {}).get("ids", {})
    return all(_values(asked.get(name)) == _values(wanted) for name, wanted in retrieval.inputs.items())


def _values(given: Any) -> list[str]:
    return sorted(map(str, given if isinstance(given, (list, tuple)) else [given]))
