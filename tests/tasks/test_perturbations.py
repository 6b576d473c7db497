"""Members' initial conditions from the configuration: what is prepared, what is recorded, what comes out."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from infra.dataset_checksum import dataset_sha256
from infra.errors import StoreError, UnknownOptionError
from infra.initial_conditions import load_initial_condition
from infra.settings import Settings
from model.cycle import Cycle
from model.rollout.rng import base_key, member_key
from tasks import initial_conditions
from tasks.initial_conditions import missing_inputs, other_analyses, prepare_initial_condition
from tasks.perturbations import describe_perturbation, member_conditions
from tests.fakes.synthetic_source import GRID, SyntheticSource, write_statistics
from tests.model.diagnostics.atmospheres import INIT_TIME
from tests.tasks.test_initial_conditions import CYCLE, settings_in

BASE = base_key(0, INIT_TIME)


@pytest.fixture(autouse=True)
def sources(monkeypatch: pytest.MonkeyPatch) -> dict[str, SyntheticSource]:
    def warmer(frame):
        return frame.assign({"temperature": frame["temperature"] + 2}) if "temperature" in frame else frame

    known = {"synthetic": SyntheticSource(), "ocean": SyntheticSource(name="ocean", mutate=warmer)}
    monkeypatch.setattr(initial_conditions, "make_source", lambda name, settings: known[name])
    return known


def prepared(folder: Path, **perturbation: object) -> Settings:
    write_statistics(folder / "statistics")
    settings = settings_in(folder, perturbation=perturbation)
    prepare_initial_condition(CYCLE, settings)
    return settings


def temperatures(settings: Settings, members: tuple[int, ...]) -> list[np.ndarray]:
    control = load_initial_condition(settings.store.open(), CYCLE)
    condition = member_conditions(CYCLE, settings, control)
    return [condition(m, member_key(BASE, m), GRID)["temperature"].values for m in members]


def test_without_a_perturbation_all_members_share_the_analysis(tmp_path: Path) -> None:
    settings = prepared(tmp_path)
    assert describe_perturbation(CYCLE, settings) == {}
    first, second = temperatures(settings, (0, 3))
    np.testing.assert_array_equal(first, second)


def test_noise_is_recorded_and_makes_members_differ(tmp_path: Path) -> None:
    settings = prepared(tmp_path, kind="noise", amplitude=0.2)
    described = describe_perturbation(CYCLE, settings)
    assert (described["kind"], described["amplitude"]) == ("noise", 0.2)
    control, first, again, second = temperatures(settings, (0, 1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(control, first)
    assert not np.array_equal(first, second)


def test_lagged_analyses_are_fetched_with_the_control_and_decide_the_run(tmp_path: Path) -> None:
    settings = prepared(tmp_path, kind="lagged", lags_hours=[6, 12], amplitude=1.0)
    store = settings.store.open()
    earlier = [Cycle(model="synthetic", init_time=INIT_TIME - timedelta(hours=h)) for h in (6, 12)]
    assert other_analyses(CYCLE, settings) == tuple((cycle, "") for cycle in earlier)
    older = [load_initial_condition(store, cycle) for cycle in earlier]
    described = describe_perturbation(CYCLE, settings)
    assert described["analyses_sha256"] == [dataset_sha256(each) for each in older]
    (first,) = temperatures(settings, (1,))
    np.testing.assert_allclose(first, older[0]["temperature"].values, rtol=1e-5)
    assert missing_inputs(CYCLE, settings) == ()


def test_a_set_of_analyses_lies_beside_the_control(tmp_path: Path) -> None:
    settings = prepared(tmp_path, kind="analyses", sources=["synthetic", "ocean"], amplitude=1.0)
    store = settings.store.open()
    colder, warmer = (
        load_initial_condition(store, CYCLE, source)["temperature"].values
        for source in ("synthetic", "ocean")
    )
    np.testing.assert_allclose(warmer - colder, 2.0, atol=1e-3)
    control, first, second = temperatures(settings, (0, 1, 2))
    np.testing.assert_allclose(first - control, -1.0, atol=1e-3)
    np.testing.assert_allclose(second - control, 1.0, atol=1e-3)


def test_what_was_not_prepared_is_missed(tmp_path: Path) -> None:
    prepared(tmp_path)
    settings = settings_in(tmp_path, perturbation={"kind": "lagged", "lags_hours": [24]})
    with pytest.raises(StoreError, match=r"synthetic/20260101T00Z: no complete initial condition"):
        describe_perturbation(CYCLE, settings)


def test_parameters_of_ones_own_are_refused_with_a_way_out(tmp_path: Path) -> None:
    settings = prepared(tmp_path, kind="weights")
    with pytest.raises(UnknownOptionError, match="take 'noise', 'lagged' or 'analyses'"):
        describe_perturbation(CYCLE, settings)
