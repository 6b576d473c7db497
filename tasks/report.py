"""What verification found, for people: curves, rank histograms and score cards in the store and in Prefect."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np
import xarray as xr
from prefect.artifacts import create_image_artifact, create_table_artifact
from prefect.context import FlowRunContext

from infra import layout
from infra.object_store import ObjectStore
from infra.score_plots import (
    draw_brier,
    draw_curves,
    draw_rank_histograms,
    draw_reliability,
    draw_score_card,
)
from infra.settings import Settings
from infra.wording import counted
from model.cycle import Cycle
from model.diagnostics.event_scores import event_scores, total_events
from model.diagnostics.scores import scores, total
from model.diagnostics.significance import MINIMUM_CYCLES, departure_from_usual, paired_test
from tasks.verification import EVENTS, FIELDS, SkillRow, load_statistics, skill_rows, verified_cycles

SHOWN = (
    "geopotential 500",
    "temperature 850",
    "2m_temperature",
    "mean_sea_level_pressure",
    "10m_u_component_of_wind",
    "u_component_of_wind 850",
)
"""Fields drawn, those that were verified."""

_EVENTS_SHOWN = 6

UNUSUAL = 4.0
"""Robust standard deviations beyond which a cycle's skill is out of its usual range."""


def report_skill(store: ObjectStore, model: str, *, region: str = "global") -> list[str]:
    """Draw a model's skill over all verified cycles; returns the pictures' keys."""
    cycles = list(verified_cycles(store, model))
    result = scores(total(load_statistics(store, cycle) for cycle in cycles))
    fields = [field for field in SHOWN if field in result["field"].values]
    title = f"{model}, {region}, {counted(len(cycles), 'cycle')}"
    pictures = {f"curves-{region}.png": draw_curves(result, fields=fields, region=region, title=title)}
    if "rank_histogram" in result:
        pictures[f"ranks-{region}.png"] = draw_rank_histograms(
            result, fields=fields[:3], region=region, title=title
        )
    with_events = list(verified_cycles(store, model, EVENTS))
    if with_events:
        happened = event_scores(total_events(load_statistics(store, c, EVENTS) for c in with_events))
        events = happened["event"].values.tolist()[:_EVENTS_SHOWN]
        for name, draw in (("reliability", draw_reliability), ("brier", draw_brier)):
            pictures[f"{name}-{region}.png"] = draw(happened, events=events, region=region, title=title)
    keys = []
    for name, picture in pictures.items():
        keys.append(layout.skill_report(model, name))
        store.write(keys[-1], picture)
    return keys


def publish_pictures(settings: Settings, model: str, keys: Sequence[str]) -> None:
    """Show pictures in the flow run; nothing happens outside one, or where no public URL is configured."""
    base = settings.store.public_url
    if base is None or FlowRunContext.get() is None:
        return
    for key in keys:
        name = PurePosixPath(key).stem
        create_image_artifact(
            image_url=f"{base.rstrip('/')}/{key}",
            key=f"skill-{model}-{name}".lower().replace("_", "-"),
            description=f"{name.replace('-', ', ')}: {model}, all verified cycles",
        )


