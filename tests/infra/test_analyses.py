from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from infra.analyses import (
    drop_analysis,
    has_analysis,
    has_raw,
    open_raw,
    raw_folder,
    raw_manifest_key,
    read_analysis,
    store_raw,
    write_analysis,
    write_shared_analysis,
)
from infra.errors import StoreError, TransientSourceError
from infra.object_store import ObjectStore
from infra.sources.field_copies import write_copy
from infra.sources.files import Files
from infra.sources.source import FieldRequest

TIME = datetime(2026, 1, 1, tzinfo=UTC)
REQUEST = FieldRequest(valid_time=TIME, variables=("2m_temperature",))
SOURCE = Files(root="unused", name="mine")


def fields(value: float = 280.0) -> xr.Dataset:
    return xr.Dataset(
        {"2m_temperature": (("time", "latitude", "longitude"), np.full((1, 3, 4), value, np.float32))},
        coords={
            "time": np.array(["2026-01-01"], "datetime64[ns]"),
            "latitude": np.array([-90.0, 0.0, 90.0], np.float32),
            "longitude": np.array([0.0, 90.0, 180.0, 270.0], np.float32),
        },
        attrs={"source": "mine"},
    )


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ObjectStore]:
    """A folder, and a store that is none."""
    if request.param == "local":
        yield ObjectStore(root=str(tmp_path / "store"))
        return
    store = ObjectStore(root="memory://analyses")
    yield store
    store.filesystem.store.clear()


def test_raw_files_come_back_as_they_went_in(store: ObjectStore) -> None:
    key = raw_manifest_key(SOURCE, REQUEST)
    assert not has_raw(store, key)
    with raw_folder(store, SOURCE, TIME) as folder:
        file = write_copy(fields(), folder / "t.nc", url="somewhere")
        data = file.path.read_bytes()
        assert store_raw(store, SOURCE, REQUEST, [file]) == key
    assert has_raw(store, key)
    with open_raw(store, key) as (request, manifest, files):
        assert request == REQUEST
        assert (manifest["source"], manifest["kind"]) == ("mine", "era5")
        assert files[0].path.read_bytes() == data
        assert files[0].sha256 == file.sha256


def test_a_raw_file_that_changed_its_length_is_refused(tmp_path: Path) -> None:
    store = ObjectStore(root=str(tmp_path))
    with raw_folder(store, SOURCE, TIME) as folder:
        file = write_copy(fields(), folder / "t.nc", url="somewhere")
        key = store_raw(store, SOURCE, REQUEST, [file])
    file.path.write_bytes(b"short")
    assert not has_raw(store, key)  # it will be fetched again
    with pytest.raises(StoreError, match=r"t.nc: expected \d+ bytes, got 5"), open_raw(store, key):
        pass


def test_a_raw_file_of_other_bytes_is_removed_to_be_fetched_again(tmp_path: Path) -> None:
    store = ObjectStore(root=str(tmp_path))
    with raw_folder(store, SOURCE, TIME) as folder:
        file = write_copy(fields(), folder / "t.nc", url="somewhere")
        key = store_raw(store, SOURCE, REQUEST, [file])
    damaged = bytearray(file.path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    file.path.write_bytes(damaged)
    with pytest.raises(TransientSourceError, match=r"t.nc: expected the bytes that were fetched"):
        open_raw(store, key).__enter__()
    assert not has_raw(store, key)
    assert not file.path.exists()


def test_another_configuration_of_a_source_does_not_find_what_was_fetched_before() -> None:
    keys = {
        raw_manifest_key(Files(root=root, name="mine", kind=kind), REQUEST)
        for root, kind in (("a", "era5"), ("b", "era5"), ("a", "hres"))
    }
    assert len(keys) == 3
    plain, secret = (Files(root="a", name="mine", options=options) for options in ({}, {"key": "x"}))
    assert raw_manifest_key(plain, REQUEST) == raw_manifest_key(secret, REQUEST)


def test_of_two_that_make_the_same_fields_the_first_is_the_author(store: ObjectStore) -> None:
    write_shared_analysis(store, "a.zarr", fields(280.0))
    before = set(store.list("a.zarr/"))
    write_shared_analysis(store, "a.zarr", fields(290.0))
    assert (
        set(store.list("a.zarr/")) == before
    )  # nothing a reader may be at was touched, nothing is left over
    assert float(read_analysis(store, "a.zarr")["2m_temperature"].max()) == 280.0
    drop_analysis(store, "a.zarr")
    assert not has_analysis(store, "a.zarr")
    assert not list(store.list("a.zarr/"))


def test_fields_come_back_with_their_checksum(store: ObjectStore) -> None:
    assert not has_analysis(store, "a.zarr")
    write_analysis(store, "a.zarr", fields())
    xr.testing.assert_identical(read_analysis(store, "a.zarr"), fields())


def test_half_written_fields_do_not_exist(store: ObjectStore) -> None:
    write_analysis(store, "a.zarr", fields())
    store.delete("a.zarr.json")  # as after a death between the group and its marker
    assert not has_analysis(store, "a.zarr")
    with pytest.raises(StoreError, match=r"a.zarr.json: no such object"):
        read_analysis(store, "a.zarr")
    write_analysis(store, "a.zarr", fields(270.0))
    assert float(read_analysis(store, "a.zarr")["2m_temperature"].max()) == 270.0


def test_fields_that_changed_since_are_refused(tmp_path: Path) -> None:
    store = ObjectStore(root=str(tmp_path))
    write_analysis(store, "a.zarr", fields())
    fields(0.0).to_zarr(store.zarr("a.zarr"), mode="w", consolidated=True)
    with pytest.raises(StoreError, match="expected fields of sha256"):
        read_analysis(store, "a.zarr")
