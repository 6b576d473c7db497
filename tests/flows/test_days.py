"""Three days by a clock set by hand, in one process: availability, a backfill beside, and all that goes wrong.

What a server, workers and an S3 server do when they are killed is rehearsed by ``tests.tools.week``; this is what is
left without them: who starts what when, once, in which order, and with which bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, tzinfo
from pathlib import Path

import pytest

import flows.forecast
from flows.availability import availability
from flows.backfill import _submitter, run_bounded
from flows.forecast import forecast, run_cycle
from infra import events, layout
from infra.claims import CycleBusyError
from infra.cycle_status import published_cycles
from infra.demo import INIT_TIME
from infra.demo.configuration import DETERMINISTIC, demo_settings
from infra.events import CycleEvent
from infra.publication import read_latest
from infra.settings import ProductSettings, Settings
from model.cycle import Cycle
from tasks import launch, product_checks, publish, validation
from tests.fakes.orchestration import Orchestration
from tests.tools.delayed_archive import DelayedArchive
from tests.tools.undisturbed import different_cycles

HOUR = timedelta(hours=1)
DELAY = timedelta(hours=7, minutes=34)
CUTOFF = timedelta(hours=9)
LOOK_BACK = timedelta(hours=12)
DAYS = [Cycle(model=DETERMINISTIC, init_time=INIT_TIME + timedelta(days=day)) for day in range(3)]
FIRST, MISSING, LAST = DAYS
BACKFILL = [Cycle(model=DETERMINISTIC, init_time=INIT_TIME - hours * HOUR) for hours in (18, 12)]
EXPECTED = sorted([FIRST, LAST, *BACKFILL], key=lambda cycle: cycle.init_time)


def settings_in(folder: Path, provider: Path) -> Settings:
    """The demo's deterministic model for one step, once a day."""
    settings = demo_settings(folder)
    model = settings.configured_model(DETERMINISTIC).model_copy(
        update={
            "steps": 1, "init_hours": (0,), "cutoff": CUTOFF, "climatology": None,
            "products": ProductSettings(formats=("zarr",), quantiles=(), events=()),
        }
    )  # fmt: skip
    source = settings.sources["nature-run"].model_copy(update={"roots": (str(provider),)})
    run = settings.run.model_copy(update={"cache": str(provider.parent / "cache")})
    return settings.model_copy(
        update={"models": {DETERMINISTIC: model}, "sources": {"nature-run": source}, "run": run}
    )


