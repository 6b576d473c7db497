"""From a forecast store to a visible cycle: made, judged, published; or quarantined with the reason."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import xarray as xr

import tasks.publish
from infra import layout
from infra.cycle_status import list_cycles
from infra.errors import PublicationError, StoreError
from infra.forecast_store import ForecastWriter
from infra.object_store import ObjectStore
from infra.publication import RETRY, Manifest, read_latest, verify_files
from infra.settings import (
    EventSettings,
    ModelSettings,
    PointSettings,
    ProductSettings,
    Settings,
    StoreSettings,
)
from model.cycle import Cycle
from model.grid import Grid
from tasks.products import ProductSet, make_products, newest_product_set
from tasks.publish import publish_cycle
from tests.fakes.forecasts import INIT_TIME, TASK, fields, land_mask, write_forecast

CYCLE = Cycle(model="demo", init_time=INIT_TIME)
RUN = "0123456789ab"


@dataclass(frozen=True)
class Ensemble:
    run: str = RUN
    members: tuple[int, ...] = (0, 1, 2, 3)
    steps: int = 3


class Links(HTMLParser):
    """Everything a page refers to."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [
            value for name, value in attrs if value and (name in ("href", "src") or "data-lead-" in name)
        ]


def settings_at(folder: Path, *formats: Literal["zarr", "netcdf", "png"]) -> Settings:
    products = ProductSettings(
        events=(EventSettings(quantity="10m_wind_speed", threshold=5.0),),
        points=(PointSettings(name="Null Island", latitude=0, longitude=0),),
        formats=formats,
    )
    model = ModelSettings(
        checkpoint="-",
        statistics="-",
        trained_on="nature-run",
        source="-",
        steps=3,
        members=4,
        products=products,
    )
    return Settings(store=StoreSettings(root=str(folder)), models={"demo": model})


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    raised: list[str] = []
    monkeypatch.setattr(tasks.publish, "raise_event", lambda event, *_, **__: raised.append(event))
    return raised


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    found = settings_at(tmp_path, "zarr")
    write_forecast(found.store.open(), layout.forecast_store(CYCLE, RUN), members=4, steps=3)
    return found


@dataclass(frozen=True)
class Published:
    store: ObjectStore
    made: ProductSet
    manifest: Manifest
    events: list[str]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    settings = settings_at(tmp_path_factory.mktemp("store"), "zarr", "netcdf", "png")
    store = settings.store.open()
    write_forecast(store, layout.forecast_store(CYCLE, RUN), members=4, steps=3)
    grid = Grid(resolution=30.0)
    land = xr.Dataset(
        {"land_sea_mask": (("latitude", "longitude"), land_mask(grid))},
        coords={"latitude": grid.latitude, "longitude": grid.longitude},
    )
    land.to_zarr(store.zarr(layout.initial_condition(CYCLE)), zarr_format=3, consolidated=False)
    made = make_products(CYCLE, settings, Ensemble())
    assert not store.exists(layout.cycle_manifest(CYCLE))
    raised: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks.publish, "raise_event", lambda event, *_, **__: raised.append(event))
        assert publish_cycle(CYCLE, settings, RUN) == layout.cycle_manifest(CYCLE)
    return Published(store=store, made=made, manifest=read_latest(store, "demo"), events=raised)


def test_a_cycle_is_published_whole(published: Published) -> None:
    store, made, manifest = published.store, published.made, published.manifest
    assert published.events == ["published"]
    assert manifest.attempt == made.attempt
    assert manifest.members == (0, 1, 2, 3)
    assert manifest.details["representative_member"] == made.representative_member
    assert manifest.simulated
    assert "Simulated weather" in store.read(f"{manifest.prefix}index.html").decode()
    verify_files(store, manifest.prefix, manifest.files, retry=RETRY)
    stored = set(store.list(manifest.prefix)) - {layout.product_inventory(CYCLE, RUN, made.attempt)}
    assert stored == {f"{manifest.prefix}{name}" for name in manifest.files}

    opened = xr.open_zarr(store.url(f"{manifest.prefix}ensemble.zarr"), chunks=None)
    members = [fields(Grid(resolution=30.0), member=m, hours=12)["2m_temperature"].values for m in range(4)]
    np.testing.assert_allclose(
        opened["2m_temperature_mean"].isel(lead_time=0).values, np.mean(members, axis=0), rtol=2**-13
    )
    assert {name.split("/")[0] for name in manifest.files} == {
        "ensemble.zarr", "representative_member.zarr", "points.nc", "netcdf", "maps", "points", "checks",
        "index.html",
    }  # fmt: skip
    assert [status.state for status in list_cycles(store)] == ["published"]


def test_pages_open_from_disk_with_nothing_missing(published: Published) -> None:
    store, manifest = published.store, published.manifest
    page = Path(store.path(f"{manifest.prefix}index.html"))
    index = Path(store.path(layout.catalog("index.html")))
    for document in (page, index):
        links = Links()
        links.feed(document.read_text(encoding="utf-8"))
        assert len(links.found) > 0
        for link in links.found:
            assert "://" not in link
            assert not link.startswith("/")
            assert (document.parent / link).exists(), link
    text = page.read_text(encoding="utf-8")
    assert "Thursday 15 January 2026, 00 UTC" in text
    assert "❌" not in text
    links = Links()
    links.feed(index.read_text(encoding="utf-8"))
    assert [(index.parent / link).resolve() for link in links.found] == [page.resolve()]


