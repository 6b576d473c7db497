"""What is said about skill: pictures, comparisons, and when a cycle is unusual."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from infra import layout
from infra.object_store import ObjectStore
from model.cycle import Cycle
from model.diagnostics.scores import ensemble_statistics
from model.grid import Grid
from tasks.report import compare_models, report_skill, skill_table, unusual_scores
from tasks.verification import skill_rows, statistics_bytes

GRID = Grid(resolution=30.0)
START = datetime(2026, 1, 1, tzinfo=UTC)
LEADS = np.array([24, 48], dtype="timedelta64[h]").astype("timedelta64[ns]")


def verified(store: ObjectStore, model: str, number: int, *, error: float) -> Cycle:
    """Store the statistics of a cycle whose members are off by about ``error``."""
    rng = np.random.default_rng([number, len(model)])
    truth = rng.normal(size=(2, *GRID.shape))
    members = truth + error * rng.normal(size=(3, 2, *GRID.shape))
    coords = {"lead_time": LEADS, "latitude": GRID.latitude, "longitude": GRID.longitude}
    dims = ("lead_time", "latitude", "longitude")
    statistics = ensemble_statistics(
        xr.Dataset({"2m_temperature": (("member", *dims), members)}, coords=coords),
        xr.Dataset({"2m_temperature": (dims, truth)}, coords=coords),
        grid=GRID,
    )
    cycle = Cycle(model=model, init_time=START + number * timedelta(hours=12))
    store.write(layout.verification(cycle), statistics_bytes(statistics))
    return cycle


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    found = ObjectStore(root=str(tmp_path))
    for number in range(10):
        verified(found, "better", number, error=1.0)
        verified(found, "worse", number, error=1.6)
    return found


def test_two_models_are_compared_over_their_common_cycles(store: ObjectStore) -> None:
    verified(store, "worse", 50, error=9.0)  # the other model has no such cycle
    tests, key = compare_models(store, "better", "worse")
    assert (tests["change"] < -0.2).all()
    assert (tests["change"] > -0.5).all()
    assert (tests["p_value"] < 0.01).all()
    assert store.read(key).startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="no verified cycle in common"):
        compare_models(store, "better", "unknown")


def test_skill_is_drawn_over_all_cycles(store: ObjectStore) -> None:
    keys = report_skill(store, "better")
    assert keys == ["reports/better/curves-global.png", "reports/better/ranks-global.png"]
    for key in keys:
        assert store.read(key).startswith(b"\x89PNG")


def test_an_unusual_cycle_is_named(store: ObjectStore) -> None:
    assert unusual_scores(store, verified(store, "better", 10, error=1.0)) == []
    found = unusual_scores(store, verified(store, "better", 11, error=3.0))
    assert len(found) == 2
    assert found[0].startswith("2m_temperature +24 h: RMSE ")
    first = Cycle(model="better", init_time=START)
    assert unusual_scores(store, first) == []


def test_the_table_holds_what_is_asked_for(store: ObjectStore) -> None:
    rows = skill_rows(store, "better")
    table = skill_table(rows, fields=("2m_temperature",), days=(2.0,))
    assert len(table) == 1
    assert table[0]["lead"] == "2 d"
    assert table[0]["persistence"] == ""
    assert skill_table(rows, fields=("z500",)) == []
