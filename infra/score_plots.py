"""Score curves, reliability diagrams, rank histograms and score cards as PNG."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
import xarray as xr

from infra.maps import INK, MUTED
from model.variables import VARIABLES

_FORECAST, _REFERENCE = "#1d5fa8", ("#8a94a0", "#c9782b")


def draw_curves(scores: xr.Dataset, *, fields: Sequence[str], region: str, title: str) -> bytes:
    """RMSE, spread and references against lead time, a panel per field, as PNG.

    Args:
        scores: as ``model.diagnostics.scores.scores`` gives them.
        fields: labels of the panels.
        region: name of the region.
        title: above all panels.
    """
    columns = min(3, len(fields))
    rows = -(-len(fields) // columns)
    figure, panels = _figure(columns, rows, title)
    days = scores["lead_time"].values / np.timedelta64(1, "D")
    for panel, field in zip(panels.ravel(), fields):
        at = scores.sel(field=field, region=region)
        panel.plot(days, at["rmse"], color=_FORECAST, linewidth=2.2, label="RMSE")
        if "spread" in at:
            panel.plot(
                days, at["spread"], color=_FORECAST, linewidth=1.4, linestyle=(0, (4, 2)), label="spread"
            )
        for name, colour in zip(("persistence", "climatology"), _REFERENCE):
            if f"{name}_rmse" in at:
                panel.plot(days, at[f"{name}_rmse"], color=colour, linewidth=1.4, label=name)
        panel.set_title(f"{field.replace('_', ' ')}, {_units(field)}", loc="left", fontsize=10, color=INK)
        panel.set_ylim(bottom=0)
        panel.set_xlabel("lead time, days", fontsize=8, color=MUTED)
    panels.ravel()[0].legend(fontsize=8, frameon=False)
    for panel in panels.ravel()[len(fields) :]:
        panel.axis("off")
    return _png(figure)


def draw_rank_histograms(scores: xr.Dataset, *, fields: Sequence[str], region: str, title: str) -> bytes:
    """Rank histograms at the first, middle and last lead time, a row per field, as PNG; flat is reliable."""
    leads = _shown_leads(scores)
    figure, panels = _figure(len(leads), len(fields), title)
    flat = 1 / scores.sizes["rank"]
    for row, field in zip(panels, fields):
        for panel, lead in zip(row, leads):
            at = scores["rank_histogram"].sel(field=field, region=region).isel(lead_time=lead)
            panel.bar(np.arange(at.size), at.values, color=_FORECAST, width=0.9)
            panel.axhline(flat, color=INK, linewidth=1)
            panel.set_title(
                f"{field.replace('_', ' ')}, {_hours(scores, lead)}", loc="left", fontsize=9, color=INK
            )
            panel.set_ylim(0, max(2.5 * flat, float(at.max()) * 1.1))
    for panel in panels[-1]:
        panel.set_xlabel("rank of the truth among the members", fontsize=8, color=MUTED)
    for row in panels:
        row[0].set_ylabel("share", fontsize=8, color=MUTED)
    return _png(figure)


def draw_reliability(scores: xr.Dataset, *, events: Sequence[str], region: str, title: str) -> bytes:
    """Reliability diagrams at the first, middle and last lead time, a row per event, as PNG.

    Observed frequency against forecast probability, on the diagonal where reliable; bars are the share of
    forecasts of each probability, the dotted line is the event's own frequency.

    Args:
        scores: as ``model.diagnostics.event_scores.event_scores`` gives them.
        events: names of the rows.
        region: name of the region.
        title: above all panels.
    """
    leads = _shown_leads(scores)
    figure, panels = _figure(len(leads), len(events), title)
    width = 0.8 * float(np.diff(scores["probability"].values).min(initial=1.0))
    for row, event in zip(panels, events):
        for panel, lead in zip(row, leads):
            at = scores.sel(event=event, region=region).isel(lead_time=lead)
            share, frequency = at["forecast_share"].values, at["observed_frequency"].values
            base = float(np.nansum(share * frequency))
            panel.bar(at["probability"], share, width=width, color="#d7e3f0", label="share of forecasts")
            panel.plot([0, 1], [0, 1], color=INK, linewidth=1)
            panel.axhline(base, color=MUTED, linewidth=1, linestyle=":", label="event's frequency")
            known = share > 0
            panel.plot(
                at["probability"][known], frequency[known], "o-", color=_FORECAST, linewidth=2, markersize=4,
                label="observed",
            )  # fmt: skip
            panel.set(xlim=(-0.05, 1.05), ylim=(0, 1.02), aspect="equal")
            panel.set_title(
                f"{_event_title(event)}, {_hours(scores, lead)}\nBrier {float(at['brier']):.3g}, "
                f"skill {float(at['brier_skill']):.2f}",
                loc="left", fontsize=8, color=INK,
            )  # fmt: skip
    for panel in panels[-1]:
        panel.set_xlabel("forecast probability", fontsize=8, color=MUTED)
    panels[0, 0].legend(fontsize=7, framealpha=0.8, edgecolor="none", loc="upper left")
    return _png(figure)


def draw_brier(scores: xr.Dataset, *, events: Sequence[str], region: str, title: str) -> bytes:
    """Brier score and its parts against lead time, a panel per event, as PNG.

    Brier score = reliability − resolution + uncertainty: the uncertainty is what always forecasting the event's
    frequency would score.
    """
    columns = min(3, len(events))
    figure, panels = _figure(columns, -(-len(events) // columns), title)
    days = scores["lead_time"].values / np.timedelta64(1, "D")
    styles = {
        "brier": (_FORECAST, 2.2, "-"),
        "uncertainty": (_REFERENCE[0], 1.4, "-"),
        "resolution": (_REFERENCE[1], 1.4, "-"),
        "reliability": (_FORECAST, 1.4, (0, (4, 2))),
    }
    for panel, event in zip(panels.ravel(), events):
        at = scores.sel(event=event, region=region)
        for name, (colour, width, line) in styles.items():
            label = "Brier score" if name == "brier" else name
            panel.plot(days, at[name], color=colour, linewidth=width, linestyle=line, marker=".", label=label)
        panel.set_title(_event_title(event), loc="left", fontsize=9, color=INK)
        panel.set_ylim(bottom=0)
        panel.set_xlabel("lead time, days", fontsize=8, color=MUTED)
    panels.ravel()[0].legend(fontsize=8, frameon=False)
    for panel in panels.ravel()[len(events) :]:
        panel.axis("off")
    return _png(figure)


def draw_score_card(
    change: xr.DataArray, *, significant: xr.DataArray, title: str, first: str, second: str
) -> bytes:
    """Relative difference of two forecasts' scores, a cell per field and lead time, as PNG.

    Args:
        change: (first − second) / second, dims (field, lead_time); negative, blue, is where first is better.
        significant: whether the difference is, same dims; such cells carry a dot.
        title: above the card.
        first, second: names of what is compared.
    """
    from matplotlib.figure import Figure

    percent = 100 * change.transpose("field", "lead_time").values
    marks = significant.transpose("field", "lead_time").values
    rows, columns = percent.shape
    figure = Figure(figsize=(2.6 + 0.42 * columns, 1.5 + 0.3 * rows), dpi=110, layout="constrained")
    axes = figure.subplots()
    bound = max(1.0, float(np.nanmax(np.abs(percent)))) if np.isfinite(percent).any() else 1.0
    mesh = axes.pcolormesh(percent, cmap="RdBu_r", vmin=-bound, vmax=bound, edgecolors="white", linewidth=1.5)
    where = np.argwhere(marks)
    axes.plot(where[:, 1] + 0.5, where[:, 0] + 0.5, ".", color=INK, markersize=5, linestyle="none")
    days = change["lead_time"].values / np.timedelta64(1, "D")
    axes.set_xticks(np.arange(columns) + 0.5, [f"{day:g}" for day in days], fontsize=7)
    axes.set_yticks(
        np.arange(rows) + 0.5, [str(name).replace("_", " ") for name in change["field"].values], fontsize=8
    )
    axes.invert_yaxis()
    axes.set_xlabel("lead time, days", fontsize=8, color=MUTED)
    axes.tick_params(length=0, colors=INK)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", color=INK)
    bar = figure.colorbar(mesh, ax=axes, fraction=0.04, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=7, length=0)
    bar.set_label(f"RMSE of {first} against {second}, %", fontsize=8, color=MUTED)
    return _png(figure)


def _shown_leads(scores: xr.Dataset) -> list[int]:
    return sorted({0, scores.sizes["lead_time"] // 2, scores.sizes["lead_time"] - 1})


def _hours(scores: xr.Dataset, lead: int) -> str:
    return f"+{int(scores['lead_time'].values[lead] / np.timedelta64(1, 'h'))} h"


def _units(field: str) -> str:
    """SI units of a field's scores; a label is a variable's name and, on levels, the pressure after a blank."""
    return VARIABLES[field.partition(" ")[0]].units


def _event_title(event: str) -> str:
    return event.removeprefix("probability_").replace("_", " ")


def _figure(columns: int, rows: int, title: str) -> tuple[Any, np.ndarray]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.6 * columns, 2.7 * rows + 0.4), dpi=110, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    for panel in panels.ravel():
        panel.grid(color="#e4e7eb", linewidth=0.8)
        panel.set_axisbelow(True)
        panel.tick_params(labelsize=8, length=0, colors=MUTED)
        for spine in panel.spines.values():
            spine.set_visible(False)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold", color=INK)
    return figure, panels


def _png(figure: Any) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None}, facecolor="white")
    return buffer.getvalue()
