"""A backfill: which cycles, in what order, and never more at once than allowed."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows import backfill
from flows.backfill import _submitter, planned_cycles, run_bounded, split_published
from infra import claims, layout
from infra.errors import FoldcastError, TransientSourceError, UnknownModelError
from infra.object_store import ObjectStore
from infra.settings import RunSettings, Settings, StoreSettings
from model.cycle import Cycle
from tasks import launch
from tasks.launch import LaunchOutcome
from tests.fakes.orchestration import Orchestration

START = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
MODEL = {"checkpoint": "p.npz", "statistics": "s", "trained_on": "era5", "source": "a", "steps": 4}
SETTINGS = Settings.model_validate({"models": {"one": MODEL, "two": MODEL}})


def cycles(count: int) -> list[Cycle]:
    return [Cycle(model="one", init_time=START + i * DAY) for i in range(count)]


def places(folder: Path) -> Settings:
    run = RunSettings(submission="in-process")
    return SETTINGS.model_copy(update={"store": StoreSettings(root=str(folder)), "run": run})


def test_both_ends_and_all_models_are_planned_oldest_first() -> None:
    planned = planned_cycles(SETTINGS, START, START + DAY, every=DAY, models=None)
    assert [str(c) for c in planned] == [
        "one/20260101T00Z",
        "two/20260101T00Z",
        "one/20260102T00Z",
        "two/20260102T00Z",
    ]


def test_an_end_before_the_start_is_refused() -> None:
    with pytest.raises(FoldcastError, match="end at or after start"):
        planned_cycles(SETTINGS, START, START - DAY, every=DAY, models=None)


def test_an_unknown_model_is_refused_before_anything_runs() -> None:
    with pytest.raises(UnknownModelError, match="three"):
        planned_cycles(SETTINGS, START, START, every=DAY, models=["three"])


def test_published_cycles_are_left_alone_unless_forced(tmp_path: Path) -> None:
    store = ObjectStore(root=str(tmp_path))
    first, second = cycles(2)
    store.write(layout.cycle_manifest(first), b"{}")
    done, todo = split_published(store, [first, second], force=False)
    assert [status.cycle for status in done] == [first]
    assert todo == [second]
    assert split_published(store, [first, second], force=True) == ([], [first, second])


class Provider:
    """Starts cycles, each of which takes so many looks to end."""

    def __init__(self, looks: list[int]) -> None:
        self.left = dict(zip(cycles(len(looks)), looks, strict=True))
        self.running: set[Cycle] = set()
        self.most = 0
        self.asked: Counter[Cycle] = Counter()

    def __call__(self, cycle: Cycle) -> LaunchOutcome:
        self.asked[cycle] += 1
        self.running.add(cycle)
        self.most = max(self.most, len(self.running))
        self.left[cycle] -= 1
        if self.left[cycle] > 0:
            return LaunchOutcome(cycle=cycle, state="running")
        self.running.discard(cycle)
        return LaunchOutcome(cycle=cycle, state="published")


@settings(deadline=None)
@given(looks=st.lists(st.integers(1, 5), min_size=1, max_size=8), parallel=st.integers(1, 4))
def test_all_end_in_order_and_never_more_run_than_allowed(looks: list[int], parallel: int) -> None:
    provider = Provider(looks)
    statuses = run_bounded(
        cycles(len(looks)), provider, max_parallel=parallel, poll_seconds=0, sleep=lambda _: None
    )
    assert [s.cycle for s in statuses] == cycles(len(looks))
    assert provider.most <= parallel
    assert [provider.asked[c] for c in cycles(len(looks))] == looks


def test_no_place_at_all_is_refused_instead_of_waiting_for_ever(tmp_path: Path) -> None:
    with pytest.raises(FoldcastError, match="max_parallel of at least 1, got 0"):
        backfill.fill(cycles(1), places(tmp_path), max_parallel=0, dry_run=False, force=False)


@pytest.mark.parametrize("fault", [FoldcastError("no inputs"), ValueError("a fault of ours")])
def test_in_this_process_a_cycle_that_fails_does_not_end_the_others(
    fault: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, other = cycles(2)

    def run(cycle: Cycle, settings: Settings, *, force: bool) -> None:
        if cycle == first:
            raise fault

    monkeypatch.setattr(backfill, "run_cycle", run)
    here = places(tmp_path)
    outcomes = backfill.fill([first, other], here, max_parallel=2, dry_run=False, force=False)
    assert [outcome.state for outcome in outcomes] == ["failed", "published"]
    assert str(fault) in outcomes[0].reason


def test_a_dry_run_foresees_what_becomes_of_each_cycle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 6 UTC no model starts; of the rest one is published, one held, one lacks inputs, two cannot be asked."""
    here = places(tmp_path)
    store = here.store.open()
    published, held, early, cut_off, odd_source, ready = cycles(6)
    odd = Cycle(model="one", init_time=START + timedelta(hours=6))
    store.write(layout.cycle_manifest(published), b"{}")

    def missing(cycle: Cycle, settings: Settings) -> tuple[str, ...]:
        if cycle == cut_off:
            raise TransientSourceError("503")
        if cycle == odd_source:
            raise ValueError("not a time: 'soon'")
        return ("t at 00 UTC", "z at 00 UTC") if cycle == early else ()

    def started(*_: object, **__: object) -> None:
        raise AssertionError("a dry run starts nothing")

    monkeypatch.setattr(backfill, "missing_inputs", missing)
    monkeypatch.setattr(backfill, "run_cycle", started)
    with claims.held(claims.claim_cycle(store, held, owner="process 1 on there")):
        outcomes = backfill.fill(
            [published, odd, held, early, cut_off, odd_source, ready],
            here,
            max_parallel=2,
            dry_run=True,
            force=False,
        )
    told = {outcome.cycle: (outcome.state, outcome.reason) for outcome in outcomes}
    assert told[odd] == ("skipped", "init_hours are 0, 12")
    assert told[published] == ("skipped", "published before")
    assert told[held][0] == "running"
    assert "process 1 on there" in told[held][1]
    assert told[early] == ("would fail", "source 'a' lacks t at 00 UTC and 1 more")
    assert told[cut_off] == ("unknown", "source 'a': 503")
    assert told[ready] == ("would run", "")
    assert told[odd_source] == ("unknown", "source 'a': ValueError(\"not a time: 'soon'\")")
    assert len(outcomes) == 7
    with pytest.raises(FoldcastError, match=f"1 of 7 cycles would fail, first {early}: source 'a' lacks t"):
        backfill.require_none_failed(outcomes)
    cannot = [outcome for outcome in outcomes if outcome.state != "would fail"]
    with pytest.raises(
        FoldcastError, match=f"2 of 6 cycles cannot be foreseen, first {cut_off}: source 'a': 503"
    ):
        backfill.require_none_failed(cannot)
    backfill.require_none_failed([outcome for outcome in cannot if outcome.state != "unknown"])


