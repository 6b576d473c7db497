"""Prints the skill of the bundled models, from the bundled files or from a longer held-out archive."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import xarray as xr
from rich.table import Table

from infra.demo import RESOLUTION, bundled
from infra.terminal import FoldingTable, command_console
from tasks.skill import ModelUnderTest, Stability

VARIABLES = (
    "geopotential",
    "temperature",
    "u_component_of_wind",
    "v_component_of_wind",
    "2m_temperature",
    "mean_sea_level_pressure",
)
HEADLINE = (
    "geopotential 500",
    "temperature 850",
    "u_component_of_wind 850",
    "v_component_of_wind 850",
    "2m_temperature",
    "mean_sea_level_pressure",
)


def evaluate_demo(
    *,
    archive: Path | None = None,
    days: int = 10,
    starts: int = 60,
    members: int = 8,
    ensemble_starts: int = 60,
    ensemble_days: int = 5,
    stable_days: int = 15,
    folder: Path | None = None,
    resolution: float = RESOLUTION,
) -> None:
    """Score both bundled models and watch a long forecast of each.

    Args:
        archive: a Zarr store of held-out analyses, as ``flows.demo_models`` makes of a nature run; without one the
            twelve bundled days serve, which leave room for few starts.
        days: lead time of the deterministic model.
        starts: its forecasts, evenly over the archive; the bundled days hold fewer.
        members, ensemble_starts, ensemble_days: of the ensemble.
        stable_days: length of the long forecast.
        folder: of both models with their statistics and climatology; default: the bundled ones.
        resolution: degrees of their grid.
    """
    folder = folder or bundled("training").parent
    console = command_console()
    for name, lead, count, size in (
        ("graphcast", days, starts, 1),
        ("gencast", ensemble_days, ensemble_starts, members),
    ):
        model = ModelUnderTest.read(
            folder / f"{name}.npz",
            folder / f"{name}_stats",
            archive=archive,
            climatology=folder / "climatology.nc",
            resolution=resolution,
        )
        if archive is None:
            lead = min(lead, 5)
        scores = model.scores(VARIABLES, lead=timedelta(days=lead), starts=count, members=size)
        console.print(skill_table(scores, title=f"{name}: {model.checkpoint.description}"))
        lasting = timedelta(days=stable_days)
        console.print(stability_line(model.stability(VARIABLES, lead=lasting), lasting))


def skill_table(scores: xr.Dataset, *, title: str) -> Table:
    """The headline fields at whole days."""
    table = FoldingTable(title=title)
    columns = {
        "rmse": "RMSE",
        "persistence_rmse": "persistence",
        "climatology_rmse": "climatology",
        "acc": "ACC",
        "crps": "fair CRPS",
        "climatology_mae": "climatology's CRPS",
        "spread_skill_ratio": "spread/skill",
    }
    shown = {key: heading for key, heading in columns.items() if key in scores}
    if "crps" not in shown:
        shown.pop("climatology_mae", None)
    for heading in ("field", "day", *shown.values()):
        table.add_column(heading, justify="left" if heading == "field" else "right")
    for field in HEADLINE:
        for lead in scores["lead_time"].values:
            hours = int(lead.astype("timedelta64[h]").astype(int))
            if hours % 24:
                continue
            here = scores.sel(field=field, lead_time=lead, region="global")
            table.add_row(field, str(hours // 24), *(f"{float(here[key]):.3g}" for key in shown))
    return table


def stability_line(stability: Stability, lasting: timedelta) -> str:
    """Whether a long forecast stayed what weather looks like."""
    field = "geopotential 500"
    first, last = stability.global_means[field]
    return (
        f"after {lasting.days} days: {'finite' if stability.finite else 'NOT FINITE'}; "
        f"{field}: global mean {first:.0f} → {last:.0f} m² s⁻², variance beyond zonal wave number 10 "
        f"{stability.small_scale_ratio[field]:.2f} of the analyses'"
    )
