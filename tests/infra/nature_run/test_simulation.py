"""The driver of the circulation model; the run itself takes half a minute and jcm, so it is asked for."""

from __future__ import annotations

import importlib.util
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from infra.nature_run.analysis import ModelOutput, to_analyses
from infra.nature_run.simulation import Simulation, SimulationError, SimulationSettings

START = datetime(2000, 9, 1, tzinfo=UTC)


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="time-zone aware"):
        SimulationSettings(seed=1, start=datetime(2000, 9, 1))
    with pytest.raises(ValueError, match="seed"):
        SimulationSettings(seed=-1, start=START)


def test_without_jcm_one_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jcm.forcing", None)  # importing it now raises ImportError
    with pytest.raises(SimulationError, match=r"foldcast\[nature-run\]"):
        Simulation(settings=SimulationSettings(seed=1, start=START))


@pytest.mark.skipif(importlib.util.find_spec("jcm") is None, reason="jcm (extra nature-run) is not installed")
@pytest.mark.skipif(
    "FOLDCAST_SLOW_TESTS" not in os.environ, reason="half a minute: set FOLDCAST_SLOW_TESTS=1"
)
@pytest.mark.timeout(1200)
@pytest.mark.filterwarnings("ignore")  # jcm's own, of several kinds
def test_a_resumed_run_is_the_same_run(tmp_path: Path) -> None:
    settings = SimulationSettings(seed=1, start=START)
    whole = Simulation(settings=settings)
    first = whole.advance(2)
    whole.save(tmp_path / "state")
    second = whole.advance(2)
    assert whole.time == datetime(2000, 9, 2, tzinfo=UTC)

    resumed = Simulation(settings=settings)
    resumed.restore(tmp_path / "state")
    assert resumed.time == datetime(2000, 9, 1, 12, tzinfo=UTC)
    again = resumed.advance(2)
    for name in ModelOutput.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(again, name), getattr(second, name), err_msg=name)

    boundary = whole.boundary()
    weights = np.cos(np.radians(boundary.latitude))[:, None]
    pressure = (first.surface_pressure * weights).mean() / weights.mean()
    assert pressure == pytest.approx(98_500, rel=2e-3)
    # North is up: Antarctica is high, the Arctic ocean is not; the Sahara is land.
    assert boundary.geopotential_at_surface[-2].mean() > 1.5e4
    assert abs(boundary.geopotential_at_surface[1].mean()) < 3e3
    assert boundary.land_sea_mask[np.abs(boundary.latitude - 22).argmin(), 3] == 1.0
    analyses = to_analyses(second, boundary)
    assert all(np.isfinite(f).all() for n, f in analyses.data_vars.items() if n != "sea_surface_temperature")
    equator = analyses["sea_surface_temperature"].sel(latitude=0, method="nearest").mean()
    assert 298 < float(equator) < 304
