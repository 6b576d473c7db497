"""A cycle's inputs judged before anything runs: passed, or in quarantine."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from infra import layout
from infra.errors import StoreError, ValidationFailedError
from infra.initial_conditions import load_initial_condition
from infra.validation_report import Finding, MatrixEntry, ValidationReport
from infra.validation_suites import build_suite
from model.cycle import Cycle
from tasks import initial_conditions, validation
from tasks.initial_conditions import prepare_initial_condition
from tasks.validation import validate_initial_condition
from tests.fakes.synthetic_source import Mutation, SyntheticSource, poison, write_statistics
from tests.model.diagnostics.atmospheres import INIT_TIME
from tests.tasks.test_initial_conditions import CYCLE, settings_in


class Events:
    def __init__(self) -> None:
        self.raised: list[tuple[str, Cycle, dict]] = []

    def __call__(self, event: str, cycle: Cycle, **payload: object) -> None:
        self.raised.append((event, cycle, payload))


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> Events:
    recorder = Events()
    monkeypatch.setattr(validation, "raise_event", recorder)
    return recorder


def judged(folder: Path, monkeypatch: pytest.MonkeyPatch, mutate: Mutation = lambda frame: frame, **model):
    source = SyntheticSource(mutate=mutate)
    monkeypatch.setattr(initial_conditions, "make_source", lambda name, settings: source)
    write_statistics(folder / "statistics")
    settings = settings_in(folder, **model)
    prepare_initial_condition(CYCLE, settings)
    return settings


def test_a_sound_initial_condition_passes_and_leaves_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, events: Events, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = judged(tmp_path, monkeypatch)
    report = validate_initial_condition(CYCLE, settings)
    assert report.passed
    assert report.suite == "gencast-era5"
    assert events.raised == []
    store = settings.store.open()
    assert b"<html" in store.read(report.docs_uri)
    assert not [key for key in store.list(layout.validation(CYCLE, "")) if key.endswith(".gif")]
    assert json.loads(store.read(layout.validation(CYCLE, "report.json")))["passed"] is True
    assert store.read(report.statistics_uri).decode().startswith("variable,level,time,present")
    shown = capsys.readouterr().out
    assert "✅" in shown
    assert "synthetic/20260102T00Z may run" in shown
    load_initial_condition(store, CYCLE)


def test_a_damaged_one_is_quarantined_with_the_reason_and_an_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, events: Events, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = judged(tmp_path, monkeypatch, poison("geopotential", np.nan))
    with pytest.raises(ValidationFailedError, match=r"missing values: geopotential 200 hPa"):
        validate_initial_condition(CYCLE, settings)
    store = settings.store.open()
    reason = store.read(layout.quarantine(CYCLE, "initial-condition/reason.txt")).decode()
    assert "missing values: geopotential 200 hPa" in reason
    assert "❌ 1/4" in capsys.readouterr().out
    ((event, cycle, payload),) = events.raised
    assert (event, cycle) == ("invalid", CYCLE)
    assert "missing values" in payload["reason"]
    with pytest.raises(StoreError, match="no complete initial condition"):
        load_initial_condition(store, CYCLE)


def test_after_a_rejection_the_corrected_file_is_fetched_and_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, events: Events
) -> None:
    only_check("missing values", monkeypatch)
    settings = judged(tmp_path, monkeypatch, poison("geopotential", np.nan))
    with pytest.raises(ValidationFailedError, match="missing values"):
        validate_initial_condition(CYCLE, settings)
    corrected = SyntheticSource()
    monkeypatch.setattr(initial_conditions, "make_source", lambda name, settings: corrected)
    prepare_initial_condition(CYCLE, settings)
    assert len(corrected.fetched) == 3  # both frames and the statics
    assert validate_initial_condition(CYCLE, settings).passed


def test_the_analyses_that_perturb_the_members_are_judged_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, events: Events
) -> None:
    only_check("missing values", monkeypatch)
    good = SyntheticSource()
    bad = SyntheticSource(name="ocean", mutate=poison("temperature", np.nan))
    monkeypatch.setattr(
        initial_conditions, "make_source", lambda name, settings: bad if name == "ocean" else good
    )
    write_statistics(tmp_path / "statistics")
    perturbation = {"kind": "analyses", "sources": ["synthetic", "ocean"], "amplitude": 1.0}
    settings = settings_in(tmp_path, perturbation=perturbation)
    prepare_initial_condition(CYCLE, settings)
    with pytest.raises(ValidationFailedError, match="20260102T00Z from ocean: initial condition rejected"):
        validate_initial_condition(CYCLE, settings)
    store = settings.store.open()
    assert store.exists(layout.quarantine(CYCLE, "initial-condition-ocean/reason.txt"))
    load_initial_condition(store, CYCLE)  # the control's own is sound
    with pytest.raises(StoreError, match="no complete initial condition"):
        load_initial_condition(store, CYCLE, "ocean")


def only_check(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave one check of the suite: a whole suite takes seconds."""
    monkeypatch.setattr(
        validation,
        "build_suite",
        lambda family, kind: tuple(check for check in build_suite(family, kind) if check.name == name),
    )


