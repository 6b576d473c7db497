"""What Prometheus sees of the published cycles."""

from __future__ import annotations

import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from infra import layout
from infra.manifests import MemberManifest
from infra.metrics import serve_metrics
from infra.object_store import ObjectStore
from infra.publication import FileRecord, Manifest
from model.cycle import Cycle
from tests.conftest import free_port

NEWEST = datetime(2026, 1, 2, tzinfo=UTC)


def scraped(store: ObjectStore) -> dict[str, float]:
    port = free_port()
    stop = serve_metrics(
        lambda: store, port=port, clock=lambda: NEWEST + timedelta(hours=10), host="127.0.0.1"
    )
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
    finally:
        stop()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in values.items()}


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    store = ObjectStore(root=str(tmp_path))
    for day in (0, 1):
        cycle = Cycle(model="tiny", init_time=NEWEST - timedelta(days=day))
        manifest = Manifest(
            cycle=cycle,
            run="r",
            attempt="a",
            members=(0, 1, 2),
            steps=4,
            step_hours=6,
            published_at=cycle.init_time + timedelta(hours=8),
            files={
                "mean.nc": FileRecord(sha256="0" * 64, size=700),
                "index.html": FileRecord(sha256="1" * 64, size=30),
            },
        )
        store.write(layout.cycle_manifest(cycle), manifest.to_json())
    for member, (seconds, host) in enumerate([(1.5, 900), (2.5, 800), (2.0, 700)]):
        MemberManifest(
            member=member,
            run="r",
            steps=4,
            chunks={},
            device="cpu",
            seconds_per_step=seconds,
            peak_host_bytes=host,
            peak_device_bytes=None if member else 600,
        ).save(store, cycle=Cycle(model="tiny", init_time=NEWEST))
    return store


def test_the_newest_cycle_is_measured_and_all_are_counted(store: ObjectStore) -> None:
    assert scraped(store) == {
        'foldcast_age_seconds{model="tiny"}': 36000.0,
        'foldcast_latency_seconds{model="tiny"}': 28800.0,
        'foldcast_published_bytes{model="tiny"}': 730.0,
        'foldcast_members{model="tiny"}': 3.0,
        'foldcast_step_seconds{model="tiny"}': 2.5,
        'foldcast_peak_host_bytes{model="tiny"}': 900.0,
        'foldcast_peak_device_bytes{model="tiny"}': 600.0,
        'foldcast_cycles{model="tiny"}': 2.0,
    }


def test_simulated_weather_has_neither_age_nor_latency(store: ObjectStore) -> None:
    cycle = Cycle(model="nature", init_time=NEWEST - timedelta(days=4000))
    manifest = Manifest(
        cycle=cycle, run="r", attempt="a", members=(0,), steps=4, step_hours=6,
        published_at=NEWEST, files={}, details={"simulated": True},
    )  # fmt: skip
    store.write(layout.cycle_manifest(cycle), manifest.to_json())
    values = scraped(store)
    assert {name for name in values if "nature" in name} == {
        f'foldcast_{name}{{model="nature"}}' for name in ("published_bytes", "members", "cycles")
    }
    assert values['foldcast_latency_seconds{model="tiny"}'] == 28800.0
