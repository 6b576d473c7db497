"""What lies in a store after an upload is what was meant, however it got there, or the upload fails."""

from __future__ import annotations

import hashlib
import os
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import infra.s3_upload
from infra.errors import TransientSourceError
from infra.object_store import ObjectStore
from infra.publication import upload_folder, verify_files
from infra.retry import RetryPolicy
from infra.s3_upload import PART, kept_checksum, put_with_checksum
from infra.verified_upload import upload_verified
from tests.fakes.s3 import S3Server
from tests.tools.faulty_proxy import FaultyProxy

LARGE = np.random.default_rng(0).bytes(11 << 20)
RETRY = RetryPolicy(attempts=200, first_delay=0.0)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file.html"
    path.write_bytes(LARGE)
    return path


@pytest.fixture
def comparing(s3_server: S3Server) -> Iterator[tuple[ObjectStore, FaultyProxy]]:
    """An S3 server that refuses wrong checksums, as S3 does."""
    with FaultyProxy(s3_server.address, rate=0, seed=0, compares_checksums=True) as proxy:
        options = s3_server.options_at(proxy.url, retries={"max_attempts": 0})
        yield ObjectStore(root=f"s3://{s3_server.new_bucket()}", options=options), proxy


def test_a_scratch_file_becomes_the_object_itself(tmp_path: Path) -> None:
    store = ObjectStore(root=str(tmp_path / "store"))
    with store.scratch("test") as folder:
        (folder / "file").write_bytes(LARGE)
        inode = os.stat(folder / "file").st_ino
        known = upload_verified(store, folder / "file", "a/file", adopt=True)
        assert list(store.list("")) == ["a/file"]
        assert store.folders("") == ["a"]
    assert os.stat(store.path("a/file")).st_ino == inode
    assert known == store.digest("a/file") == (hashlib.sha256(LARGE).hexdigest(), len(LARGE))
    assert os.listdir(tmp_path / "store") == ["a"]


def test_a_file_of_another_owner_is_copied(tmp_path: Path, file: Path) -> None:
    store = ObjectStore(root=str(tmp_path / "store"))
    known = upload_verified(store, file, "file")
    file.write_bytes(b"changed later")
    assert known == store.digest("file") == (hashlib.sha256(LARGE).hexdigest(), len(LARGE))


def test_without_links_files_are_copied(tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    store = ObjectStore(root=str(tmp_path / "store"))
    assert upload_verified(store, file, "file", adopt=True) == store.digest("file")


def test_a_copy_that_differs_is_found(tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = os.replace

    def damage(source: Path, target: Path) -> None:
        with open(source, "r+b") as stored:
            stored.seek(5_000_000)
            stored.write(b"?")
        replace(source, target)

    monkeypatch.setattr(os, "replace", damage)
    store = ObjectStore(root=str(tmp_path / "store"))
    with pytest.raises(TransientSourceError, match="other bytes than were written"):
        upload_verified(store, file, "file")


def test_a_server_that_compares_is_asked_instead_of_read(
    comparing: tuple[ObjectStore, FaultyProxy], file: Path
) -> None:
    store, proxy = comparing
    known = upload_verified(store, file, "file.html")
    assert known == (hashlib.sha256(LARGE).hexdigest(), len(LARGE))
    assert proxy.requests == {"PUT": 2, "HEAD": 1}  # one of the puts is the probe that must be refused
    upload_verified(store, file, "again")
    assert proxy.requests == {"PUT": 3, "HEAD": 2}
    assert store.digest("file.html") == known
    assert store.filesystem.info(store.path("file.html"))["ContentType"] == "text/html"
    assert list(store.list("")) == ["again", "file.html"]


def test_a_server_that_keeps_any_checksum_is_read_back(s3_server: S3Server, file: Path) -> None:
    with FaultyProxy(s3_server.address, rate=0, seed=0) as proxy:
        options = s3_server.options_at(proxy.url, retries={"max_attempts": 0})
        store = ObjectStore(root=f"s3://{s3_server.new_bucket()}", options=options)
        known = upload_verified(store, file, "file")
        assert proxy.requests["GET"] >= 2  # in pieces
        assert list(store.list("")) == ["file"]
    direct = ObjectStore(root=store.root, options=s3_server.options)
    assert known == direct.digest("file")


def test_parts_are_checked_one_by_one(comparing: tuple[ObjectStore, FaultyProxy], file: Path) -> None:
    store, _ = comparing
    part = 5 << 20
    sha256 = hashlib.sha256(LARGE).digest()
    checksum = put_with_checksum(store.filesystem, file, store.path("large"), sha256, part=part)
    pieces = [LARGE[start : start + part] for start in range(0, len(LARGE), part)]
    of_parts = hashlib.sha256(b"".join(hashlib.sha256(piece).digest() for piece in pieces)).digest()
    assert checksum == b64encode(of_parts).decode()
    assert kept_checksum(store.filesystem, store.path("large")) == (checksum, len(LARGE))
    assert store.digest("large") == (sha256.hex(), len(LARGE))


@pytest.mark.parametrize("compares", [True, False])
def test_damaged_and_cut_bodies_never_count(
    s3_server: S3Server, tmp_path: Path, compares: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Single puts and multipart uploads alike, by the server's checksum or by reading back."""
    monkeypatch.setattr(infra.s3_upload, "PART", 5 << 20)
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)
    folder = tmp_path / "products"
    folder.mkdir()
    for number in range(12):
        (folder / f"{number}").write_bytes(LARGE[number * 50_000 : (number + 1) * 50_000])
    (folder / "parts").write_bytes(LARGE)
    with FaultyProxy(
        s3_server.address,
        rate=0.4,
        seed=3,
        faults=("damage body", "cut body"),
        compares_checksums=compares,
    ) as proxy:
        bucket = s3_server.new_bucket()
        options = s3_server.options_at(proxy.url, retries={"max_attempts": 0}, read_timeout=5)
        faulty = ObjectStore(root=f"s3://{bucket}", options=options)
        files = upload_folder(faulty, folder, "p/", retry=RETRY)
        assert proxy.counts["damage body"] > 3
        assert proxy.counts["cut body"] > 3
    direct = ObjectStore(root=f"s3://{bucket}", options=s3_server.options)
    verify_files(direct, "p/", files)
    assert files["parts"].sha256 == hashlib.sha256(LARGE).hexdigest()
    left = direct.filesystem.call_s3("list_multipart_uploads", Bucket=bucket)
    assert len(left.get("Uploads", [])) <= proxy.counts["cut body"]


def test_parts_are_large_enough_for_s3() -> None:
    assert PART >= 5 << 20