def test_hours_that_a_model_does_not_start_at_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[Cycle] = []
    monkeypatch.setattr(backfill, "run_cycle", lambda cycle, settings, *, force: ran.append(cycle))
    planned = planned_cycles(SETTINGS, START, START + DAY, every=timedelta(hours=6), models=["one"])
    outcomes = backfill.fill(planned, places(tmp_path), max_parallel=1, dry_run=False, force=False)
    assert [cycle.init_time.hour for cycle in ran] == [0, 12, 0]
    assert [outcome.state for outcome in outcomes] == ["skipped"] * 2 + ["published"] * 3


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_backfill_of_no_hour_that_a_model_starts_at_is_refused(tmp_path: Path, dry_run: bool) -> None:
    first = START + timedelta(hours=6)
    planned = planned_cycles(SETTINGS, first, first + DAY, every=DAY, models=["one"])
    said = "none of 2; first one/20260101T06Z: init_hours are 0, 12"
    with pytest.raises(FoldcastError, match=said):
        backfill.fill(planned, places(tmp_path), max_parallel=1, dry_run=dry_run, force=False)


def test_a_forced_backfill_waits_for_the_run_that_is_at_a_cycle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The flow run it made found another at the cycle; no further one is made until that has let go."""
    [cycle] = cycles(1)
    store = ObjectStore(root=str(tmp_path))
    store.write(layout.cycle_manifest(cycle), b"{}")

    def forecast(**_: object) -> object:
        try:
            with claims.held(claims.claim_cycle(store, cycle, owner="the backfill's")):
                return None
        except claims.CycleBusyError as error:
            return launch.held_elsewhere(error)

    server = Orchestration(forecast, lambda: START)
    monkeypatch.setattr(launch, "get_client", server.client)
    submit = _submitter(store, force=True)
    assert submit(cycle).state == "started"
    with claims.held(claims.claim_cycle(store, cycle, owner="by hand")):
        server.work()
        for _ in range(10):
            outcome = submit(cycle)
            server.work()
        assert (outcome.state, len(server.runs)) == ("running", 1)
        assert "by hand" in outcome.reason
    assert [submit(cycle).state, server.work() is not None, submit(cycle).state] == [
        "started",
        True,
        "published",
    ]
    assert len(server.runs) == 2
