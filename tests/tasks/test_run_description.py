"""A worker computes members of a run only if it would give them the values the run was planned with."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from flows.ensemble import forecast_ensemble
from flows.members import prepare_block
from infra import layout
from infra.analyses import write_analysis
from infra.errors import CheckpointMismatchError
from infra.settings import ModelSettings, Settings, StoreSettings
from model.cycle import Cycle
from tasks import run_description
from tests.fakes.pass_through import initial_condition

CYCLE = Cycle(model="pass-through", init_time=datetime(2026, 1, 1, tzinfo=UTC))


def configure(root: Path, **changes: Any) -> Settings:
    model = {
        "checkpoint": "pass-through",
        "statistics": "none",
        "loader": "tests.fakes.pass_through:load",
        "trained_on": "nature-run",
        "source": "none",
        "members": 1,
        "steps": 1,
        **changes,
    }
    return Settings(store=StoreSettings(root=str(root)), models={"pass-through": ModelSettings(**model)})


@pytest.fixture
def run(tmp_path: Path) -> str:
    settings = configure(tmp_path)
    write_analysis(settings.store.open(), layout.initial_condition(CYCLE), initial_condition(CYCLE.init_time))
    return forecast_ensemble(CYCLE, settings).run


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"precision": "float16"}, "precision: planned with 'auto', this worker has 'float16'"),
        ({"attention": "mha"}, "attention"),
        ({"perturbation": {"kind": "weights", "amplitude": 1.0}}, "perturbation"),
        ({"seed": 3}, "seed: planned with 0, this worker has 3"),
        ({"rng": "reference"}, "rng"),
        ({"checkpoint": "pass-through?seed=1"}, r"model_sha256: planned with [0-9a-f]{12}…"),
    ],
)
def test_a_worker_that_is_configured_otherwise_is_refused(
    tmp_path: Path, run: str, changes: dict[str, Any], field: str
) -> None:
    with pytest.raises(CheckpointMismatchError, match=field):
        prepare_block(CYCLE, run=run, members=[0, 1], steps=1, settings=configure(tmp_path, **changes)).run()


def test_a_worker_of_other_code_is_refused(tmp_path: Path, run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_description, "code_version", lambda: "0.0.1")
    with pytest.raises(
        CheckpointMismatchError, match=r"code_version: planned with .* this worker has '0.0.1'"
    ):
        prepare_block(CYCLE, run=run, members=[0, 1], steps=1, settings=configure(tmp_path)).run()


def test_a_worker_with_another_compiler_is_refused(
    tmp_path: Path, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_description, "compiler_version", lambda: "jax 0.0.1, jaxlib 0.0.1")
    with pytest.raises(
        CheckpointMismatchError, match=r"compiler_version: planned with 'jax .* has 'jax 0.0.1, jaxlib 0.0.1'"
    ):
        prepare_block(CYCLE, run=run, members=[0, 1], steps=1, settings=configure(tmp_path)).run()


def test_another_initial_condition_is_refused(tmp_path: Path, run: str) -> None:
    settings = configure(tmp_path)
    other = initial_condition(CYCLE.init_time, seed=1)
    store = settings.store.open()
    store.delete(layout.initial_condition(CYCLE) + "/")
    write_analysis(store, layout.initial_condition(CYCLE), other)
    with pytest.raises(CheckpointMismatchError, match="initial_condition_sha256"):
        prepare_block(CYCLE, run=run, members=[0, 1], steps=1, settings=settings).run()


def test_how_a_worker_runs_is_its_own_affair(tmp_path: Path, run: str) -> None:
    settings = configure(tmp_path, block_size=1, checkpoint_every=1, members=5, steps=9)
    assert [
        m.member for m in prepare_block(CYCLE, run=run, members=[0], steps=1, settings=settings).run()
    ] == [0]
