"""What `make demo-models` puts together, with a stand-in for the circulation model and without training."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import xarray as xr
from rich.console import Console

import flows.demo_models as demo
from infra.demo import FIRST_ANALYSIS, LAST_ANALYSIS, bundled
from infra.nature_run.archive import AnalysisArchive
from infra.object_store import ObjectStore
from tasks.nature_run import NatureRunPlan
from tasks.training_settings import TrainingSettings
from tests.flows.test_nature_run import START, small_chunks_of_the_stand_in

__all__ = ["small_chunks_of_the_stand_in"]
"""The fixture that puts the stand-in there, used by every test of this module."""


def plan(**changes: Any) -> demo.DemoPlan:
    training = NatureRunPlan(seed=1, start=START, spin_up=timedelta(0), length=timedelta(days=2))
    six_hours = timedelta(hours=6)
    held_out = NatureRunPlan(
        seed=2,
        start=FIRST_ANALYSIS - six_hours,
        spin_up=six_hours,
        length=LAST_ANALYSIS - FIRST_ANALYSIS,
    )
    return demo.DemoPlan(
        **{"training": training, "held_out": held_out, "updates": 2, "resolution": 45.0, **changes}
    )


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> dict[str, TrainingSettings]:
    """Settings of the trainings that were asked for, by family; each gives a file that bears its name."""
    asked: dict[str, TrainingSettings] = {}

    def train(settings: TrainingSettings, family: str, console: Console) -> Path:
        asked[family] = settings
        settings.output.mkdir(parents=True, exist_ok=True)
        path = settings.output / "params.npz"
        path.write_text(family)
        return path

    monkeypatch.setattr(demo, "_train", train)
    return asked


def test_all_that_is_bundled_is_made_from_the_two_runs(
    tmp_path: Path, trained: dict[str, TrainingSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    scored: list[dict[str, Any]] = []
    monkeypatch.setattr(demo, "evaluate_demo", lambda **what: scored.append(what))
    bundle = tmp_path / "bundle"
    (bundle / "analyses").mkdir(parents=True)
    (bundle / "analyses" / "old.grib2").write_text("of another run")

    demo.demo_models(tmp_path, bundle, plan(skill={"starts": 2}))

    assert {path.name for path in bundle.iterdir()} == {
        *("analyses", "climatology.nc", "gencast.npz", "gencast_stats", "graphcast.npz", "graphcast_stats")
    }
    assert (bundle / "gencast.npz").read_text() == "gencast"
    analyses = AnalysisArchive(store=ObjectStore(root=str(bundle / "analyses")))
    assert analyses.times() == [FIRST_ANALYSIS + timedelta(hours=6) * number for number in range(49)]
    assert "land_sea_mask" in analyses.statics()
    assert not (bundle / "analyses" / "old.grib2").exists()
    with xr.open_dataset(bundle / "gencast_stats" / "diffs_stddev_by_level.nc") as statistics:
        assert statistics.attrs["timestep_hours"] == 12

    settings = trained["graphcast"]
    assert settings.statistics == tmp_path / "training-run" / "summary" / "graphcast_stats"
    with xr.open_zarr(settings.archive, consolidated=False) as archive:
        assert archive.sizes["time"] == 7  # two days without their start and without their end
    (what,) = scored
    assert (what["folder"], what["resolution"], what["starts"]) == (bundle, 45.0, 2)
    assert what["archive"] == tmp_path / "held-out-run.zarr"


def test_a_rehearsal_shortens_every_stage_and_leaves_the_rest_of_the_recipe() -> None:
    for family in demo.FAMILIES:
        short, whole = demo._settings(plan(), family), demo._settings(plan(updates=None), family)
        assert [stage["updates"] for stage in short.stages] == [2] * len(whole.stages)
        assert short.curriculum().updates == 2 * len(whole.stages)
        assert short.model_copy(update={"stages": whole.stages}) == whole


def test_a_held_out_run_without_the_bundled_days_is_refused() -> None:
    with pytest.raises(ValueError, match=r"2021-12-27 .* in it, got 2001-01-01"):
        plan(held_out=plan().training)
    assert demo.full().held_out.begin < FIRST_ANALYSIS
    assert demo.rehearsal().held_out.begin == FIRST_ANALYSIS


def test_a_rehearsal_leaves_the_bundled_files_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[Path, Path, demo.DemoPlan]] = []
    monkeypatch.setattr(demo, "demo_models", lambda *what: made.append(what))
    monkeypatch.setattr("sys.argv", ["demo_models", str(tmp_path), "--rehearsal"])
    demo.main()
    monkeypatch.setattr("sys.argv", ["demo_models", str(tmp_path)])
    demo.main()

    (_, short, rehearsal), (_, long, full) = made
    assert short == tmp_path / "bundle"
    assert rehearsal.updates == 2
    assert long == bundled("training").parent
    assert full.updates is None
