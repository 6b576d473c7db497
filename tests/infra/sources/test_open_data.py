from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from infra.errors import InvalidFieldError, MissingDataError, TransientSourceError
from infra.grib import decode
from infra.retry import RetryPolicy
from infra.sources.open_data import OpenData
from infra.sources.source import FieldRequest
from tests.tools.grib_fields import weather
from tests.tools.loopback import Fault, FileServer, serving
from tests.tools.open_data_mirror import run_folder, write_run

INIT = datetime(2026, 10, 5, 0, tzinfo=UTC)
BEFORE = INIT - timedelta(hours=6)
REQUEST = FieldRequest(
    valid_time=INIT,
    variables=(
        "2m_temperature",
        "temperature",
        "u_component_of_wind",
        "geopotential",
        "total_precipitation_6hr",
    ),
    levels=(500, 850),
)
NO_WAIT = RetryPolicy(attempts=4, sleep=lambda _: None)
DATA = "20261005000000-0h-oper-fc.grib2"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("archive")
    for init_time in (BEFORE, INIT):
        write_run(root, init_time, resolution=10.0, levels=(250, 500, 850))
    return root


@pytest.fixture
def server(archive: Path) -> Iterator[FileServer]:
    with serving(archive) as running:
        yield running


def source(*roots: str, **options) -> OpenData:
    return OpenData(roots=roots, retry=NO_WAIT, levels=(250, 500, 850), **options)


def index_of(archive: Path, init_time: datetime = INIT, step: int = 0) -> list[dict]:
    path = archive / run_folder(init_time) / f"{init_time:%Y%m%d%H}0000-{step}h-oper-fc.index"
    return [json.loads(line) for line in path.read_text().splitlines()]


def needed_bytes(archive: Path) -> set[int]:
    needed: set[int] = set()
    for entry in index_of(archive):
        on_level = entry["param"] in ("t", "u", "z") and entry.get("levelist") in ("500", "850")
        if (
            entry["param"] == "2t"
            or on_level
            or (entry["param"] == "gh" and entry.get("levelist") in ("500", "850"))
        ):
            needed |= set(range(entry["_offset"], entry["_offset"] + entry["_length"]))
    return needed


def test_only_the_needed_ranges_are_read_and_neighbours_together(
    archive: Path, server: FileServer, tmp_path: Path
) -> None:
    source(server.url).fetch(REQUEST, tmp_path)
    read: list[int] = []
    for start, end in server.ranges(DATA):
        read += range(start, end)
    assert len(read) == len(set(read))
    assert set(read) == needed_bytes(archive)  # no z on levels in this archive, so gh
    # t and u are neighbours in the index: 2t, and per level (t, u) and gh
    assert len(server.ranges(DATA)) == 1 + 2 * 2
    assert len(server.ranges("20261004180000-6h-oper-fc.grib2")) == 1


def test_what_is_fetched_decodes_to_the_weather(server: FileServer, tmp_path: Path) -> None:
    files = source(server.url).fetch(REQUEST, tmp_path)
    assert all(file.path.name.split(".")[-2] == file.sha256[0] for file in files)
    dataset = decode([file.path for file in files])
    latitude, longitude = np.arange(-90.0, 91.0, 10.0), np.arange(0.0, 360.0, 10.0)
    expected = weather("gh", 500, INIT, latitude, longitude) * 9.80665
    np.testing.assert_allclose(dataset["geopotential"].sel(level=500)[0], expected, atol=2.0)
    rain = weather("tp", None, INIT, latitude, longitude)
    np.testing.assert_allclose(dataset["total_precipitation_6hr"][0], rain, atol=1e-6)


def test_a_second_fetch_reads_no_data(server: FileServer, tmp_path: Path) -> None:
    first = source(server.url).fetch(REQUEST, tmp_path)
    server.log.clear()
    assert source(server.url).fetch(REQUEST, tmp_path) == first
    assert not server.ranges(".grib2")


def test_a_kept_message_that_was_damaged_since_is_read_again(server: FileServer, tmp_path: Path) -> None:
    first = source(server.url).fetch(REQUEST, tmp_path)
    first[0].path.write_bytes(first[0].path.read_bytes()[:-10])
    server.log.clear()
    assert source(server.url).fetch(REQUEST, tmp_path) == first
    assert len(server.ranges(".grib2")) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_passing_refusals_are_retried(server: FileServer, tmp_path: Path, status: int) -> None:
    server.faults += [Fault(".index", status=status, times=2), Fault(".grib2", status=status, times=2)]
    assert len(source(server.url).fetch(REQUEST, tmp_path)) == 8


def test_lasting_refusals_are_reported_with_their_number(server: FileServer, tmp_path: Path) -> None:
    server.faults.append(Fault(DATA, status=503, times=99))
    with pytest.raises(TransientSourceError, match=r"HTTP 503 .*after 4 attempts"):
        source(server.url).fetch(REQUEST, tmp_path)


