"""From a mirror of ECMWF's open data, over HTTP and S3, to a validated initial condition of GraphCast."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import fsspec
import pytest

from infra import layout
from infra.initial_conditions import load_initial_condition
from infra.settings import ModelSettings, RunSettings, Settings, SourceSettings, StoreSettings
from infra.sources.remote import FilesystemRemote
from model.cycle import Cycle
from model.grid import Grid
from tasks.initial_conditions import missing_inputs, prepare_initial_condition
from tasks.validation import validate_initial_condition
from tests.fakes.s3 import S3Server
from tests.fakes.synthetic_source import write_statistics
from tests.tools.balanced_fields import TASK, balanced_field
from tests.tools.loopback import serving
from tests.tools.open_data_mirror import run_folder, write_run

INIT = datetime(2026, 10, 5, 0, tzinfo=UTC)
BEFORE = INIT - timedelta(hours=6)
RESOLUTION = 10.0
CYCLE = Cycle(model="graphcast", init_time=INIT)
WANTED = ("2t", "msl", "10u", "10v", "t", "u", "v", "w", "q", "gh")


def load_model(settings: ModelSettings, device: object) -> SimpleNamespace:
    """A loader of a model that is never run."""
    return SimpleNamespace(
        family="graphcast", task=TASK, grid=Grid(resolution=RESOLUTION), description="", sha256="0" * 64
    )


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("mirror")
    for init_time in (BEFORE, INIT):
        write_run(root, init_time, resolution=RESOLUTION, steps=(0,), fields=balanced_field)
    return root


def settings(folder: Path, root: str, options: dict | None = None) -> Settings:
    return Settings(
        store=StoreSettings(root=str(folder / "store")),
        run=RunSettings(cache=str(folder / "cache")),
        sources={
            "mirror": SourceSettings(
                type="open-data", kind="hres", roots=(root,), options={"options": options or {}}
            )
        },
        models={
            "graphcast": ModelSettings(
                checkpoint="none",
                statistics=str(write_statistics(folder / "statistics", TASK)),
                loader="tests.tasks.test_ingest_to_validation:load_model",
                trained_on="hres",
                source="mirror",
                steps=1,
            )
        },
    )


def needed(mirror: Path, init_time: datetime, *, statics: bool) -> set[tuple[int, int]]:
    """(start, end) of the messages the frame takes, out of the index as a person would read it."""
    name = f"{init_time:%Y%m%d%H}0000-0h-oper-fc.index"
    entries = map(json.loads, (mirror / run_folder(init_time) / name).read_text().splitlines())
    names = {*WANTED, *(("lsm",) if statics else ())}
    return {
        (entry["_offset"], entry["_offset"] + entry["_length"])
        for entry in entries
        if entry["param"] in names or (statics and entry["param"] == "z" and entry["levtype"] == "sfc")
    }


def size_of(ranges: Collection[tuple[int, int]]) -> int:
    return sum(end - start for start, end in ranges)


def test_over_http_only_the_needed_ranges_are_read(mirror: Path, tmp_path: Path) -> None:
    with serving(mirror) as server:
        configured = settings(tmp_path, server.url)
        assert missing_inputs(CYCLE, configured) == ()
        prepare_initial_condition(CYCLE, configured)
        read = {
            name: server.ranges(name)
            for name in ("20261004180000-0h-oper-fc.grib2", "20261005000000-0h-oper-fc.grib2")
        }
    first, second = read.values()
    assert size_of(first) == size_of(needed(mirror, BEFORE, statics=False))
    assert size_of(second) == size_of(needed(mirror, INIT, statics=True))
    report = validate_initial_condition(CYCLE, configured)
    assert report.passed
    assert report.suite == "graphcast-hres"
    state = load_initial_condition(configured.store.open(), CYCLE)
    assert dict(state.sizes) == {"time": 2, "level": 13, "latitude": 19, "longitude": 36}
    assert configured.store.open().exists(layout.data_docs(CYCLE))


def test_over_s3_only_the_needed_ranges_are_read(
    mirror: Path, tmp_path: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = f"s3://{s3_server.new_bucket()}"
    fsspec.filesystem("s3", **s3_server.options).put(f"{mirror}/", f"{bucket}/", recursive=True)
    read: list[tuple[int, int]] = []
    stream = FilesystemRemote.stream

    def watched(self: FilesystemRemote, url: str, *, start: int, length: int) -> Iterator[bytes]:
        read.append((start, start + length))
        return stream(self, url, start=start, length=length)

    monkeypatch.setattr(FilesystemRemote, "stream", watched)
    configured = settings(tmp_path, bucket, dict(s3_server.options))
    prepare_initial_condition(CYCLE, configured)
    wanted = size_of(needed(mirror, BEFORE, statics=False)) + size_of(needed(mirror, INIT, statics=True))
    assert size_of(read) == wanted
    assert validate_initial_condition(CYCLE, configured).passed
