"""A nature run: an atmosphere made by a general circulation model, archived as if it had been analysed.

Spin up from rest, then run on in chunks, each archived as six-hourly GRIB2 analyses with the state to go on
from. At the end normalisation statistics and a climatology on the model's grid lie beside the analyses.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast
from uuid import UUID

from prefect import flow, get_run_logger
from prefect.artifacts import create_progress_artifact, update_progress_artifact

from infra.nature_run.archive import AnalysisArchive
from infra.object_store import ObjectStore
from infra.settings import load_settings
from model.grid import Grid
from tasks.nature_run import NatureRunPlan, open_run, simulate_chunk, summarise

DEFAULT_START = datetime(2000, 9, 1, tzinfo=UTC)


@flow(name="nature-run", flow_run_name="nature-run-{seed}")
def nature_run(
    archive_url: str,
    years: float = 1.0,
    seed: int = 0,
    start: datetime = DEFAULT_START,
    spin_up_days: int = 122,
    held_out_years: float = 0.0,
    resolution: float = 5.0,
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
    archive = AnalysisArchive(store=_store(archive_url))
    plan = NatureRunPlan(
        seed=seed,
        start=start if start.tzinfo else start.replace(tzinfo=UTC),
        spin_up=timedelta(days=spin_up_days),
        length=timedelta(days=round(years * 365)),
        held_out=timedelta(days=round(held_out_years * 365)),
    )
    log.info("%s: seed %d, archived from %s to %s", archive.url, seed, plan.begin, plan.end)
    progress = cast("UUID", create_progress_artifact(progress=0.0, description=f"Nature run {archive.url}"))

    simulation = open_run(archive, plan)
    while simulation.time < plan.end:
        reached = simulate_chunk(simulation, archive, plan)
        share = 100.0 * plan.share_done(reached)
        update_progress_artifact(artifact_id=progress, progress=share)
        log.info("reached %s (%.0f %%)", f"{reached:%Y-%m-%dT%HZ}", share)

    files = summarise(archive, plan, Grid(resolution=resolution))
    log.info("statistics and climatology: %s", ", ".join(files))
    return archive.url


def nature_run_command(*, output: Path, years: float = 1.0, seed: int = 0) -> None:
    """What `foldcast nature-run` does: the flow, and then where its archive lies."""
    print(nature_run(str(output), years=years, seed=seed))


def _store(url: str) -> ObjectStore:
    """The archive's store; the configured one's credentials are used for a URL."""
    return ObjectStore(root=url, options=load_settings().store.open().options if "://" in url else {})