def test_resets_are_retried(server: FileServer, tmp_path: Path) -> None:
    server.faults.append(Fault(".grib2", cut_after=500, reset=True, times=3))
    assert len(source(server.url).fetch(REQUEST, tmp_path)) == 8


def test_after_an_end_in_mid_message_only_what_is_missing_is_read(
    archive: Path, server: FileServer, tmp_path: Path
) -> None:
    request = FieldRequest(valid_time=INIT, variables=("temperature", "u_component_of_wind"), levels=(500,))
    t, u = (
        next(e for e in index_of(archive) if e["param"] == p and e.get("levelist") == "500")
        for p in ("t", "u")
    )
    server.faults.append(Fault(DATA, cut_after=t["_length"] + 20))
    source(server.url).fetch(request, tmp_path)
    whole = (t["_offset"], u["_offset"] + u["_length"])
    assert server.ranges(DATA) == [whole, (u["_offset"], whole[1])]


def test_a_fetch_that_died_goes_on_where_it_was(server: FileServer, tmp_path: Path) -> None:
    server.faults.append(Fault("20261004180000-6h", status=503, times=99))
    with pytest.raises(TransientSourceError):
        source(server.url, parallel=1).fetch(REQUEST, tmp_path)
    server.faults.clear()
    kept = {path.name for path in tmp_path.iterdir()}
    already = len(server.ranges(DATA))
    files = source(server.url, parallel=1).fetch(REQUEST, tmp_path)
    assert kept <= {file.path.name for file in files}
    assert len(server.ranges(DATA)) + len(kept) >= already
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".writing")]


def test_another_mirror_takes_over_without_reading_twice(
    archive: Path, server: FileServer, tmp_path: Path
) -> None:
    server.faults.append(Fault(DATA, status=503, times=99))
    with serving(archive) as second:
        files = source(server.url, second.url).fetch(REQUEST, tmp_path)
        from_first = server.ranges("20261004180000-6h-oper-fc.grib2")
        from_second = second.ranges("20261004180000-6h-oper-fc.grib2")
    assert len(files) == 8
    assert len(from_first) + len(from_second) <= 2


