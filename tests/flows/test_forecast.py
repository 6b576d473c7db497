"""One cycle from the bundled analyses to a published manifest, interrupted on the way and started again."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import xarray as xr
from rich.console import Console

from flows import forecast
from flows.forecast import run_cycle
from infra import layout
from infra.catalog import catalog_entries
from infra.claims import CycleBusyError, claim_cycle
from infra.demo import INIT_TIME
from infra.demo.configuration import DETERMINISTIC, deliver_analyses, demo_settings
from infra.errors import MissingDataError
from infra.object_store import ObjectStore
from infra.publication import Manifest, make_visible, read_latest, read_manifest
from infra.settings import ProductSettings, Settings
from model.cycle import Cycle

CYCLE = Cycle(model=DETERMINISTIC, init_time=INIT_TIME)


def small(output: Path) -> Settings:
    """The demo's deterministic model for two steps, without maps."""
    settings = demo_settings(output)
    changes = {"steps": 2, "products": ProductSettings(formats=("zarr",), quantiles=(0.5,), events=())}
    models = {CYCLE.model: settings.configured_model(CYCLE.model).model_copy(update=changes)}
    return settings.model_copy(update={"models": models})


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A cycle whose process died after its members were computed, before its products were made."""
    output = tmp_path_factory.mktemp("demo")
    deliver_analyses(output)
    settings = small(output)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forecast, "make_products", _die)
        with pytest.raises(KeyboardInterrupt):
            run_cycle(CYCLE, settings)
    yield settings
    shutil.rmtree(output)


def _die(*_: object) -> None:
    raise KeyboardInterrupt


def test_an_interrupted_cycle_leaves_nothing_that_looks_published(interrupted: Settings) -> None:
    store = interrupted.store.open()
    assert not store.exists(layout.cycle_manifest(CYCLE))
    assert not store.exists(layout.latest(CYCLE.model))


def test_a_cycle_held_by_another_run_is_left_alone(interrupted: Settings) -> None:
    held = claim_cycle(interrupted.store.open(), CYCLE, owner="another run")
    with pytest.raises(CycleBusyError, match="another run"):
        run_cycle(CYCLE, interrupted)
    held.release()


def test_starting_it_again_finishes_it_without_computing_a_step(interrupted: Settings) -> None:
    steps: list[int] = []
    key = run_cycle(CYCLE, interrupted, progress=lambda latest: steps.append(latest.step))
    store = interrupted.store.open()
    manifest = read_manifest(store, CYCLE)
    assert key == layout.cycle_manifest(CYCLE)
    assert steps == []
    assert (manifest.steps, manifest.members) == (2, (0,))
    assert read_latest(store, CYCLE.model).cycle == CYCLE
    products = xr.open_zarr(store.url(f"{manifest.prefix}ensemble.zarr"), decode_timedelta=True)
    assert products.sizes["lead_time"] == 2
    before = store.read(key)
    assert run_cycle(CYCLE, interrupted) == key
    assert store.read(key) == before


def test_what_a_death_after_the_manifest_left_undone_is_made_good(interrupted: Settings) -> None:
    run_cycle(CYCLE, interrupted)
    store = interrupted.store.open()
    before = store.read(layout.cycle_manifest(CYCLE))
    for key in (layout.latest(CYCLE.model), layout.catalog("cycles.json"), layout.catalog_item(CYCLE)):
        store.delete(key)
    run_cycle(CYCLE, interrupted)
    assert read_latest(store, CYCLE.model).cycle == CYCLE
    assert [entry.cycle for entry in catalog_entries(store)] == [CYCLE]
    assert store.exists(layout.catalog_item(CYCLE))
    assert store.read(layout.cycle_manifest(CYCLE)) == before


def test_a_cycle_without_its_analyses_says_what_is_missing(tmp_path: Path) -> None:
    deliver_analyses(tmp_path)
    shutil.rmtree(tmp_path / "provider" / "20211227")
    with pytest.raises(MissingDataError, match="20211227"):
        run_cycle(CYCLE, small(tmp_path))
    assert not (tmp_path / "store" / "cycles").exists()


def test_what_the_checks_warn_of_is_told(tmp_path: Path) -> None:
    store = ObjectStore(root=str(tmp_path))
    manifest = Manifest(
        cycle=CYCLE,
        run="run",
        attempt="attempt",
        members=(0,),
        steps=2,
        step_hours=6,
        published_at=datetime(2021, 12, 28, 4, tzinfo=UTC),
        files={},
        details={"warnings": ["humidity not negative: got -0.002"]},
    )
    make_visible(store, manifest)
    told = io.StringIO()
    forecast.tell_warnings(Console(file=told, width=200), store, CYCLE)
    assert told.getvalue() == f"{CYCLE}: warning: humidity not negative: got -0.002\n"
