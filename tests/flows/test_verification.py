"""The verification flow scores what has truth, against analyses and stations, and goes on after a failure."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import flows.verification
import tasks.verification
from flows.verification import verification, verify
from infra import events, layout
from infra.errors import FoldcastError, TransientSourceError
from infra.object_store import ObjectStore
from infra.publication import Manifest, make_visible
from infra.settings import (
    EventSettings,
    ModelSettings,
    ProductSettings,
    RunSettings,
    Settings,
    SourceSettings,
    StationSettings,
    StoreSettings,
)
from model.cycle import Cycle
from tasks.verification import EVENTS, FIELDS, STATIONS, load_statistics
from tests.fakes.forecasts import INIT_TIME, write_forecast
from tests.fakes.synthetic_source import SyntheticSource

CYCLE = Cycle(model="good", init_time=INIT_TIME)
LATER = Cycle(model="good", init_time=INIT_TIME + timedelta(hours=12))


def publish(store: ObjectStore, cycle: Cycle, members: int, published_at: datetime | None = None) -> None:
    write_forecast(
        store, layout.forecast_store(cycle, "run"), members=members, steps=2, init_time=cycle.init_time
    )
    manifest = Manifest(
        cycle=cycle, run="run", attempt="a", members=tuple(range(members)), steps=2, step_hours=12,
        published_at=published_at or datetime.now(UTC), files={},
    )  # fmt: skip
    make_visible(store, manifest)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Settings, SyntheticSource]]:
    """Settings of one model that works and one whose source is of another kind, and the source of truth."""

    def prepare(published_until: datetime) -> tuple[Settings, SyntheticSource]:
        model = ModelSettings(
            checkpoint="-", statistics="-", trained_on="era5", source="truth", steps=2,
            products=ProductSettings(events=(EventSettings(quantity="10m_wind_speed", threshold=5.0),)),
            stations=StationSettings(observations=str(tmp_path / "reports.csv"), gross_limits={}),
        )  # fmt: skip
        settings = Settings(
            store=StoreSettings(root=str(tmp_path / "store")),
            run=RunSettings(cache=str(tmp_path / "cache")),
            models={
                "bad": model.model_copy(update={"trained_on": "hres", "stations": None}),
                "good": model,
            },
            sources={"truth": SourceSettings(type="files", kind="era5")},
        )
        source = SyntheticSource(published_until=published_until)
        monkeypatch.setattr(tasks.verification, "make_source", lambda *_: source)
        monkeypatch.setattr(flows.verification, "load_settings", lambda: settings)
        return settings, source

    return prepare


def test_cycles_are_scored_as_truth_arrives(
    run: Callable[..., tuple[Settings, SyntheticSource]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings, _ = run(INIT_TIME + timedelta(hours=12))
    store = settings.store.open()
    publish(store, CYCLE, members=3)
    publish(store, LATER, members=2)  # an ensemble that lost a member
    assert verification.fn(models=["good"]) == [str(CYCLE)]
    assert load_statistics(store, CYCLE).sizes["lead_time"] == 1
    assert not store.exists(layout.verification(LATER))

    rows = [("A", 10.0, 20.0, 0.0, INIT_TIME + timedelta(hours=24), "2m_temperature", 280.0)]
    columns = ["station", "latitude", "longitude", "height", "time", "variable", "value"]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "reports.csv", index=False)
    run(INIT_TIME + timedelta(days=3))
    assert verification.fn(models=["good"]) == [str(CYCLE), str(LATER)]
    assert load_statistics(store, CYCLE).sizes["lead_time"] == 2
    assert load_statistics(store, CYCLE, STATIONS).sizes["lead_time"] == 1
    assert load_statistics(store, LATER, EVENTS).sizes["probability"] == 3
    assert {key.rsplit("/", 1)[-1] for key in store.list("reports/good/")} == {
        "brier-global.png", "curves-global.png", "ranks-global.png", "reliability-global.png",
    }  # fmt: skip
    assert verification.fn(models=["good"]) == []
    assert verification.fn(models=["good"], again=True) == [str(CYCLE), str(LATER)]

    capsys.readouterr()
    verify(model="good")
    assert "Skill of good, global" in capsys.readouterr().out
    verify(model="good", init_times=[CYCLE.identifier], stations=True)
    shown = capsys.readouterr().out
    assert "at stations" in shown
    assert "2m" in shown  # the table is as narrow as the terminal


def test_one_model_that_fails_keeps_no_other_from_being_scored(
    run: Callable[..., tuple[Settings, SyntheticSource]],
) -> None:
    settings, _ = run(INIT_TIME + timedelta(days=3))
    store = settings.store.open()
    publish(store, CYCLE, members=2)
    publish(store, Cycle(model="bad", init_time=INIT_TIME), members=2)
    with pytest.raises(FoldcastError, match="1 cycles could not be scored, first bad/"):
        verification.fn()
    assert load_statistics(store, CYCLE).sizes["lead_time"] == 2


def test_cycles_whose_members_were_removed_are_passed_over(
    run: Callable[..., tuple[Settings, SyntheticSource]],
) -> None:
    settings, source = run(INIT_TIME + timedelta(days=3))
    store = settings.store.open()
    publish(store, CYCLE, members=2)
    store.delete(layout.runs_prefix(CYCLE))
    assert verification.fn(models=["good"]) == []
    assert source.fetched == []


def without_stations(
    prepared: tuple[Settings, SyntheticSource], monkeypatch: pytest.MonkeyPatch
) -> tuple[Settings, SyntheticSource]:
    settings, source = prepared
    models = {name: model.model_copy(update={"stations": None}) for name, model in settings.models.items()}
    settings = settings.model_copy(update={"models": models})
    monkeypatch.setattr(flows.verification, "load_settings", lambda: settings)
    return settings, source


def test_truth_that_never_comes_is_missing_and_no_longer_waited_for(
    run: Callable[..., tuple[Settings, SyntheticSource]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings, source = without_stations(run(INIT_TIME + timedelta(hours=12)), monkeypatch)
    store = settings.store.open()
    for cycle in (CYCLE, LATER):  # of the one, truth ends in the middle; of the other, before its first time
        publish(store, cycle, members=2, published_at=INIT_TIME + timedelta(hours=18))
    raised: list[tuple[str, str]] = []
    monkeypatch.setattr(events, "raise_event", lambda event, cycle, **_: raised.append((event, str(cycle))))
    limit = INIT_TIME + timedelta(hours=24) + settings.models["good"].truth_within

    def verify_at(now: datetime, **arguments: bool) -> list[str]:
        monkeypatch.setattr(flows.verification, "utc_now", lambda: now)
        return verification.fn(models=["good"], **arguments)

    assert verify_at(limit) == [str(CYCLE)]  # nothing that is not there is old enough
    assert raised == []
    assert verify_at(limit + timedelta(hours=1)) == [str(CYCLE)]
    assert raised == [("truth-missing", str(CYCLE)), ("truth-missing", str(LATER))]
    record = json.loads(store.read(layout.missing_truth(CYCLE, FIELDS)))
    assert record["valid_times"] == [(INIT_TIME + timedelta(hours=24)).isoformat()]
    verify_at(limit + timedelta(hours=13))  # now the later cycle's second time is as old
    asked = len(source.fetched)
    assert verify_at(limit + timedelta(days=9)) == []
    assert len(source.fetched) == asked
    assert len(raised) == 2

    capsys.readouterr()
    verify(model="good")
    assert f"{CYCLE}: truth of 1 of 2 times is missing, first 20260116T00Z" in capsys.readouterr().out

    without_stations(run(INIT_TIME + timedelta(days=3)), monkeypatch)  # it has come after all
    assert verify_at(limit + timedelta(days=9), again=True) == [str(CYCLE), str(LATER)]
    assert load_statistics(store, CYCLE).sizes["lead_time"] == 2
    assert not store.exists(layout.missing_truth(CYCLE, FIELDS))


def test_analyses_and_station_reports_that_never_come_are_told_of_each_once(
    run: Callable[..., tuple[Settings, SyntheticSource]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings, _ = run(INIT_TIME)
    store = settings.store.open()
    publish(store, CYCLE, members=2, published_at=INIT_TIME)
    raised: list[str] = []
    monkeypatch.setattr(
        events, "raise_event", lambda _, cycle, **payload: raised.append(payload["statistics"])
    )
    first = (
        INIT_TIME + timedelta(hours=13) + settings.models["good"].truth_within
    )  # the second time may still come
    for hours in (0, 1, 12, 13):
        now = first + timedelta(hours=hours)
        monkeypatch.setattr(flows.verification, "utc_now", lambda now=now: now)
        verification.fn(models=["good"])
        if hours == 1:
            record = json.loads(store.read(layout.missing_truth(CYCLE, FIELDS)))
            assert record["given_up_at"] == first.isoformat()
    assert raised == [FIELDS, STATIONS]
    told = [record.getMessage() for record in caplog.records if "is missing" in record.getMessage()]
    assert [text.split(" times")[0].split("truth of ")[1] for text in told] == [
        "1 of 2",
        "1 of 2",
        "2 of 2",
        "2 of 2",
    ]


def test_a_store_that_fails_at_one_cycle_keeps_no_other_from_being_scored(
    run: Callable[..., tuple[Settings, SyntheticSource]], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, _ = without_stations(run(INIT_TIME + timedelta(days=3)), monkeypatch)
    store = settings.store.open()
    for cycle in (CYCLE, LATER):
        publish(store, cycle, members=2)
    give_up = flows.verification.give_up

    def failing(store: ObjectStore, manifest: Manifest, name: str, **arguments: Any) -> tuple[datetime, ...]:
        if manifest.cycle == CYCLE:
            raise TransientSourceError("503")
        return give_up(store, manifest, name, **arguments)

    monkeypatch.setattr(flows.verification, "give_up", failing)
    with pytest.raises(FoldcastError, match=f"1 cycles could not be scored, first {CYCLE}: 503"):
        verification.fn(models=["good"])
    assert load_statistics(store, LATER).sizes["lead_time"] == 2
    assert list(store.list("reports/good/"))


@pytest.mark.parametrize("record", [b"{", b"{}", b"[]", b'{"valid_times": ["soon"]}'])
def test_a_damaged_record_of_missing_truth_is_none(
    record: bytes, run: Callable[..., tuple[Settings, SyntheticSource]], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, _ = without_stations(run(INIT_TIME), monkeypatch)
    store = settings.store.open()
    publish(store, CYCLE, members=2, published_at=INIT_TIME)
    store.write(layout.missing_truth(CYCLE, FIELDS), record)
    now = INIT_TIME + timedelta(hours=25) + settings.models["good"].truth_within
    monkeypatch.setattr(flows.verification, "utc_now", lambda: now)
    assert verification.fn(models=["good"]) == []
    assert len(json.loads(store.read(layout.missing_truth(CYCLE, FIELDS)))["valid_times"]) == 2
