"""The catalogue lists what is published, reads only what it must, and mends what a dead publisher left."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from infra import layout
from infra.catalog import catalog_entries, update_catalog
from infra.cycle_status import list_cycles
from infra.object_store import ObjectStore
from infra.publication import Manifest, make_visible, quarantine
from model.cycle import Cycle

START = datetime(2026, 1, 1, tzinfo=UTC)


def cycle(number: int) -> Cycle:
    return Cycle(model="m", init_time=START + timedelta(hours=12 * number))


def publish(
    store: ObjectStore, number: int, attempt: str = "a", *, replace: bool = False, simulated: bool = False
) -> None:
    manifest = Manifest(
        cycle=cycle(number), run="run", attempt=attempt, members=(0, 1), steps=2, step_hours=12,
        published_at=cycle(number).init_time + timedelta(hours=7), files={},
        details={"simulated": simulated},
    )  # fmt: skip
    make_visible(store, manifest, replace=replace)


def linked(store: ObjectStore) -> list[str]:
    collection = json.loads(store.read(layout.catalog_collection("m")))
    return [link["href"] for link in collection["links"] if link["rel"] == "item"]


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(root=str(tmp_path))


def test_publishing_reads_no_manifest_but_its_own(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        publish(store, number)
    update_catalog(store, (cycle(4),))
    publish(store, 5)
    read: list[str] = []
    plain = ObjectStore.read

    def counted(self: ObjectStore, key: str) -> bytes:
        read.append(key)
        return plain(self, key)

    monkeypatch.setattr(ObjectStore, "read", counted)
    update_catalog(store, (cycle(5),))
    assert [key for key in read if key.endswith("manifest.json")] == [layout.cycle_manifest(cycle(5))]
    assert linked(store) == [f"{cycle(n).identifier}.json" for n in range(6)]
    assert store.exists(layout.catalog_item(cycle(5)))
    page = store.read(layout.catalog("index.html")).decode()
    assert all(f"cycles/{cycle(n)}/products/run/a/index.html" in page for n in range(6))


def test_what_appeared_and_went_unnoticed_is_found(store: ObjectStore) -> None:
    for number in range(3):
        publish(store, number)
    update_catalog(store, (cycle(0),))
    publish(store, 3)  # its publisher died before the catalogue
    store.delete(layout.cycle_prefix(cycle(1)))
    publish(store, 4)
    update_catalog(store, (cycle(4),))
    assert [entry.cycle for entry in catalog_entries(store)] == [cycle(n) for n in (0, 2, 3, 4)]
    assert linked(store) == [f"{cycle(n).identifier}.json" for n in (0, 2, 3, 4)]


def test_a_model_all_of_whose_cycles_were_removed_has_an_empty_collection(store: ObjectStore) -> None:
    publish(store, 0)
    update_catalog(store)
    store.delete(layout.cycle_prefix(cycle(0)))
    update_catalog(store)
    assert linked(store) == []
    root = json.loads(store.read(layout.catalog()))
    assert [link["rel"] for link in root["links"]] == ["root"]


def test_a_replaced_cycle_and_a_lost_list_are_read_anew(store: ObjectStore) -> None:
    publish(store, 0)
    publish(store, 1)
    update_catalog(store)
    publish(store, 0, "b", replace=True)
    update_catalog(store, (cycle(0),))
    assert catalog_entries(store)[0].page.endswith("/b/index.html")
    whole = store.read(layout.catalog("cycles.json"))
    for damage in (b"", whole[:-40], b'{"format": 99}', b"[]"):
        store.write(layout.catalog("cycles.json"), damage)
        update_catalog(store, ())
        assert store.read(layout.catalog("cycles.json")) == whole


def test_a_manifest_of_no_use_harms_no_other_cycle(store: ObjectStore) -> None:
    for number in range(3):
        publish(store, number)
    store.write(layout.cycle_manifest(cycle(1)), b'{"format": 99}')
    quarantine(store, cycle(7), run="run", attempt="x", reasons=["too warm"])
    update_catalog(store)
    assert [entry.cycle for entry in catalog_entries(store)] == [cycle(0), cycle(2)]
    assert [status.cycle for status in list_cycles(store)] == [cycle(7), cycle(2), cycle(0)]
    assert "too warm" in store.read(layout.catalog("index.html")).decode()


def test_simulated_weather_has_no_latency(store: ObjectStore) -> None:
    """A nature run's times have nothing to do with the clock; published cycles of earlier lists are real ones."""
    publish(store, 0)
    publish(store, 1, simulated=True)
    update_catalog(store)
    simulated, real = list_cycles(store)
    assert (real.latency, simulated.latency) == (timedelta(hours=7), None)
    page = store.read(layout.catalog("index.html")).decode()
    assert (page.count("<td>7.0 h</td>"), page.count("<td>–</td>")) == (1, 1)
    earlier = json.loads(store.read(layout.catalog("cycles.json")))
    for entry in earlier["cycles"]:
        del entry["simulated"]
    store.write(layout.catalog("cycles.json"), json.dumps(earlier).encode())
    assert not any(entry.simulated for entry in catalog_entries(store))
