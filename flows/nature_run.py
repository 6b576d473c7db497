"""A nature run: an atmosphere made by a general circulation model, archived as if it had been analysed.

Spin up from rest, then run on in chunks, each archived as six-hourly GRIB2 analyses with the state to go on
from. At the end normalisation statistics and a climatology on the model's grid lie beside the analyses.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast
from uuid import UUID

from prefect import flow, get_run_logger
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from infra.errors import FoldcastError
from infra.nature_run.archive import AnalysisArchive
from infra.object_store import ObjectStore
from infra.settings import load_settings
from infra.terminal import command_console
from model.grid import Grid
from tasks.nature_run import NatureRunPlan, open_run, simulate_chunk, summarise

DEFAULT_START = datetime(2000, 9, 1, tzinfo=UTC)
SPIN_UP = timedelta(days=122)
"""Four months: from the isothermal rest of September to the first January."""

RESOLUTION = 5.0

Report = Callable[[datetime, float], None]
"""Called with the time reached and the share of the run that is done."""


@flow(name="nature-run", flow_run_name="nature-run-{seed}")
def nature_run(
    archive_url: str,
    years: float = 1.0,
    seed: int = 0,
    start: datetime = DEFAULT_START,
    spin_up_days: int = SPIN_UP.days,
    held_out_years: float = 0.0,
    resolution: float = RESOLUTION,
) -> str:
    """Make a nature run's archive, or go on with one that was begun with the same settings.

    Args:
        archive_url: folder or URL of the archive.
        years: length after the spin-up, in years of 365 days.
        seed: of the initial perturbation; apart from it the run is deterministic.
        start: where the spin-up begins.
        spin_up_days: days from rest that are not archived.
        held_out_years: the last so many years take no part in statistics and climatology.
        resolution: degrees of the grid on which these are made.

    Returns:
        Where the archive is.
    """
    log = get_run_logger()
    archive = _archive(archive_url)
    plan = plan_of(
        years=years, seed=seed, start=start, spin_up_days=spin_up_days, held_out_years=held_out_years
    )
    log.info("%s: seed %d, archived from %s to %s", archive.url, seed, plan.begin, plan.end)
    artifact = cast("UUID", create_progress_artifact(progress=0.0, description=f"Nature run {archive.url}"))

    def report(reached: datetime, share: float) -> None:
        update_progress_artifact(artifact_id=artifact, progress=100.0 * share)
        log.info("reached %s (%.0f %%)", f"{reached:%Y-%m-%dT%HZ}", 100.0 * share)

    complete_archive(archive, plan, Grid(resolution=resolution), report)
    return archive.url


def nature_run_command(*, output: Path, years: float = 1.0, seed: int = 0) -> None:
    """What `foldcast nature-run` does: the same without a server, with a progress bar."""
    archive = _archive(str(output))
    try:
        plan = plan_of(years=years, seed=seed)
    except ValueError as error:
        raise FoldcastError(f"nature-run: {error}") from None
    console = command_console()
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bars:
        bar = bars.add_task("starting", total=1.0)

        def report(reached: datetime, share: float) -> None:
            bars.update(bar, completed=share, description=f"{reached:%Y-%m-%d}")

        complete_archive(archive, plan, Grid(resolution=RESOLUTION), report)
    console.print(f"{len(archive.times())} analyses from {plan.begin:%Y-%m-%d} on, statistics: {archive.url}")


def plan_of(
    *,
    years: float,
    seed: int,
    start: datetime = DEFAULT_START,
    spin_up_days: int = SPIN_UP.days,
    held_out_years: float = 0.0,
) -> NatureRunPlan:
    """The plan of a run of so many years of 365 days."""
    return NatureRunPlan(
        seed=seed,
        start=start if start.tzinfo else start.replace(tzinfo=UTC),
        spin_up=timedelta(days=spin_up_days),
        length=timedelta(days=round(years * 365)),
        held_out=timedelta(days=round(held_out_years * 365)),
    )


def complete_archive(archive: AnalysisArchive, plan: NatureRunPlan, grid: Grid, report: Report) -> list[str]:
    """Bring an archive to the end of its plan and summarise it; keys of statistics and climatology."""
    simulation = open_run(archive, plan)
    while simulation.time < plan.end:
        reached = simulate_chunk(simulation, archive, plan)
        report(reached, plan.share_done(reached))
    return summarise(archive, plan, grid)


def _archive(url: str) -> AnalysisArchive:
    """The archive at a folder or URL; for a URL with the configured store's credentials."""
    options = load_settings().store.open().options if "://" in url else {}
    return AnalysisArchive(store=ObjectStore(root=url, options=options))
