"""A cycle is visible whole or not at all, once, and the newest stays the newest."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from infra import layout
from infra.cycle_status import list_cycles
from infra.errors import PublicationError, StoreError
from infra.object_store import ObjectStore
from infra.publication import (
    FileRecord,
    Manifest,
    make_visible,
    quarantine,
    read_latest,
    read_manifest,
    upload_folder,
    verify_files,
)
from infra.retention import expired_cycles, remove_cycle
from infra.retry import RetryPolicy
from model.cycle import Cycle

RETRY = RetryPolicy(attempts=3, first_delay=0.0)
FIRST = Cycle(model="m", init_time=datetime(2026, 1, 1, tzinfo=UTC))
SECOND = Cycle(model="m", init_time=datetime(2026, 1, 1, 12, tzinfo=UTC))


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ObjectStore]:
    if request.param == "local":
        yield ObjectStore(root=str(tmp_path / "store"))
        return
    server = request.getfixturevalue("s3_server")
    yield ObjectStore(root=f"s3://{server.new_bucket()}", options=server.options)


@pytest.fixture
def products(tmp_path: Path) -> Path:
    folder = tmp_path / "products"
    (folder / "deep").mkdir(parents=True)
    (folder / "index.html").write_text("page")
    (folder / "deep" / "data").write_bytes(b"0" * 1000)
    return folder


def publish(store: ObjectStore, products: Path, cycle: Cycle, attempt: str = "a") -> Manifest:
    prefix = layout.products_prefix(cycle, "run", attempt)
    files = upload_folder(store, products, prefix, retry=RETRY)
    verify_files(store, prefix, files, retry=RETRY)
    manifest = Manifest(
        cycle=cycle, run="run", attempt=attempt, members=(0, 1), steps=2, step_hours=12,
        published_at=cycle.init_time + timedelta(hours=7), files=files,
    )  # fmt: skip
    return make_visible(store, manifest, retry=RETRY)


def test_a_published_cycle_is_whole(store: ObjectStore, products: Path) -> None:
    manifest = publish(store, products, FIRST)
    assert read_latest(store, "m") == manifest == read_manifest(store, FIRST)
    assert set(manifest.files) == {"index.html", "deep/data"}
    for name, record in manifest.files.items():
        assert store.digest(f"{manifest.prefix}{name}") == (record.sha256, record.size)
    assert manifest.latency_hours == 7


def test_latest_never_goes_backwards(store: ObjectStore, products: Path) -> None:
    publish(store, products, SECOND)
    publish(store, products, FIRST)
    assert read_latest(store, "m").cycle == SECOND
    assert [status.cycle for status in list_cycles(store)] == [SECOND, FIRST]


def test_publishing_twice_keeps_the_first(store: ObjectStore, products: Path) -> None:
    first = publish(store, products, FIRST, "a")
    (products / "index.html").write_text("another page")
    second = publish(store, products, FIRST, "b")
    assert second == first
    assert not list(store.list(layout.products_prefix(FIRST, "run", "b")))
    verify_files(store, first.prefix, first.files, retry=RETRY)


def test_concurrent_publishers_end_with_one_result(store: ObjectStore, products: Path) -> None:
    results: list[Manifest] = []
    start = threading.Barrier(4)

    def one(attempt: str, cycle: Cycle) -> None:
        start.wait()
        results.append(publish(store, products, cycle, attempt))

    threads = [
        threading.Thread(target=one, args=pair)
        for pair in (("a", FIRST), ("b", FIRST), ("c", SECOND), ("d", SECOND))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    for cycle in (FIRST, SECOND):
        own = [manifest for manifest in results if manifest.cycle == cycle]
        assert own[0] == own[1]
        verify_files(store, own[0].prefix, own[0].files, retry=RETRY)
    assert read_latest(store, "m").cycle == SECOND


def test_damaged_products_are_not_admitted(store: ObjectStore, products: Path) -> None:
    prefix = layout.products_prefix(FIRST, "run", "a")
    files = upload_folder(store, products, prefix, retry=RETRY)
    store.write(f"{prefix}deep/data", b"0" * 999)
    with pytest.raises(PublicationError, match=r"1 of 3 objects.*deep/data|1 of 2 objects.*deep/data"):
        verify_files(store, prefix, files, retry=RETRY)
    missing = {**files, "lost": FileRecord(sha256="0" * 64, size=1)}
    store.write(f"{prefix}deep/data", b"0" * 1000)
    with pytest.raises(PublicationError, match="lost"):
        verify_files(store, prefix, missing, retry=RETRY)


def test_a_quarantined_cycle_is_listed_with_its_reason(store: ObjectStore, products: Path) -> None:
    publish(store, products, FIRST)
    quarantine(store, SECOND, run="run", attempt="x", reasons=["spread shrinks"])
    second, first = list_cycles(store, "m")
    assert (first.state, first.members) == ("published", 2)
    assert (second.state, second.reasons) == ("quarantined", ("spread shrinks",))
    assert read_latest(store, "m").cycle == FIRST


def test_unfinished_runs_are_listed(store: ObjectStore) -> None:
    store.write(layout.member_manifest(FIRST, "run", 3), b"{}")
    assert [(s.state, s.members) for s in list_cycles(store)] == [("unfinished", 1)]


def test_retention_removes_whole_cycles_but_never_the_newest_good_one(
    store: ObjectStore, products: Path
) -> None:
    for cycle in (FIRST, SECOND):
        publish(store, products, cycle)
    store.write(layout.forecast_store(FIRST, "run") + "/chunk", b"x")
    store.write(layout.verification(FIRST), b"kept")
    later = Cycle(model="m", init_time=SECOND.init_time + timedelta(hours=12))
    quarantine(store, later, run="run", attempt="x", reasons=["bad"])
    now = datetime(2027, 1, 1, tzinfo=UTC)
    expired = expired_cycles(store, keep=timedelta(days=30), now=now)
    assert expired == [FIRST, later]
    assert expired_cycles(store, keep=timedelta(days=3000), now=now) == []
    for cycle in expired:
        remove_cycle(store, cycle)
        remove_cycle(store, cycle)
    assert [status.cycle for status in list_cycles(store)] == [SECOND]
    assert store.read(layout.verification(FIRST)) == b"kept"
    assert not list(store.list(layout.runs_prefix(FIRST)))
    manifest = read_latest(store, "m")
    verify_files(store, manifest.prefix, manifest.files, retry=RETRY)


def test_a_manifest_of_a_later_format_is_refused(store: ObjectStore, products: Path) -> None:
    manifest = publish(store, products, FIRST)
    document = json.loads(manifest.to_json()) | {"format": 99}
    with pytest.raises(PublicationError, match="expected format 1, got 99"):
        Manifest.from_json(json.dumps(document).encode())
    with pytest.raises(PublicationError, match="not readable"):
        Manifest.from_json(manifest.to_json()[:-20])


def test_nothing_published_yet(store: ObjectStore) -> None:
    assert list_cycles(store) == []
    with pytest.raises(StoreError):
        read_latest(store, "m")
