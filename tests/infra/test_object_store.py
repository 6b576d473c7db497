"""One suite that every store must pass: a local folder, an S3 server on loopback, fsspec's memory."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import zarr

from infra import object_store
from infra.conditional_replace import Versioned, read_versioned, replace, update
from infra.errors import StoreError
from infra.object_store import ObjectStore


@pytest.fixture(scope="module", params=["local", "s3", "memory"])
def root(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, dict]]:
    if request.param == "local":
        yield str(tmp_path_factory.mktemp("store")), {}
        return
    if request.param == "memory":
        yield f"memory://{tmp_path_factory.mktemp('store').name}", {}
        return
    server = request.getfixturevalue("s3_server")
    yield f"s3://{server.new_bucket()}/prefix", server.options


@pytest.fixture
def store(root: tuple[str, dict], request: pytest.FixtureRequest) -> ObjectStore:
    return ObjectStore(root=f"{root[0]}/{request.node.name.split('[')[0]}", options=root[1])


def test_bytes_come_back(store: ObjectStore) -> None:
    checksum = store.write("a/b.bin", b"bytes")
    assert checksum == hashlib.sha256(b"bytes").hexdigest()
    assert store.read("a/b.bin") == b"bytes"
    assert store.exists("a/b.bin")
    assert store.digest("a/b.bin") == (checksum, 5)
    store.write("a/b.bin", b"other")
    assert store.read("a/b.bin") == b"other"


def test_what_is_absent_is_named(store: ObjectStore) -> None:
    assert not store.exists("nothing")
    with pytest.raises(StoreError, match=r"nothing: no such object"):
        store.read("nothing")
    with pytest.raises(StoreError, match=r"no such object"):
        store.digest("nothing")


def test_create_succeeds_once(store: ObjectStore) -> None:
    assert store.create("marker", b"first")
    assert not store.create("marker", b"second")
    assert store.read("marker") == b"first"


def test_of_many_creators_exactly_one_succeeds(store: ObjectStore) -> None:
    results: list[bool] = []
    start = threading.Barrier(6)

    def contend(number: int) -> None:
        start.wait()
        results.append(store.create("contended", f"{number}".encode()))

    threads = [threading.Thread(target=contend, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [False] * 5 + [True]


def test_files_are_uploaded_whole(store: ObjectStore, tmp_path: Path) -> None:
    data = np.random.default_rng(0).bytes(3_000_000)
    (tmp_path / "file").write_bytes(data)
    store.upload(tmp_path / "file", "deep/er/file")
    assert store.digest("deep/er/file") == (hashlib.sha256(data).hexdigest(), len(data))


def test_stored_bytes_are_compared_with_a_file(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"0123456789" * 1000)
    store.upload(tmp_path / "file", "file")
    assert store.holds("file", tmp_path / "file")
    for other in (
        b"0123456789" * 999,
        b"0123456789" * 1000 + b"0",
        b"9" + b"123456789" + b"0123456789" * 999,
        b"",
    ):
        (tmp_path / "other").write_bytes(other)
        assert not store.holds("file", tmp_path / "other")
    store.write("empty", b"")
    assert store.holds("empty", tmp_path / "other")
    with pytest.raises(StoreError, match="no such object"):
        store.holds("nothing", tmp_path / "file")


def test_listing_and_deleting(store: ObjectStore) -> None:
    for key in ("x/1", "x/2", "x/y/3", "xx"):
        store.write(key, b"")
    assert list(store.list("x/")) == [f"{k}" for k in ("x/1", "x/2", "x/y/3")]
    assert list(store.list("nowhere/")) == []
    assert store.folders("") == ["x"]
    assert store.folders("x/") == ["y"]
    assert store.folders("nowhere/") == []
    store.delete("x/1")
    store.delete("x/y/")
    store.delete("never/")
    assert list(store.list("x/")) == ["x/2"]


@pytest.mark.parametrize("key", ["/absolute", "a/../b", ".."])
def test_keys_stay_below_the_root(store: ObjectStore, key: str) -> None:
    with pytest.raises(ValueError, match="relative path"):
        store.write(key, b"")


def test_zarr_arrays_live_in_the_store(store: ObjectStore) -> None:
    zarr.create_array(store.zarr("z.zarr"), name="a", data=np.arange(6), chunks=(3,))
    assert zarr.open_group(store.zarr("z.zarr", read_only=True), mode="r")["a"][...].tolist() == [
        0,
        1,
        2,
        3,
        4,
        5,
    ]


def test_replacing_only_what_was_read(store: ObjectStore) -> None:
    absent = read_versioned(store, "pointer")
    assert absent == Versioned(data=None, version="")
    assert replace(store, "pointer", b"1", expected=absent)
    assert not replace(store, "pointer", b"2", expected=absent)
    first = read_versioned(store, "pointer")
    assert first.data == b"1"
    assert replace(store, "pointer", b"2", expected=first)
    assert not replace(store, "pointer", b"3", expected=first)
    assert store.read("pointer") == b"2"
    gone = read_versioned(store, "pointer")
    store.delete("pointer")
    assert not replace(store, "pointer", b"4", expected=gone)
    assert not store.exists("pointer")


def test_concurrent_updates_lose_nothing(store: ObjectStore) -> None:
    """Every writer raises a number to its own at least: it ends at the highest and never falls."""
    seen: list[int] = []

    def raise_to(number: int) -> None:
        def change(current: bytes | None) -> bytes | None:
            seen.append(int(current or b"0"))
            return None if int(current or b"0") >= number else str(number).encode()

        update(store, "highest", change)

    threads = [threading.Thread(target=raise_to, args=(n,)) for n in (3, 1, 5, 2, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.read("highest") == b"5"
    assert len(seen) >= 5


def test_secrets_are_not_shown() -> None:
    assert "hidden" not in repr(ObjectStore(root="s3://bucket", options={"secret": "hidden"}))


def test_scratch_folders_of_killed_processes_are_removed(tmp_path: Path) -> None:
    store = ObjectStore(root=str(tmp_path))
    with store.scratch("products") as folder:
        (folder / "file").write_bytes(b"")
        now = datetime.now(UTC)
        assert store.remove_abandoned(age=timedelta(days=2), now=now) == []
        assert (folder / "file").exists()
        assert store.remove_abandoned(age=timedelta(days=2), now=now + timedelta(days=3)) == [folder.name]
        assert not folder.exists()
        folder.mkdir()


def test_an_object_is_read_in_pieces_and_its_size_is_known_first(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_store, "_PIECE", 4)
    store.write("a/b.bin", b"0123456789")
    with store.reading("a/b.bin") as (size, pieces):
        assert size == 10
        assert list(pieces) == [b"0123", b"4567", b"89"]
    with pytest.raises(StoreError), store.reading("a/none.bin"):
        pass


def test_when_an_object_was_written_is_known(store: ObjectStore) -> None:
    before = datetime.now(UTC)
    store.write("a/b.bin", b"bytes")
    assert abs(store.modified("a/b.bin") - before) < timedelta(minutes=1)
    assert store.modified("a/b.bin").tzinfo is UTC
    with pytest.raises(StoreError):
        store.modified("a/none.bin")


def test_what_another_client_rewrote_is_read_whole_whatever_was_listed_before(store: ObjectStore) -> None:
    another = ObjectStore(root=store.root, options={**store.options, "skip_instance_cache": True})
    store.write("a/latest.json", b"old")
    store.folders("a/")
    another.write("a/latest.json", b"newer")
    with store.reading("a/latest.json") as (size, pieces):
        assert size == 5
        assert b"".join(pieces) == b"newer"
    store.folders("a/")
    another.write("a/latest.json", b"newest")
    assert store.digest("a/latest.json") == (hashlib.sha256(b"newest").hexdigest(), 6)