def compare_models(
    store: ObjectStore, first: str, second: str, *, region: str = "global"
) -> tuple[xr.Dataset, str]:
    """Compare two models over the cycles both verified; returns the tests and the score card's key.

    The Dataset has dims (field, lead_time): ``change`` is the relative difference of the RMSE over all common
    cycles, ``p_value`` that of the autocorrelation-aware paired test of squared errors, NaN with too few cycles.

    Raises:
        ValueError: there is no common cycle.
    """
    common = sorted(
        {c.init_time for c in verified_cycles(store, first)}
        & {c.init_time for c in verified_cycles(store, second)}
    )
    if not common:
        raise ValueError(f"{first} and {second} have no verified cycle in common")
    squared = []
    for model in (first, second):
        per_cycle = [
            scores(load_statistics(store, Cycle(model=model, init_time=time)))["rmse"].sel(region=region) ** 2
            for time in common
        ]
        squared.append(xr.concat(per_cycle, "cycle", join="outer", coords="minimal", compat="override"))
    one, two = xr.align(*squared, join="inner", exclude=["cycle"])
    both = np.isfinite(one - two)  # a cycle counts at the lead times at which both models were verified
    one, two = one.where(both), two.where(both)
    change: xr.DataArray = (one.mean("cycle") / two.mean("cycle")) ** 0.5 - 1

    def p_value(a: np.ndarray, b: np.ndarray) -> float:
        known = np.isfinite(a)
        return paired_test(a[known], b[known]).p_value if known.sum() >= MINIMUM_CYCLES else np.nan

    p_values = xr.apply_ufunc(
        p_value, one, two, input_core_dims=[["cycle"], ["cycle"]], vectorize=True, output_dtypes=[float]
    )
    result = xr.Dataset({"change": change, "p_value": p_values})
    picture = draw_score_card(
        change,
        significant=p_values < 0.05,
        title=f"{first} against {second}, {region}, {counted(len(common), 'cycle')}",
        first=first,
        second=second,
    )
    key = layout.skill_report(first, f"against-{second}-{region}.png")
    store.write(key, picture)
    return result, key


def unusual_scores(store: ObjectStore, cycle: Cycle, *, region: str = "global") -> list[str]:
    """Fields and lead times at which a cycle's RMSE is out of its usual range, in words.

    Compared are all cycles of the model verified before it; with too few of them nothing is unusual.
    """
    earlier = [c for c in verified_cycles(store, cycle.model) if c.init_time < cycle.init_time]
    latest = scores(load_statistics(store, cycle))["rmse"].sel(region=region)
    history = [scores(load_statistics(store, c))["rmse"].sel(region=region) for c in earlier]
    if not history:
        return []
    before = xr.concat(
        [past.reindex_like(latest) for past in history], "cycle", coords="minimal", compat="override"
    )
    found = []
    for field in latest["field"].values:
        for lead in latest["lead_time"].values:
            at = {"field": field, "lead_time": lead}
            departure = departure_from_usual(before.sel(at).values, float(latest.sel(at)))
            if departure > UNUSUAL:
                hours = int(lead / np.timedelta64(1, "h"))
                found.append(
                    f"{field} +{hours} h: RMSE {float(latest.sel(at)):.4g}, "
                    f"{departure:.1f} standard deviations above usual"
                )
    return found


def publish_skill_table(store: ObjectStore, model: str, name: str = FIELDS) -> None:
    """Attach the skill table to the flow run; outside a flow run nothing happens."""
    if FlowRunContext.get() is None:
        return
    rows = [table_row(row) for row in skill_rows(store, model, name=name)]
    against = "" if name == FIELDS else "-stations"
    create_table_artifact(
        key=f"skill-{model}{against}".lower().replace("_", "-"),
        table=rows,
        description=f"Skill of {model}{' at stations' if against else ''}, all verified cycles",
    )


def table_row(row: SkillRow) -> dict[str, str]:
    """A line of the skill table as text."""
    return {
        "field": row.field,
        "lead": f"{row.lead_days:g} d",
        "RMSE": _shown(row.rmse),
        "persistence": _shown(row.persistence_rmse),
        "climatology": _shown(row.climatology_rmse),
        "ACC": _shown(row.acc),
        "CRPS": _shown(row.crps),
        "spread/skill": _shown(row.spread_skill),
        "units": row.units,
    }


def skill_table(
    rows: Sequence[SkillRow], *, fields: Sequence[str] = (), days: Sequence[float] = ()
) -> list[dict]:
    """The chosen lines of the skill table as text; all fields or lead times where none are chosen."""
    return [
        table_row(row)
        for row in rows
        if (not fields or row.field in fields) and (not days or row.lead_days in days)
    ]


def _shown(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
