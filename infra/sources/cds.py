"""ERA5 from the Copernicus Climate Data Store as GRIB, by its retrieve API.

https://cds.climate.copernicus.eu/how-to-api: a request is posted, becomes a job, and its result is one GRIB
file. Only what is not already in the folder is asked for. Final ERA5 (experiment 0001) and ERA5T (0005) come
in one file and are told apart in every message.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import httpx

from infra.errors import InvalidFieldError, MissingDataError, TransientSourceError
from infra.grib_messages import messages
from infra.retry import RetryPolicy
from infra.sources.source import Availability, FieldRequest, RawFile, SourceKind, SourceOffer
from model.variables import COMPUTED_FORCINGS, LEVELS_37, VARIABLES

ENDPOINT = "https://cds.climate.copernicus.eu/api"
_SINGLE_LEVELS, _PRESSURE_LEVELS = "reanalysis-era5-single-levels", "reanalysis-era5-pressure-levels"
_ACCUMULATIONS = {"total_precipitation_6hr": 6, "total_precipitation_12hr": 12}
_CDS_NAMES = {
    "geopotential_at_surface": "geopotential",
    **dict.fromkeys(_ACCUMULATIONS, "total_precipitation"),
}
_POLL_SECONDS = 10.0
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
        longest_wait: until a queued job counts as failed for now.
        retry: for each HTTP request.
        clock, pause: replaced in tests.
    """

    key: str = field(repr=False)
    name: str = "cds"
    kind: SourceKind = "era5"
    endpoint: str = ENDPOINT
    longest_wait: timedelta = timedelta(hours=2)
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
        """One GRIB file for each retrieval."""
        folder.mkdir(parents=True, exist_ok=True)
        files = []
        for retrieval in build_requests(request):
            path = folder / retrieval.file_name
            if not path.exists():
                self._retrieve(retrieval, path)
            digests = tuple(hashlib.sha256(message).hexdigest() for message in messages(path))
            files.append(
                RawFile(
                    path=path,
                    format="grib",
                    url=f"{self.endpoint}#{retrieval.dataset}",
                    sha256=digests,
                    size=path.stat().st_size,
                )
            )
        return tuple(files)

    def _retrieve(self, retrieval: CdsRequest, path: Path) -> None:
        base = f"{self.endpoint}/retrieve/v1"
        job = self._json(
            "POST", f"{base}/processes/{retrieval.dataset}/execution", {"inputs": dict(retrieval.inputs)}
        )
        url = f"{base}/jobs/{job.get('jobID')}"
        deadline = self.clock() + self.longest_wait.total_seconds()
        while (status := str(job.get("status"))) in _UNDER_WAY:
            if self.clock() > deadline:
                raise TransientSourceError(f"{url}: still {status} after {self.longest_wait}")
            self.pause(_POLL_SECONDS)
            job = self._json("GET", url)
        if status != "successful":
            reason = self._json("GET", f"{url}/results", tolerate=True)
            raise MissingDataError(
                f"{url}: {status}: {reason.get('detail') or reason.get('title') or reason} for {retrieval}"
            )
        asset = self._json("GET", f"{url}/results").get("asset", {}).get("value", {})
        if "href" not in asset:
            raise InvalidFieldError(f"{url}/results: expected asset.value.href, got {asset}")
        self.retry.run(lambda: self._download(asset["href"], asset.get("file:size"), path))

    def _json(
        self, method: str, url: str, body: Mapping[str, Any] | None = None, *, tolerate: bool = False
    ) -> dict[str, Any]:
        def once() -> dict[str, Any]:
            with _http_errors(url):
                headers = {"PRIVATE-TOKEN": self.key}
                response = httpx.request(method, url, json=body, headers=headers, timeout=60.0)
            if not tolerate:
                _check(response, url)
            try:
                return dict(response.json())
            except ValueError as error:
                raise InvalidFieldError(f"{url}: expected JSON, got {response.text[:120]!r}") from error

        return self.retry.run(once)

    def _download(self, url: str, size: int | None, path: Path) -> None:
        temporary = path.with_name(f".writing-{uuid.uuid4().hex}")
        try:
            with _http_errors(url), httpx.stream("GET", url, timeout=60.0, follow_redirects=True) as response:
                _check(response, url)
                with open(temporary, "xb") as file:
                    for piece in response.iter_bytes():
                        file.write(piece)
            got = temporary.stat().st_size
            if size is not None and got != size:
                raise TransientSourceError(f"{url}: expected {size} bytes, got {got}")
            for _ in messages(temporary):
                pass  # every message framed and whole, or it does not get its name
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


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


@contextmanager
def _http_errors(url: str) -> Iterator[None]:
    try:
        yield
    except httpx.TransportError as error:
        raise TransientSourceError(f"{url}: {type(error).__name__}: {error}") from error