@dataclass
class Days:
    """The simulated days.

    Args:
        settings: of the disturbed run.
        provider: publishes with a delay.
        now: the clock.
        raised: events, in order.
        begun: when which cycle's run began, in order.
        mishaps: by cycle, what happens once, when its members are whole and its products are not.
    """

    settings: Settings
    provider: DelayedArchive
    now: datetime = INIT_TIME
    raised: list[tuple[str, Cycle]] = field(default_factory=list)
    begun: list[tuple[Cycle, datetime]] = field(default_factory=list)
    mishaps: dict[Cycle, Callable[[], None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.server = Orchestration(
            lambda **given: forecast.fn(**forecast.validate_parameters(given)), lambda: self.now
        )

    def raise_event(self, event: CycleEvent, cycle: Cycle, **_: object) -> None:
        self.raised.append((event, cycle))
        if event == "started":
            self.begun.append((cycle, self.now))

    def pass_an_hour(self, _: float = 0.0) -> None:
        """An hour in which the provider may publish, the schedule looks, and the worker takes one run."""
        self.now += HOUR
        self.provider.publish_until(self.now - DELAY)
        availability.fn(now=self.now, look_back=LOOK_BACK)
        self.server.work()

    def count(self, event: CycleEvent) -> dict[Cycle, int]:
        cycles = [cycle for each, cycle in self.raised if each == event]
        return {cycle: cycles.count(cycle) for cycle in cycles}


@pytest.fixture
def days(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Days:
    archive = tmp_path / "provider"
    provider = DelayedArchive(archive, withheld=MISSING.init_time)
    days = Days(settings=settings_in(tmp_path / "disturbed", archive), provider=provider)

    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return days.now

    make_products = flows.forecast.make_products

    def make(cycle: Cycle, *arguments: object) -> object:
        days.mishaps.pop(cycle, lambda: None)()
        return make_products(cycle, *arguments)

    for module in (flows.forecast, flows.availability, flows.backfill):
        monkeypatch.setattr(module, "load_settings", lambda: days.settings)
    monkeypatch.setattr(flows.forecast, "make_products", make)
    monkeypatch.setattr(launch, "get_client", days.server.client)
    monkeypatch.setattr(launch, "datetime", Clock)
    for module in (events, flows.forecast, publish):
        monkeypatch.setattr(module, "raise_event", days.raise_event)
    # What the checks find is tested elsewhere, and they are most of the time.
    for module in (validation, product_checks):
        monkeypatch.setattr(module, "run_suite", lambda *_, **__: ())
    return days


def test_three_days_and_a_backfill_end_as_if_nothing_had_happened(days: Days, tmp_path: Path) -> None:
    store = days.settings.store.open()

    def ask_at_once() -> None:
        """The schedule and a person ask for a cycle that is being computed."""
        [outcome] = [
            found for found in availability.fn(now=days.now, look_back=LOOK_BACK) if found.cycle == FIRST
        ]
        assert outcome.state == "running"
        with pytest.raises(CycleBusyError, match="held by"):
            run_cycle(FIRST, days.settings)

    def die() -> None:
        raise RuntimeError("the worker died")

    days.mishaps = {FIRST: ask_at_once, LAST: die}
    days.provider.publish_until(INIT_TIME - DELAY)
    filled = run_bounded(
        BACKFILL,
        _submitter(store, force=False),
        max_parallel=2,
        poll_seconds=0,
        sleep=days.pass_an_hour,
    )
    while days.now < INIT_TIME + timedelta(days=3):
        days.pass_an_hour()

    assert [(outcome.state, outcome.reason) for outcome in filled] == [("published", "")] * 2
    assert days.mishaps == {}
    assert days.count("published") == dict.fromkeys(EXPECTED, 1)
    assert days.count("late") == {MISSING: 1}
    assert days.count("failed") == {}
    assert days.count("overdue") == {}
    at = {cycle: [time for each, time in days.begun if each == cycle] for cycle in (*EXPECTED, MISSING)}
    assert at[MISSING] == []
    assert at[FIRST] == [FIRST.init_time + 8 * HOUR]  # the first look after its inputs have come
    assert at[LAST] == [LAST.init_time + hours * HOUR for hours in (8, 9)]
    assert read_latest(store, DETERMINISTIC).cycle == LAST
    assert not store.exists(layout.cycle_manifest(MISSING))

    published = list(published_cycles(store))
    assert [manifest.cycle for manifest in published] == EXPECTED
    quiet = settings_in(tmp_path / "quiet", tmp_path / "provider")
    assert different_cycles(published, store, quiet) == []


def test_a_real_time_cycle_goes_before_a_backfill_and_a_held_one_costs_no_attempt(days: Days) -> None:
    store = days.settings.store.open()
    days.provider.publish_until(FIRST.init_time)
    days.now = FIRST.init_time + 8 * HOUR
    submit = _submitter(store, force=False)
    assert [submit(cycle).state for cycle in BACKFILL] == ["started", "started"]
    availability.fn(now=days.now, look_back=LOOK_BACK)
    scheduled: list[object] = []
    days.mishaps = {FIRST: lambda: scheduled.append(days.server.work())}
    run_cycle(FIRST, days.settings)  # by hand, while the schedule's run of it is taken up
    [run] = scheduled
    assert days.server.runs[-1] is run  # submitted last, taken first
    assert run.queue == "realtime"  # type: ignore[attr-defined]
    assert run.state.is_cancelled()  # type: ignore[attr-defined]
    store.delete(layout.cycle_manifest(FIRST))
    [outcome] = [
        found for found in availability.fn(now=days.now, look_back=LOOK_BACK) if found.cycle == FIRST
    ]
    assert (outcome.state, outcome.attempts) == ("started", 1)