def test_weights_for_another_analysis_do_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, events: Events
) -> None:
    only_check("data kind", monkeypatch)
    settings = judged(tmp_path, monkeypatch, trained_on="hres")
    with pytest.raises(ValidationFailedError, match=r"data kind: .*equal to trained_on \(hres\), got era5"):
        validate_initial_condition(CYCLE, settings)


def test_the_same_fields_are_not_judged_twice_by_the_same_rules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, events: Events, capsys: pytest.CaptureFixture[str]
) -> None:
    only_check("missing values", monkeypatch)
    settings = judged(tmp_path, monkeypatch)
    first = validate_initial_condition(CYCLE, settings)
    shown = capsys.readouterr().out
    judgements: list[str] = []
    judge = validation.judge

    def counted(*arguments: object, **options: object) -> ValidationReport:
        judgements.append("once more")
        return judge(*arguments, **options)

    monkeypatch.setattr(validation, "judge", counted)
    assert validate_initial_condition(CYCLE, settings) == first
    assert capsys.readouterr().out == shown
    assert judgements == []
    only_check("grid", monkeypatch)  # other rules
    validate_initial_condition(CYCLE, settings)
    assert judgements == ["once more"]
    store = settings.store.open()
    store.write(layout.validation(CYCLE, "report.json"), b"{")  # a damaged report counts as none
    validate_initial_condition(CYCLE, settings)
    assert len(judgements) == 2


def test_the_previous_cycles_fields_are_recognised_under_new_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, events: Events
) -> None:
    only_check("repeated field", monkeypatch)
    settings = judged(tmp_path, monkeypatch)
    validate_initial_condition(CYCLE, settings)
    following = Cycle(model="synthetic", init_time=INIT_TIME + timedelta(days=1))
    earlier = load_initial_condition(settings.store.open(), CYCLE)

    def stale(frame: xr.Dataset) -> xr.Dataset:
        index = 1 if frame["time"].dt.hour.item() == 0 else 0
        old = earlier.isel(time=[index]).assign_coords(time=frame["time"])
        return frame.assign({name: old[name] for name in frame.data_vars if name in old})

    source = SyntheticSource(mutate=stale)
    monkeypatch.setattr(initial_conditions, "make_source", lambda name, settings: source)
    prepare_initial_condition(following, settings)
    with pytest.raises(ValidationFailedError, match=r"repeated field: .*got 2026-01-0[12]T"):
        validate_initial_condition(following, settings)


def test_without_an_initial_condition_there_is_nothing_to_judge(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no complete initial condition"):
        validate_initial_condition(CYCLE, settings_in(tmp_path))


def test_in_a_flow_run_the_table_and_the_findings_are_attached(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    finding = Finding(
        check="missing values", severity="block", variable="temperature", level=500, time="2026-01-02T00Z",
        column="missing_share", expected="at most 0", observed="0.01", reason="the field has NaN",
    )  # fmt: skip
    report = ValidationReport(
        cycle=str(CYCLE), uri="ic", suite="gencast-era5", findings=(finding,),
        matrix=(MatrixEntry(variable="temperature", time="2026-01-02T00Z", blocked=1, warned=0, levels=4),),
    )  # fmt: skip
    attached: dict[str, dict] = {}
    for kind in ("create_table_artifact", "create_markdown_artifact"):
        monkeypatch.setattr(validation, kind, lambda key, **content: attached.update({key: content}))
    validation.show(report)
    assert attached == {}
    monkeypatch.setattr(validation.FlowRunContext, "get", lambda: object())
    validation.show(report)
    assert all(re.fullmatch(r"[a-z0-9-]+", key) for key in attached)
    table = attached["inputs-synthetic-20260102t00z"]["table"]
    assert table == [{"variable": "temperature", "2026-01-02T00Z": "❌ 1/4"}]
    assert (
        "missing values: temperature 500 hPa"
        in attached["inputs-synthetic-20260102t00z-findings"]["markdown"]
    )
    assert "must not run" in capsys.readouterr().out
