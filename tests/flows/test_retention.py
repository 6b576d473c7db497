"""The retention flow removes what is expired and leaves the catalogue in order."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import flows.retention
from infra import layout
from infra.cycle_status import list_cycles
from infra.publication import Manifest, make_visible
from infra.settings import Settings, StoreSettings
from model.cycle import Cycle


def test_old_cycles_go_and_the_newest_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(store=StoreSettings(root=str(tmp_path)), keep_days=10)
    monkeypatch.setattr(flows.retention, "load_settings", lambda: settings)
    store = settings.store.open()
    long_ago = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(days=40)
    cycles = [Cycle(model="m", init_time=long_ago + timedelta(days=n)) for n in range(3)]
    for cycle in cycles:
        manifest = Manifest(
            cycle=cycle, run="run", attempt="a", members=(0,), steps=1, step_hours=12,
            published_at=cycle.init_time, files={},
        )  # fmt: skip
        make_visible(store, manifest)
    expected = [str(cycle) for cycle in cycles[:2]]
    assert flows.retention.retention.fn(dry_run=True) == expected
    assert len(list_cycles(store)) == 3
    assert flows.retention.retention.fn() == expected
    assert [status.cycle for status in list_cycles(store)] == [cycles[2]]
    assert cycles[0].identifier not in store.read(layout.catalog("m/collection.json")).decode()
    assert not store.exists(layout.catalog_item(cycles[0]))
    assert store.exists(layout.catalog_item(cycles[2]))
    assert flows.retention.retention.fn(keep_days=3000) == []