def test_the_catalogue_is_stac_with_relative_links(published: Published) -> None:
    store = published.store
    root = Path(store.path(layout.catalog()))
    catalog = json.loads(root.read_text())
    collection_file = root.parent / next(link["href"] for link in catalog["links"] if link["rel"] == "child")
    collection = json.loads(collection_file.read_text())
    item_file = collection_file.parent / next(
        link["href"] for link in collection["links"] if link["rel"] == "item"
    )
    item = json.loads(item_file.read_text())
    assert (catalog["type"], collection["type"], item["type"]) == ("Catalog", "Collection", "Feature")
    assert item["properties"]["forecast:horizon"] == "PT36H"
    assert item["properties"]["end_datetime"] == "2026-01-16T12:00:00Z"
    for asset in item["assets"].values():
        assert (item_file.parent / asset["href"]).exists()


def test_publishing_again_changes_nothing_and_replacing_does(settings: Settings, events: list[str]) -> None:
    store = settings.store.open()
    make_products(CYCLE, settings, Ensemble())
    publish_cycle(CYCLE, settings, RUN)
    first = read_latest(store, "demo")
    again = make_products(CYCLE, settings, Ensemble())
    publish_cycle(CYCLE, settings, RUN)
    assert read_latest(store, "demo") == first
    assert not list(store.list(again.prefix))
    newer = make_products(CYCLE, settings, Ensemble(members=(0, 1, 2)))
    publish_cycle(CYCLE, settings, RUN, replace=True)
    assert read_latest(store, "demo").attempt == newer.attempt
    verify_files(store, first.prefix, first.files)


def test_products_that_fail_their_checks_are_quarantined(settings: Settings, events: list[str]) -> None:
    store = settings.store.open()
    writer = ForecastWriter(
        store=store, key=layout.forecast_store(CYCLE, RUN), variables=TASK.target_variables
    )
    grid = Grid(resolution=30.0)
    writer.write_step(3, 1, fields(grid, member=2, hours=24))  # member 3 is a copy of member 2
    hot = fields(grid, member=1, hours=36)
    hot["2m_temperature"] = hot["2m_temperature"] + 400
    writer.write_step(1, 2, hot)
    make_products(CYCLE, settings, Ensemble())
    with pytest.raises(PublicationError, match=r"quarantined, \d+ blocking"):
        publish_cycle(CYCLE, settings, RUN)
    assert events == ["quarantined"]
    (status,) = list_cycles(store)
    assert status.state == "quarantined"
    reasons = "\n".join(status.reasons)
    assert "members distinct: 2m_temperature +24 h, member 3" in reasons
    assert "physical range: 2m_temperature_mean +36 h" in reasons
    with pytest.raises(StoreError):
        read_latest(store, "demo")
    assert not store.exists(layout.latest("demo"))


def test_damage_after_making_is_noticed(settings: Settings, events: list[str]) -> None:
    store = settings.store.open()
    made = make_products(CYCLE, settings, Ensemble())
    store.write(f"{made.prefix}points.nc", b"short")
    with pytest.raises(PublicationError, match=r"points\.nc: expected \d+ bytes, got 5"):
        publish_cycle(CYCLE, settings, RUN)
    assert not store.exists(layout.cycle_manifest(CYCLE))


def test_the_newest_complete_attempt_counts(settings: Settings) -> None:
    store = settings.store.open()
    with pytest.raises(StoreError, match="no complete products"):
        newest_product_set(store, CYCLE, RUN)
    make_products(CYCLE, settings, Ensemble())
    second = make_products(CYCLE, settings, Ensemble(members=(0, 2)))
    store.write(layout.product(CYCLE, RUN, "ffffffff", "points.nc"), b"an attempt that died")
    found = newest_product_set(store, CYCLE, RUN)
    assert found == second
    assert found.findings == ()


def test_steps_beyond_those_asked_for_are_left_out(settings: Settings) -> None:
    made = make_products(CYCLE, settings, Ensemble(steps=2))
    assert made.steps == 2
    store: ObjectStore = settings.store.open()
    opened = xr.open_zarr(store.path(f"{made.prefix}ensemble.zarr"), chunks=None)
    assert opened.sizes["lead_time"] == 2


def test_publishers_of_the_same_products_leave_them_as_they_are(
    settings: Settings, events: list[str]
) -> None:
    store = settings.store.open()
    make_products(CYCLE, settings, Ensemble())
    start = threading.Barrier(3)
    failures: list[BaseException] = []

    def one() -> None:
        start.wait()
        try:
            publish_cycle(CYCLE, settings, RUN)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=one) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    publish_cycle(CYCLE, settings, RUN)
    assert failures == []
    manifest = read_latest(store, "demo")
    verify_files(store, manifest.prefix, manifest.files, retry=RETRY)
    inventory = layout.product_inventory(CYCLE, RUN, manifest.attempt)
    assert set(store.list(manifest.prefix)) - {inventory} == {f"{manifest.prefix}{n}" for n in manifest.files}


def test_what_is_published_is_not_judged_again(settings: Settings, events: list[str]) -> None:
    """Products made later that fail their checks do not quarantine the published cycle."""
    store = settings.store.open()
    make_products(CYCLE, settings, Ensemble())
    publish_cycle(CYCLE, settings, RUN)
    ForecastWriter(
        store=store, key=layout.forecast_store(CYCLE, RUN), variables=TASK.target_variables
    ).write_step(3, 1, fields(Grid(resolution=30.0), member=2, hours=24))
    bad = make_products(CYCLE, settings, Ensemble())
    assert any(finding.severity == "block" for finding in bad.findings)
    publish_cycle(CYCLE, settings, RUN)
    assert events == ["published"]
    assert [status.state for status in list_cycles(store)] == ["published"]
    assert not list(store.list(layout.quarantine(CYCLE)))
    make_products(CYCLE, settings, Ensemble())
    with pytest.raises(PublicationError, match="quarantined"):
        publish_cycle(CYCLE, settings, RUN, replace=True)
