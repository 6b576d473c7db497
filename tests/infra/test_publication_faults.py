"""Publication through a network that fails: at every instant a reader sees whole cycles, and never older ones."""

from __future__ import annotations

import hashlib
import json
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import s3fs

from infra import layout
from infra.errors import StoreError, TransientSourceError
from infra.object_store import ObjectStore
from infra.publication import (
    Manifest,
    make_visible,
    read_latest,
    read_manifest,
    upload_folder,
    verify_files,
    verify_sizes,
)
from infra.retry import RetryPolicy
from model.cycle import Cycle
from tests.fakes.s3 import S3Server
from tests.tools.faulty_proxy import FaultyProxy

START = datetime(2026, 1, 1, tzinfo=UTC)
CYCLES = tuple(Cycle(model="m", init_time=START + timedelta(hours=12 * n)) for n in range(6))
PERSISTENT = RetryPolicy(attempts=200, first_delay=0.0)


class Reader(threading.Thread):
    """Follows ``latest.json`` all the time and checks everything it leads to."""

    def __init__(self, store: ObjectStore) -> None:
        super().__init__(daemon=True)
        self._store = store
        self.stop = threading.Event()
        self.seen: list[datetime] = []
        self.problems: list[str] = []

    def run(self) -> None:
        while not self.stop.wait(0.02):
            try:
                self._look()
            except StoreError as error:
                if self.seen:
                    self.problems.append(f"what was published is gone: {error}")
            except Exception as error:
                self.problems.append(repr(error))
                return

    def _look(self) -> None:
        pointer = json.loads(self._store.read(layout.latest("m")))
        manifest = Manifest.from_json(self._store.read(pointer["manifest"]))
        for name, record in manifest.files.items():
            data = self._store.read(f"{manifest.prefix}{name}")
            if (hashlib.sha256(data).hexdigest(), len(data)) != (record.sha256, record.size):
                self.problems.append(f"{manifest.cycle}: {name} is not whole")
        if self.seen and manifest.cycle.init_time < self.seen[-1]:
            self.problems.append(f"latest went back from {self.seen[-1]} to {manifest.cycle}")
        self.seen.append(manifest.cycle.init_time)


def products_of(folder: Path, cycle: Cycle, attempt: str) -> Path:
    """A few files whose bytes differ from attempt to attempt."""
    products = folder / f"{cycle.identifier}-{attempt}"
    (products / "deep").mkdir(parents=True)
    for number in range(3):
        (products / "deep" / f"{number}").write_bytes(f"{cycle} {attempt} {number}".encode() * 200)
    (products / "index.html").write_text(f"{cycle} {attempt}")
    return products


def publish(store: ObjectStore, folder: Path, cycle: Cycle, attempt: str) -> Manifest:
    """All of publication, with the retries it has in operation but no pauses between them."""
    prefix = layout.products_prefix(cycle, "run", attempt)
    files = upload_folder(store, products_of(folder, cycle, attempt), prefix, retry=PERSISTENT)
    verify_sizes(store, prefix, files, retry=PERSISTENT)
    manifest = Manifest(
        cycle=cycle, run="run", attempt=attempt, members=(0,), steps=1, step_hours=12,
        published_at=cycle.init_time + timedelta(hours=7), files=files,
    )  # fmt: skip
    return make_visible(store, manifest, retry=PERSISTENT)


@pytest.mark.timeout(600)
def test_readers_see_whole_cycles_through_hundreds_of_faults(
    s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)  # its own retries pause; ours are under test
    bucket = s3_server.new_bucket()
    direct = ObjectStore(root=f"s3://{bucket}", options=s3_server.options)
    reader = Reader(direct)
    reader.start()
    results: dict[tuple[Cycle, str], Manifest] = {}
    failures: list[str] = []
    with FaultyProxy(s3_server.address, rate=0.5, seed=20) as proxy:
        options = s3_server.options_at(
            proxy.url, retries={"max_attempts": 0}, read_timeout=5, connect_timeout=5, max_pool_connections=8
        )
        store = ObjectStore(root=f"s3://{bucket}", options=options)

        def one(cycle: Cycle, attempt: str) -> None:
            try:
                results[cycle, attempt] = publish(store, tmp_path, cycle, attempt)
            except BaseException as error:
                failures.append(repr(error))

        for cycle in CYCLES:  # two publishers at each, as after a retried deployment
            threads = [threading.Thread(target=one, args=(cycle, attempt)) for attempt in ("a", "b")]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        struck = proxy.faults
    reader.stop.set()
    reader.join(timeout=30)

    assert failures == []
    assert reader.problems == []
    assert set(reader.seen) <= {cycle.init_time for cycle in CYCLES}
    assert struck >= 200
    for cycle in CYCLES:
        assert results[cycle, "a"] == results[cycle, "b"] == read_manifest(direct, cycle)
        verify_files(direct, results[cycle, "a"].prefix, results[cycle, "a"].files)
    assert read_latest(direct, "m").cycle == CYCLES[-1]


def test_giving_up_leaves_the_previous_cycle(
    s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    bucket = s3_server.new_bucket()
    direct = ObjectStore(root=f"s3://{bucket}", options=s3_server.options)
    first = publish(direct, tmp_path, CYCLES[0], "a")
    with FaultyProxy(s3_server.address, rate=1.0, seed=1) as proxy:
        options = s3_server.options_at(proxy.url, retries={"max_attempts": 0}, read_timeout=5)
        store = ObjectStore(root=f"s3://{bucket}", options=options)
        with pytest.raises(TransientSourceError):
            upload_folder(
                store,
                products_of(tmp_path, CYCLES[1], "x"),
                layout.products_prefix(CYCLES[1], "run", "x"),
                retry=RetryPolicy(attempts=3, first_delay=0.0),
            )
    assert read_latest(direct, "m") == first
    with pytest.raises(StoreError):
        read_manifest(direct, CYCLES[1])
