"""Members' initial conditions from the configuration: what is prepared, what is recorded, what comes out."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infra.dataset_checksum import dataset_sha256
from infra.errors import StoreError, UnknownOptionError
from infra.initial_conditions import load_initial_condition
from infra.manifests import RunDescription
from infra.settings import Settings
from model.cycle import Cycle
from model.rollout.rng import base_key, member_key
from tasks import initial_conditions
from tasks.initial_conditions import missing_inputs, other_analyses, prepare_initial_condition
from tasks.perturbations import describe_perturbation, member_conditions, member_parameters
from tests.fakes.pass_through import PassThroughForecaster
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


def described(settings: Settings, **changes: Any) -> RunDescription:
    return RunDescription(
        **{
            "cycle": CYCLE,
            "model_sha256": "",
            "statistics_sha256": "",
            "initial_condition": "",
            "initial_condition_sha256": "",
            "seed": 0,
            "rng": "operational",
            "precision": "float32",
            "attention": "auto",
            "perturbation": describe_perturbation(CYCLE, settings),
            "code_version": "0",
            "compiler_version": "0",
            **changes,
        }
    )


def weights(description: RunDescription, member: int) -> np.ndarray:
    parameters = member_parameters(description, PassThroughForecaster())
    assert parameters is not None
    return parameters(member)["mix"]["w"]


def test_a_members_parameters_follow_from_seed_init_time_and_member_alone(tmp_path: Path) -> None:
    settings = prepared(tmp_path, kind="weights", amplitude=0.1)
    description = described(settings)
    published = PassThroughForecaster().parameters["mix"]["w"]
    np.testing.assert_array_equal(weights(description, 0), published, "the control has the published ones")
    first = weights(description, 1)
    np.testing.assert_array_equal(weights(description, 1), first)
    # Eight draws of a tenth of the root mean square, which is 1.05 for numbers evenly from 0.5 to 1.5.
    assert 0.02 < np.std(first - published) < 0.25
    earlier = Cycle(model=CYCLE.model, init_time=CYCLE.init_time - timedelta(hours=12))
    for other in (described(settings, seed=1), described(settings, cycle=earlier)):
        assert not np.array_equal(weights(other, 1), first)
    assert not np.array_equal(weights(description, 2), first)
    unrelated = described(settings, precision="bfloat16", code_version="1", model_sha256="another")
    np.testing.assert_array_equal(weights(unrelated, 1), first)


def test_weight_noise_is_part_of_the_run_and_leaves_the_analysis_alone(tmp_path: Path) -> None:
    settings = prepared(tmp_path, kind="weights", amplitude=0.1)
    assert describe_perturbation(CYCLE, settings)["kind"] == "weights"
    control, first = temperatures(settings, (0, 1))
    np.testing.assert_array_equal(control, first)
    assert described(settings).run != described(prepared(tmp_path / "none")).run


def test_parameters_of_ones_own_need_a_program_and_a_family_that_can(tmp_path: Path) -> None:
    settings = prepared(tmp_path, kind="weights")
    together = settings.models[CYCLE.model].model_copy(update={"members_per_program": 4})
    with pytest.raises(UnknownOptionError, match="expected members_per_program=1, got 4"):
        describe_perturbation(CYCLE, settings.model_copy(update={"models": {CYCLE.model: together}}))

    class Fixed:
        family = "fixed"

    with pytest.raises(UnknownOptionError, match="family fixed cannot be exchanged"):
        member_parameters(described(settings), Fixed())  # type: ignore[arg-type]


def test_other_perturbations_leave_the_parameters_alone(tmp_path: Path) -> None:
    for perturbation in ({}, {"kind": "noise"}, {"kind": "lagged", "lags_hours": [6], "amplitude": 1.0}):
        settings = prepared(tmp_path / str(len(perturbation)), **perturbation)
        assert member_parameters(described(settings), PassThroughForecaster()) is None
