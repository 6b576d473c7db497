from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from infra.analyses import read_analysis
from infra.errors import InvalidFieldError, MissingDataError, TransientSourceError
from infra.object_store import ObjectStore
from infra.retry import RetryPolicy
from infra.sources.open_data import OpenData
from infra.sources.source import FieldRequest
from infra.statics import prepare_statics
from model.grid import Grid
from tasks.ingest import fetch_analysis, is_transient
from tasks.regrid import regrid_analysis
from tests.tools.grib_fields import weather
from tests.tools.loopback import Fault, serving
from tests.tools.open_data_mirror import write_run

INIT = datetime(2026, 10, 5, 0, tzinfo=UTC)
REQUEST = FieldRequest(
    valid_time=INIT,
    variables=("2m_temperature", "temperature", "specific_humidity", "land_sea_mask"),
    levels=(500, 850),
)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("archive")
    write_run(root, INIT, resolution=7.5, steps=(0,), levels=(500, 850), on_levels=("t", "r"))
    return root


def source(*roots: str) -> OpenData:
    return OpenData(roots=roots, retry=RetryPolicy(attempts=2, sleep=lambda _: None))


def test_from_the_mirror_to_fields_on_the_models_grid(archive: Path, tmp_path: Path) -> None:
    store, grid = ObjectStore(root=str(tmp_path)), Grid(resolution=15)
    with serving(archive) as server:
        raw = fetch_analysis(source(server.url), REQUEST, store)
        first = len(server.log)
        assert fetch_analysis(source(server.url), REQUEST, store) == raw
        assert len(server.log) == first  # nothing is asked twice, not even the index
    key = regrid_analysis(store, raw, grid)
    fields = read_analysis(store, key)
    assert grid.mismatch(fields) is None
    assert set(fields) == set(REQUEST.variables)
    expected = weather("t", 850, INIT, grid.latitude.astype(float), grid.longitude.astype(float))
    np.testing.assert_allclose(fields["temperature"].sel(level=850)[0], expected, atol=2e-3)
    assert fields.attrs["regridding"].startswith("subset")
    assert (fields.attrs["source"], fields.attrs["kind"]) == ("open-data", "hres")
    messages = json.loads(fields.attrs["messages"])
    assert {entry["field"] for entry in messages} == {"2t 2", "lsm 0", "t 500", "t 850", "r 500", "r 850"}
    assert all(len(entry["sha256"]) == 64 for entry in messages)

    marker = tmp_path / f"{key}.json"
    written = marker.stat().st_mtime_ns
    assert regrid_analysis(store, raw, grid) == key
    assert marker.stat().st_mtime_ns == written  # nor is anything made twice


def test_after_a_failure_the_next_attempt_reads_only_the_rest(archive: Path, tmp_path: Path) -> None:
    store = ObjectStore(root=str(tmp_path))
    with serving(archive) as server:
        server.faults.append(Fault(".grib2", cut_after=3500, times=99))
        with pytest.raises(TransientSourceError):
            fetch_analysis(source(server.url), REQUEST, store)
        assert not [key for key in store.list("fields/") if key.endswith(".json")]
        server.faults.clear()
        kept = [path for path in tmp_path.rglob("*.grib") if path.stat().st_size]
        assert kept
        server.log.clear()
        fetch_analysis(source(server.url), REQUEST, store)
        whole = list(tmp_path.rglob("*.grib"))
        rest = sum(end - start for start, end in server.ranges(".grib2"))
        assert rest == sum(path.stat().st_size for path in set(whole) - set(kept))


def test_what_a_source_cannot_give_is_said_before_anything_is_fetched(archive: Path, tmp_path: Path) -> None:
    request = FieldRequest(valid_time=INIT, variables=("sea_surface_temperature",))
    with serving(archive) as server:
        with pytest.raises(
            MissingDataError, match="'open-data' cannot give sea_surface_temperature: not published"
        ):
            fetch_analysis(source(server.url), request, ObjectStore(root=str(tmp_path)))
        assert not server.log


def test_statics_are_made_once(archive: Path, tmp_path: Path) -> None:
    store, grid = ObjectStore(root=str(tmp_path)), Grid(resolution=15)
    with serving(archive) as server:
        first = prepare_statics(source(server.url), store, grid, REQUEST)
        asked = len(server.log)
        later = FieldRequest(valid_time=INIT + timedelta(days=1), variables=("2m_temperature",))
        second = prepare_statics(source(server.url), store, grid, later)
        assert len(server.log) == asked
    assert set(first.data_vars) == {"geopotential_at_surface", "land_sea_mask"}
    np.testing.assert_array_equal(first["land_sea_mask"], second["land_sea_mask"])
    assert set(np.unique(first["land_sea_mask"])) <= {0.0, 1.0}


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (TransientSourceError("x"), True),
        (MissingDataError("x"), False),
        (InvalidFieldError("x"), False),
        (ValueError(), False),
    ],
)
def test_only_what_may_pass_is_tried_again(error: Exception, again: bool) -> None:
    state = SimpleNamespace(result=lambda raise_on_failure: error)
    assert is_transient(None, None, state) is again