def test_a_mirror_that_lags_behind_is_passed_over(archive: Path, server: FileServer, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with serving(empty) as behind:
        assert len(source(behind.url, server.url).fetch(REQUEST, tmp_path / "files")) == 8
        assert source(behind.url, server.url).available(REQUEST).complete
        assert not source(behind.url).available(REQUEST).complete


def test_a_missing_parameter_is_named(server: FileServer, archive: Path, tmp_path: Path) -> None:
    without = tmp_path / "archive"
    write_run(without, INIT, resolution=10.0, levels=(500, 850), on_levels=("t", "gh"))
    write_run(without, BEFORE, resolution=10.0, levels=(500,))
    with serving(without) as short:
        with pytest.raises(
            MissingDataError, match=r"u \(u_component_of_wind\) at 500 hPa in .*; u .* 850 hPa"
        ):
            source(short.url).fetch(REQUEST, tmp_path / "files")
        availability = source(short.url).available(REQUEST)
    assert not availability.complete
    assert "u_component_of_wind" in availability.missing[0]


def rewritten(archive: Path, folder: Path, change) -> Path:
    """A copy of the INIT run whose index (lines) and data went through ``change``."""
    copy = folder / run_folder(INIT)
    copy.mkdir(parents=True)
    original = archive / run_folder(INIT)
    data = bytearray((original / DATA).read_bytes())
    entries = change(index_of(archive), data)
    (copy / DATA).write_bytes(data)
    (copy / DATA.replace(".grib2", ".index")).write_text("\n".join(map(json.dumps, entries)))
    return folder


T500 = FieldRequest(valid_time=INIT, variables=("temperature",), levels=(500,))


def entry_of(entries: list[dict], parameter: str, level: str) -> dict:
    return next(e for e in entries if e["param"] == parameter and e.get("levelist") == level)


@pytest.mark.parametrize("error", [-7, +13])
def test_a_wrong_length_in_the_index_is_refused(archive: Path, tmp_path: Path, error: int) -> None:
    def change(entries: list[dict], data: bytearray) -> list[dict]:
        entry_of(entries, "t", "500")["_length"] += error
        return entries

    with (
        serving(rewritten(archive, tmp_path, change)) as wrong,
        pytest.raises(InvalidFieldError, match=r"t-500.*index gives \d+ bytes, the message itself states"),
    ):
        source(wrong.url).fetch(T500, tmp_path / "files")
    assert not list((tmp_path / "files").iterdir())


def test_swapped_components_are_refused(archive: Path, tmp_path: Path) -> None:
    def change(entries: list[dict], data: bytearray) -> list[dict]:
        u, v = entry_of(entries, "u", "500"), entry_of(entries, "v", "500")
        u["param"], v["param"] = "v", "u"
        return entries

    request = FieldRequest(valid_time=INIT, variables=("u_component_of_wind",), levels=(500,))
    with (
        serving(rewritten(archive, tmp_path, change)) as wrong,
        pytest.raises(InvalidFieldError, match=r"index promises u at 500.*the message holds v at 500"),
    ):
        source(wrong.url).fetch(request, tmp_path / "files")


def test_yesterdays_file_under_todays_name_is_refused(archive: Path, tmp_path: Path) -> None:
    write_run(tmp_path, BEFORE, resolution=10.0, levels=(500,))
    old = tmp_path / run_folder(BEFORE)
    new = tmp_path / run_folder(INIT)
    new.mkdir(parents=True)
    for suffix in ("grib2", "index"):
        name = f"20261005000000-0h-oper-fc.{suffix}"
        (new / name).write_bytes((old / f"20261004180000-0h-oper-fc.{suffix}").read_bytes())
    with (
        serving(tmp_path) as stale,
        pytest.raises(InvalidFieldError, match=r"valid 2026-10-05T00Z; the message holds .* 2026-10-04T18Z"),
    ):
        source(stale.url).fetch(T500, tmp_path / "files")


def test_a_truncated_data_file_is_not_available_and_not_fetched(archive: Path, tmp_path: Path) -> None:
    def change(entries: list[dict], data: bytearray) -> list[dict]:
        entry = entry_of(entries, "t", "500")
        del data[entry["_offset"] + 100 :]
        return entries

    with serving(rewritten(archive, tmp_path, change)) as cut:
        availability = source(cut.url).available(T500)
        assert not availability.complete
        assert "expected at least" in availability.missing[0]
        with pytest.raises(TransientSourceError, match=r"expected \d+ bytes from \d+, got 100"):
            source(cut.url).fetch(T500, tmp_path / "files")
    assert not list((tmp_path / "files").iterdir())


def test_a_flipped_end_mark_is_refused(archive: Path, tmp_path: Path) -> None:
    def change(entries: list[dict], data: bytearray) -> list[dict]:
        entry = entry_of(entries, "t", "500")
        data[entry["_offset"] + entry["_length"] - 1] ^= 0xFF
        return entries

    with (
        serving(rewritten(archive, tmp_path, change)) as wrong,
        pytest.raises(InvalidFieldError, match=r"t-500.* to end with '7777'"),
    ):
        source(wrong.url).fetch(T500, tmp_path / "files")


def test_an_index_that_is_a_web_page_is_refused(archive: Path, tmp_path: Path) -> None:
    folder = rewritten(archive, tmp_path, lambda entries, data: entries) / run_folder(INIT)
    (folder / DATA.replace(".grib2", ".index")).write_text("<html>maintenance</html>")
    with (
        serving(tmp_path) as page,
        pytest.raises(InvalidFieldError, match=r"line 1: expected an index entry .*maintenance"),
    ):
        source(page.url).fetch(T500, tmp_path / "files")


def test_a_real_index_is_read(shared_data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "20250301/00z/aifs-single/0p25/oper"
    folder.mkdir(parents=True)
    real = shared_data / "ecmwf_open_data" / "aifs_single_20250301_00z_0h.index"
    (folder / "20250301000000-0h-oper-fc.index").write_bytes(real.read_bytes())
    total = max(e["_offset"] + e["_length"] for e in map(json.loads, real.read_text().splitlines()))
    with open(folder / "20250301000000-0h-oper-fc.grib2", "wb") as sparse:
        sparse.truncate(total)
    names = ("temperature", "geopotential", "specific_humidity", "u_component_of_wind", "2m_temperature")
    valid = datetime(2025, 3, 1, tzinfo=UTC)
    everything = OpenData(roots=(str(tmp_path),), model="aifs-single", retry=NO_WAIT)
    request = FieldRequest(valid_time=valid, variables=names, levels=everything.levels)
    assert everything.available(request).complete


def test_streams_before_and_since_cycle_50r1(tmp_path: Path) -> None:
    old = datetime(2026, 5, 11, 18, tzinfo=UTC)
    write_run(tmp_path, old, resolution=30.0, levels=(500,), stream="scda")
    new = datetime(2026, 5, 12, 6, tzinfo=UTC)
    write_run(tmp_path, new, resolution=30.0, levels=(500,), stream="oper")
    for valid in (old, new):
        request = FieldRequest(valid_time=valid, variables=("temperature",), levels=(500,))
        assert source(str(tmp_path)).available(request).complete


def test_what_cannot_be_given_says_what_to_configure(server: FileServer, tmp_path: Path) -> None:
    request = FieldRequest(valid_time=INIT, variables=("sea_surface_temperature",))
    with pytest.raises(MissingDataError, match="not published: take it from another source, or the skin"):
        source(server.url).fetch(request, tmp_path)


def test_concurrency_is_bounded(server: FileServer, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="parallel ≥ 1"):
        source(server.url, parallel=0).fetch(REQUEST, tmp_path)
