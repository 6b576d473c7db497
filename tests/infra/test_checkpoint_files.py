import sys
from pathlib import Path

import fsspec
import pytest
from fsspec.registry import _registry

from infra.checkpoint_files import local_copy, read_checkpoint, read_statistics
from infra.errors import CheckpointFileError, InvalidFieldError, StoreError


@pytest.fixture
def remote():
    filesystem = fsspec.filesystem("memory")
    filesystem.pipe_file("/bucket/params.npz", b"first")
    yield filesystem
    filesystem.rm("/bucket", recursive=True)


def test_local_paths_are_taken_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / "a.npz"
    file.write_bytes(b"x")
    assert local_copy(str(file), cache=tmp_path / "cache") == file
    assert not (tmp_path / "cache").exists()


def test_remote_files_are_fetched_once_and_again_when_they_change(
    tmp_path: Path, remote, monkeypatch
) -> None:
    url = "memory://bucket/params.npz"
    first = local_copy(url, cache=tmp_path)
    assert first.read_bytes() == b"first"
    fetched = []
    original = type(remote).get_file
    monkeypatch.setattr(
        type(remote), "get_file", lambda self, *a, **k: (fetched.append(a), original(self, *a, **k))
    )
    assert local_copy(url, cache=tmp_path) == first
    assert not fetched
    remote.pipe_file("/bucket/params.npz", b"second, longer")
    assert local_copy(url, cache=tmp_path).read_bytes() == b"second, longer"
    assert len(fetched) == 1


def test_a_damaged_copy_is_fetched_again(tmp_path: Path, remote) -> None:
    copy = local_copy("memory://bucket/params.npz", cache=tmp_path)
    copy.write_bytes(b"fir")
    assert local_copy("memory://bucket/params.npz", cache=tmp_path).read_bytes() == b"first"
    assert not list(tmp_path.rglob("*.tmp"))


def test_what_is_not_there_is_named(tmp_path: Path, remote) -> None:
    with pytest.raises(StoreError, match=r"nothing.npz"):
        local_copy(str(tmp_path / "nothing.npz"))
    with pytest.raises(StoreError, match=r"memory://bucket/nothing.npz: could not be found"):
        local_copy("memory://bucket/nothing.npz", cache=tmp_path)
    with pytest.raises(CheckpointFileError, match="checkpoint: expected a file, found none"):
        read_checkpoint(str(tmp_path / "nothing.npz"))


def test_an_extra_that_a_url_needs_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(_registry, "gs", raising=False)
    monkeypatch.setitem(sys.modules, "gcsfs", None)  # as if it were not there
    advice = r"gs://bucket/.*: this needs the extra 'gcs': pip install 'foldcast\[gcs\]'"
    with pytest.raises(CheckpointFileError, match=advice):
        read_checkpoint("gs://bucket/params.npz", cache=tmp_path)
    with pytest.raises(InvalidFieldError, match=advice):
        read_statistics("gs://bucket/stats", cache=tmp_path)


def test_statistics_are_found_whatever_stands_before_their_names(tmp_path: Path, parity_dir: Path) -> None:
    source = parity_dir / "gencast_f32"
    for file in source.glob("*_by_level.nc"):
        (tmp_path / f"gencast_stats_{file.name}").write_bytes(file.read_bytes())
    renamed, plain = read_statistics(str(tmp_path)), read_statistics(str(source))
    assert renamed.stddev.identical(plain.stddev)
    assert renamed.diffs_stddev.identical(plain.diffs_stddev)
    assert not renamed.stddev.identical(renamed.diffs_stddev)
    assert renamed.minimum is not None


def test_missing_or_foreign_statistics_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidFieldError, match="expected a folder"):
        read_statistics(str(tmp_path / "absent"))
    with pytest.raises(InvalidFieldError, match="…diffs_stddev_by_level"):
        read_statistics(str(tmp_path))
    for name in ("mean", "stddev", "diffs_stddev"):
        (tmp_path / f"{name}_by_level.nc").write_bytes(b"not NetCDF")
    with pytest.raises(InvalidFieldError, match="expected a NetCDF file"):
        read_statistics(str(tmp_path))
