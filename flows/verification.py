"""Scores every published cycle as its truth arrives, and says when skill leaves its usual range."""

from __future__ import annotations

import logging
from collections.abc import Callable

from prefect import flow

from infra import layout
from infra.claims import utc_now
from infra.cycle_status import published_cycles, readable_manifest
from infra.errors import FoldcastError, MissingDataError, StoreError
from infra.events import raise_event_once
from infra.object_store import ObjectStore
from infra.publication import Manifest
from infra.settings import Settings, load_settings
from infra.terminal import FoldingTable, command_console
from model.cycle import Cycle, parse_init_time
from tasks.missing_truth import give_up, given_up, unscored
from tasks.report import (
    publish_pictures,
    publish_skill_table,
    report_skill,
    skill_table,
    unusual_scores,
)
from tasks.station_verification import verify_cycle_at_stations
from tasks.verification import FIELDS, STATIONS, Verification, load_statistics, skill_rows, verify_cycle

_LOG = logging.getLogger(__name__)


@flow(name="verification")
def verification(models: list[str] | None = None, again: bool = False) -> list[str]:
    """Score all published cycles that are not scored at every lead time yet, against analyses and stations.

    Truth that has not come within a model's ``truth_within`` is missing: recorded, said once, not waited for.

    Args:
        models: names of configured models; default: all.
        again: also score those that are scored completely, or as far as truth was ever to come.

    Returns:
        What was scored against analyses, as ``model/init_time``.

    Raises:
        FoldcastError: some cycle could not be scored; the others were.
    """
    settings = load_settings()
    store = settings.store.open()
    scored: list[str] = []
    failures: list[str] = []
    for model in models or list(settings.models):
        ways: dict[str, Callable[[Cycle, Settings], Verification]] = {FIELDS: verify_cycle}
        if settings.configured_model(model).stations is not None:
            ways[STATIONS] = verify_cycle_at_stations
        for name, score in ways.items():
            done, failed = _score(store, settings, model, name, score, again=again)
            failures += failed
            if name == FIELDS:
                scored += map(str, done)
            if done:
                failures += _report(store, settings, model, name)
    if failures:
        raise FoldcastError(f"{len(failures)} cycles could not be scored, first {failures[0]}")
    return scored


def _score(
    store: ObjectStore,
    settings: Settings,
    model: str,
    name: str,
    score: Callable[[Cycle, Settings], Verification],
    *,
    again: bool,
) -> tuple[list[Cycle], list[str]]:
    """Score a model's cycles in one way; returns which were, and what failed."""
    done, failures = [], []
    for manifest in published_cycles(store, model):
        cycle = manifest.cycle
        try:
            if not again and _is_settled(store, manifest, name):
                continue
            if not store.exists(f"{layout.forecast_store(cycle, manifest.run)}/zarr.json"):
                continue  # its members were removed
            try:
                result = score(cycle, settings)
            except MissingDataError:
                pass  # no truth has arrived
            else:
                done.append(cycle)
                if name == FIELDS:
                    _alert(store, result)
            _tell_missing(store, settings, manifest, name)
        except FoldcastError as error:
            failures.append(f"{cycle}: {error}")
    return done, failures


def _tell_missing(store: ObjectStore, settings: Settings, manifest: Manifest, name: str) -> None:
    """Record the times whose truth is no longer waited for; log when there are more, raise one event of them."""
    cycle, patience = manifest.cycle, settings.configured_model(manifest.cycle.model).truth_within
    known = given_up(store, manifest, name)
    missing = give_up(store, manifest, name, patience=patience, now=utc_now())
    if not set(missing) <= set(known):
        _LOG.warning(
            "%s: truth of %d of %d times is missing (%s), first %s",
            cycle, len(missing), manifest.steps, name, missing[0],
        )  # fmt: skip
    if missing:
        times = [str(time) for time in missing[:10]]
        raise_event_once(store, "truth-missing", cycle, about=name, statistics=name, valid_times=times)


def _report(store: ObjectStore, settings: Settings, model: str, name: str) -> list[str]:
    """Show a model's skill; what cannot be shown keeps no other model from being scored."""
    try:
        if name == FIELDS:
            publish_pictures(settings, model, report_skill(store, model))
        publish_skill_table(store, model, name)
    except FoldcastError as error:
        return [f"{model}: {error}"]
    return []


def verify(
    *, model: str, init_times: list[str] | None = None, region: str = "global", stations: bool = False
) -> None:
    """Score cycles of a model here and print the skill table over all that are scored.

    Args:
        model: name of a configured model.
        init_times: cycles to score, e.g. ``20260101T00Z``; default: those not scored completely.
        region: region of the table.
        stations: show, and for named cycles make, the scores against station reports.

    Raises:
        MissingDataError: a cycle is not published, or there is no score to show.
    """
    settings = load_settings()
    store = settings.store.open()
    settings.configured_model(model)
    if init_times:
        score = verify_cycle_at_stations if stations else verify_cycle
        for text in init_times:
            score(_published(store, model, text), settings)
    else:
        verification.fn(models=[model])
    name = STATIONS if stations else FIELDS
    _print_missing(store, model, name)
    if not any(_is_scored(store, manifest, name) for manifest in published_cycles(store, model)):
        raise MissingDataError(f"{model}: expected a published cycle whose truth has arrived, found none")
    rows = skill_table(skill_rows(store, model, region=region, name=name))
    table = FoldingTable(title=f"Skill of {model}{' at stations' if stations else ''}, {region}")
    for column in rows[0]:
        table.add_column(column, justify="left" if column in ("field", "units") else "right")
    for row in rows:
        table.add_row(*row.values())
    command_console().print(table)


def _print_missing(store: ObjectStore, model: str, name: str) -> None:
    for manifest in published_cycles(store, model):
        missing = sorted({*given_up(store, manifest, name)} & {*unscored(store, manifest, name)})
        if missing:
            command_console().print(
                f"{manifest.cycle}: truth of {len(missing)} of {manifest.steps} times is missing, "
                f"first {missing[0]:%Y%m%dT%HZ}"
            )


def _published(store: ObjectStore, model: str, text: str) -> Cycle:
    try:
        cycle = Cycle(model=model, init_time=parse_init_time(text))
    except ValueError as error:
        raise FoldcastError(str(error)) from None
    if readable_manifest(store, cycle) is None:
        newest = max((m.cycle.identifier for m in published_cycles(store, model)), default=None)
        there_is = f"the newest of {store.root} is {newest}" if newest else f"{store.root} has none"
        raise MissingDataError(f"{cycle}: expected a published cycle; {there_is}")
    return cycle


def _is_scored(store: ObjectStore, manifest: Manifest, name: str) -> bool:
    try:
        load_statistics(store, manifest.cycle, name)
    except StoreError:
        return False
    return True


def _is_settled(store: ObjectStore, manifest: Manifest, name: str) -> bool:
    """Whether nothing is left to score: every lead time is, or its truth is missing for good."""
    return set(unscored(store, manifest, name)) <= set(given_up(store, manifest, name))


def _alert(store: ObjectStore, result: Verification) -> None:
    unusual = unusual_scores(store, result.cycle)
    if unusual:
        raise_event_once(store, "skill-out-of-range", result.cycle, findings=unusual[:10])
