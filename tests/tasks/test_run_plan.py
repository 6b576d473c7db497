"""Plans refuse what does not fit and name settings that would."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from infra.devices import Machine
from infra.errors import DoesNotFitError
from infra.settings import ModelSettings, RunSettings, Settings, StoreSettings
from model.forecaster import NetworkForecaster
from model.grid import Grid
from tasks import run_plan
from tasks.run_plan import load_fitting_models, plan_run, stored_bytes, this_machine
from tests.fakes.pass_through import TASK

GIB = 2**30
LARGE = Machine(
    platform="gpu",
    device_kind="NVIDIA H100",
    devices=2,
    device_bytes=80 * GIB,
    host_bytes=512 * GIB,
    store_bytes=1000 * GIB,
    compute_capability=9.0,
)


def small(**changes: Any) -> Machine:
    fields = {name: getattr(LARGE, name) for name in LARGE.__dataclass_fields__}
    return Machine(**{**fields, **changes})


@pytest.fixture
def settings(parity_dir: Path, tmp_path: Path) -> Settings:
    case = parity_dir / "graphcast_small_f32"
    model = ModelSettings(
        checkpoint=str(case / "params.npz"),
        statistics=str(case),
        trained_on="era5",
        source="none",
        members=10,
        steps=40,
        block_size=4,
        precision="float32",
        members_per_program=8,
    )
    return Settings(
        store=StoreSettings(root=str(tmp_path / "store")),
        run=RunSettings(cache=str(tmp_path / "cache")),
        models={"graphcast": model},
    )


def test_what_fits_is_not_refused(settings: Settings) -> None:
    plan = plan_run("graphcast", settings, machine=LARGE)
    assert (plan.members, plan.steps, plan.blocks) == (10, 40, 3)
    assert plan.problems == ()
    assert plan.duration is None, "nothing was measured yet"
    plan.require_fit()


def test_fewer_members_per_program_or_a_smaller_type_are_named_where_they_would_fit(
    settings: Settings,
) -> None:
    need = plan_run("graphcast", settings, machine=LARGE).device_bytes
    plan = plan_run("graphcast", settings, machine=small(device_bytes=need - 1))
    with pytest.raises(DoesNotFitError, match=r"needs about .* on a NVIDIA H100.*members_per_program=4"):
        plan.require_fit()
    assert 0 < len(plan.remedies) <= 3


def test_every_named_remedy_would_indeed_fit(settings: Settings) -> None:
    need = plan_run("graphcast", settings, machine=LARGE).device_bytes
    machine = small(device_bytes=int(need * 0.7))
    for remedy in plan_run("graphcast", settings, machine=machine).remedies:
        chosen: dict[str, Any] = dict(pair.split("=") for pair in remedy.split(", "))
        model = ModelSettings(**{**settings.models["graphcast"].model_dump(), **chosen})
        changed = Settings(store=settings.store, run=settings.run, models={"graphcast": model})
        assert plan_run("graphcast", changed, machine=machine).problems == ()


def test_where_nothing_fits_that_is_said(settings: Settings) -> None:
    plan = plan_run("graphcast", settings, machine=small(device_bytes=2**20))
    with pytest.raises(DoesNotFitError, match="nothing here fits it"):
        plan.require_fit()


def test_on_a_cpu_the_devices_memory_is_the_hosts(settings: Settings) -> None:
    cpu = small(platform="cpu", device_kind="cpu", devices=1, device_bytes=None)
    plan = plan_run("graphcast", settings, machine=cpu)
    assert plan.host_bytes > plan.device_bytes
    refused = plan_run("graphcast", settings, machine=small(
        platform="cpu", device_kind="cpu", devices=1, device_bytes=None, host_bytes=GIB // 4
    ))  # fmt: skip
    with pytest.raises(DoesNotFitError, match="host memory"):
        refused.require_fit()


def test_a_full_store_allows_fewer_members(settings: Settings) -> None:
    need = plan_run("graphcast", settings, machine=LARGE).store_bytes
    plan = plan_run("graphcast", settings, machine=small(store_bytes=need * 55 // 100))
    with pytest.raises(DoesNotFitError, match=r"in the store at most.*members=5"):
        plan.require_fit()


def test_storage_is_counted_field_by_field() -> None:
    # 7 × 12 points of 30°, one surface field and one on two levels: 3 layers of 4 bytes are 1008 bytes a step;
    # two frames of the same fields are one checkpoint: the last two and one anchor (step 16 of 20) are kept.
    grid = Grid(resolution=30.0)
    assert stored_bytes(TASK, grid, members=3, steps=20, checkpoint_every=4) == 3 * (20 * 1008 + 3 * 2016)


def test_the_time_is_taken_from_the_newest_ensemble_on_such_a_device(settings: Settings) -> None:
    store = settings.store.open()
    for day, seconds in (("20260101T00Z", 9.0), ("20260102T00Z", 3.0)):
        document = {
            "cycle": f"graphcast/{day}",
            "devices": {
                "gpu:0 NVIDIA H100": {"members": [0], "seconds_per_step": seconds},
                "tpu:0 TPU v5": {"members": [1], "seconds_per_step": 1.0},
            },
        }
        store.write(f"runs/graphcast/{day}/abc/ensemble.json", json.dumps(document).encode())
    plan = plan_run("graphcast", settings, machine=LARGE)
    assert plan.seconds_per_step == 3.0
    assert plan.duration == timedelta(seconds=3.0 * 10 * 40 / 2)


def test_a_model_that_does_not_fit_is_not_loaded(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_plan, "this_machine", lambda store: small(device_bytes=2**20))
    monkeypatch.setattr(run_plan, "load_models", lambda *_, **__: pytest.fail("loaded"))
    with pytest.raises(DoesNotFitError):
        load_fitting_models("graphcast", settings)


def test_this_machine_is_described(settings: Settings) -> None:
    machine = this_machine(settings.store.open())
    assert machine.platform == "cpu"
    assert machine.device_bytes is None
    assert machine.host_bytes > 0
    assert machine.store_bytes is not None


@pytest.fixture
def demo(tmp_path: Path) -> Settings:
    """A small published file and its statistics, one member a program."""
    root = Path(__file__).resolve().parents[1] / "data" / "parity" / "graphcast_small_f32"
    model = ModelSettings(
        checkpoint=str(root / "params.npz"),
        statistics=str(root),
        trained_on="era5",
        source="none",
        steps=4,
        precision="float32",
    )
    return Settings(
        store=StoreSettings(root=str(tmp_path / "store")),
        run=RunSettings(cache=str(tmp_path / "cache")),
        models={"graphcast": model},
    )


def test_the_compiled_program_decides_and_is_remembered(
    demo: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    [loaded] = load_fitting_models("graphcast", demo)
    assert isinstance(loaded, NetworkForecaster)
    exact = sum(loaded.compiled_memory().values())
    monkeypatch.setattr(run_plan, "load_models", lambda *_, **__: pytest.fail("loaded to be compiled"))
    plan = plan_run("graphcast", demo)
    assert (plan.compiled, plan.device_bytes) == (True, exact)
    estimate = plan_run("graphcast", demo, machine=plan.machine)
    assert not estimate.compiled
    assert estimate.device_bytes == pytest.approx(exact, rel=0.25)

    def machine(_: object, device_bytes: int) -> Machine:
        return small(
            platform=plan.machine.platform, device_kind=plan.machine.device_kind, device_bytes=device_bytes
        )

    monkeypatch.setattr(run_plan, "this_machine", lambda store: machine(store, exact))
    plan_run("graphcast", demo).require_fit()
    monkeypatch.setattr(run_plan, "this_machine", lambda store: machine(store, exact - 1))
    with pytest.raises(DoesNotFitError, match="needs about"):
        load_fitting_models("graphcast", demo)


def test_a_program_that_turns_out_too_large_is_refused_before_it_runs(
    demo: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    estimate = plan_run("graphcast", demo, machine=LARGE).device_bytes
    here = this_machine(demo.store.open())
    device = small(platform=here.platform, device_kind=here.device_kind, device_bytes=2 * estimate)
    monkeypatch.setattr(run_plan, "this_machine", lambda store: device)
    monkeypatch.setattr(run_plan, "load_models", lambda *_, **__: [object()])
    monkeypatch.setattr(run_plan, "compiled_memory", lambda *_: 2 * estimate + 1)
    with pytest.raises(DoesNotFitError, match="needs about"):
        load_fitting_models("graphcast", demo)
