"""What is said about skill: pictures, comparisons, and when a cycle is unusual."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from infra import layout
from infra.object_store import ObjectStore
from model.cycle import Cycle
from model.diagnostics.scores import ensemble_statistics
from model.grid import Grid
from tasks.report import compare_models, report_skill, skill_table, unusual_scores
from tasks.verification import load_statistics, skill_rows, statistics_bytes, verified_cycles

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


def test_a_cycle_verified_for_a_day_only_keeps_the_longer_lead_times(store: ObjectStore) -> None:
    """A lead time is compared over the cycles that have it in both models; too few of them tell nothing."""
    whole, _ = compare_models(store, "better", "worse")
    for model in ("better", "worse"):
        cycle = verified(store, model, 10, error=1.0)
        store.write(
            layout.verification(cycle), statistics_bytes(load_statistics(store, cycle).isel(lead_time=[0]))
        )
    longer, _ = compare_models(store, "better", "worse")
    assert longer.sizes["lead_time"] == 2
    xr.testing.assert_allclose(longer.isel(lead_time=1), whole.isel(lead_time=1))
    assert (abs(longer["change"] - whole["change"]).isel(lead_time=0) > 0).all()


def test_the_card_has_the_numbers_of_a_plain_computation(store: ObjectStore) -> None:
    """Relative change from pooled squared errors; p-value from Student's t with the AR(2) standard error."""
    tests, _ = compare_models(store, "better", "worse")
    squares = {}
    for model in ("better", "worse"):
        squares[model] = np.array(
            [
                float(
                    s["squared_error"].sel(field="2m_temperature", region="global")[1]
                    / s["weight"].sel(field="2m_temperature", region="global")[1]
                )
                for s in (load_statistics(store, cycle) for cycle in verified_cycles(store, model))
            ]
        )
    difference = squares["better"] - squares["worse"]
    centred = difference - difference.mean()
    r1, r2 = (np.sum(centred[k:] * centred[:-k]) / np.sum(centred**2) for k in (1, 2))
    phi1, phi2 = np.linalg.solve([[1, r1], [r1, 1]], [r1, r2])  # Yule-Walker
    inflation = max(1.0, (1 - phi1 * r1 - phi2 * r2) / (1 - phi1 - phi2) ** 2) ** 0.5
    error = difference.std(ddof=1) / 10**0.5 * inflation
    p_value = 2 * stats.t.sf(abs(difference.mean()) / error, 9)
    at = tests.sel(field="2m_temperature").isel(lead_time=1)
    assert float(at["p_value"]) == pytest.approx(p_value, rel=1e-9)
    change = (squares["better"].mean() / squares["worse"].mean()) ** 0.5 - 1
    assert float(at["change"]) == pytest.approx(change, rel=1e-9)


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
