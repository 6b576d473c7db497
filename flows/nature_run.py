"""A nature run: an atmosphere made by a general circulation model, archived as if it had been analysed.

Spin up from rest, then run on in chunks, each archived as six-hourly GRIB2 analyses with the state to go on from.
At the end normalisation statistics and a climatology on the model's grid lie beside the analyses.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from prefect import flow, get_run_logger
from prefect.artifacts import create_progress_artifact, update_progress_artifact

from infra.nature_run.archive import AnalysisArchive
from infra.object_store import ObjectStore
from infra.settings import load_settings
from model.grid import Grid
from tasks.nature_run import NatureRunPlan, open_run, simulate_chunk, summarise

DEFAULT_START = datetime(2000, 9, 1, tzinfo=UTC)


@flow(name="nature-run", log_prints=False, persist_result=False)
def nature_run(
    years: float = 1.0,
    *,
    seed: int = 0,
    start: datetime = DEFAULT_START,
    spin_up_days: int = 122,
    prefix: str = "nature-run",
    store_root: str | None = None,
    resolution: float = 5.0,
    held_out_years: float = 0.0,
) -> str:
    """Run, or go on with, a nature run; an archive that is already there is only completed.

    Args:
        years: length after the spin-up, in years of 365 days.
        seed: of the initial perturbation; the run is deterministic apart from it.
        start: where the spin-up begins.
        spin_up_days: days from rest that are not archived.
        prefix: the archive's folder in the store.
        store_root: URL of the store; default the configured one.
        resolution: degrees of the grid on which statistics and climatology are made.
        held_out_years: the last so many years take no part in statistics and climatology.

    Returns:
        URL of the archive.
    """
    log = get_run_logger()
    archive = AnalysisArchive(store=_store(store_root), prefix=prefix)
    plan = NatureRunPlan(
        seed=seed,
        start=start if start.tzinfo else start.replace(tzinfo=UTC),
        spin_up=timedelta(days=spin_up_days),
        length=timedelta(days=round(years * 365)),
        held_out=timedelta(days=round(held_out_years * 365)),
    )
    log.info("nature run %s: seed %d, archived %s to %s", archive.store.url(prefix), seed, plan.begin, plan.end)
    progress = create_progress_artifact(progress=0.0, description=f"nature run {prefix}")

    simulation = open_run(archive, plan)
    while simulation.time < plan.end:
        reached = simulate_chunk(simulation, archive, plan)
        update_progress_artifact(artifact_id=progress, progress=100.0 * plan.share_done(reached))
        log.info("reached %s (%.0f %%)", f"{reached:%Y-%m-%dT%HZ}", 100.0 * plan.share_done(reached))

    files = summarise(archive, plan, Grid(resolution=resolution))
    log.info("statistics and climatology: %s", ", ".join(files))
    return archive.store.url(prefix)


def _store(root: str | None) -> ObjectStore:
    return ObjectStore(root=root) if root else load_settings().object_store()
