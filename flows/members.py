"""One block of members on one worker.

The worker reads what it needs from the store: the run's description, the initial condition, and how far each
of its members is. It may be killed at any moment; whoever runs the block next continues.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prefect import flow

from infra import layout
from infra.dataset_checksum import dataset_sha256
from infra.errors import CheckpointMismatchError
from infra.initial_conditions import load_initial_condition
from infra.manifests import MemberManifest, load_run_description
from infra.settings import Settings, load_settings
from model.cycle import Cycle, parse_init_time
from tasks.models import cache_folder, member_starter, statics_of, statistics_sha256
from tasks.perturbations import member_conditions
from tasks.report_progress import reported
from tasks.rollout import LoadedModels, ProgressCallback, RolloutOptions, compute_members
from tasks.run_plan import load_fitting_models


def run_block(
    cycle: Cycle,
    *,
    run: str,
    members: Sequence[int],
    steps: int,
    settings: Settings,
    load: Callable[[], LoadedModels] | None = None,
    progress: ProgressCallback | None = None,
    watched: bool = False,
) -> tuple[MemberManifest, ...]:
    """Compute a block's members, each from where it stopped.

    Args:
        cycle: the cycle.
        run: short name of the run, whose description and forecast store exist.
        members: global member numbers.
        steps: model steps each member shall have.
        settings: the store, and how this worker runs the model.
        load: gives the model on each local device; default: loads it, if this machine can hold it.
        progress: called after every step.
        watched: whether the process ends itself when a step makes no progress within the model's limit.

    Raises:
        CheckpointMismatchError: this worker's model or the stored initial condition is not the run's.
        DoesNotFitError: this machine lacks the memory; the message names settings that would fit.
        StoreError: the run's description or initial condition is missing.
        TransientSourceError: the store kept failing.
    """
    store = settings.store.open()
    model = settings.configured_model(cycle.model)
    description = load_run_description(store, cycle, run)
    initial_condition = load_initial_condition(store, cycle)
    found = dataset_sha256(initial_condition)
    if found != description.initial_condition_sha256:
        raise CheckpointMismatchError(
            f"{cycle}: run {run} starts from initial condition {description.initial_condition_sha256[:12]}…, "
            f"the stored one is {found[:12]}…"
        )
    statistics = statistics_sha256(model, cache=cache_folder(settings))
    if statistics != description.statistics_sha256:
        raise CheckpointMismatchError(
            f"{cycle}: run {run} was planned with statistics {description.statistics_sha256[:12]}…, "
            f"this worker has {statistics[:12]}…"
        )
    models = load() if load is not None else load_fitting_models(cycle.model, settings)
    return compute_members(
        models,
        store=store,
        description=description,
        members=members,
        steps=steps,
        initial_state=member_starter(description, member_conditions(cycle, settings, initial_condition)),
        statics=statics_of(initial_condition, cycle, models[0].task.statics),
        options=RolloutOptions(
            checkpoint_every=model.checkpoint_every,
            members_per_program=model.members_per_program,
            step_limit_seconds=model.step_timeout.total_seconds() if watched else None,
        ),
        progress=progress,
    )


@flow(name="members", log_prints=True, validate_parameters=True)
def members(model: str, init_time: str, run: str, block: int, members: list[int], steps: int) -> None:
    """Compute one block of a cycle's members on this worker.

    Args:
        model: name of the configured model.
        init_time: start of the forecast.
        run: short name of the run.
        block: position of the block in its cycle.
        members: global member numbers.
        steps: model steps each member shall have.
    """
    settings = load_settings()
    cycle = Cycle(model=model, init_time=parse_init_time(init_time))
    with reported(
        settings.store.open(),
        layout.block_progress(cycle, run, block),
        block=block,
        seconds=settings.run.heartbeat.total_seconds(),
    ) as progress:
        run_block(
            cycle, run=run, members=members, steps=steps, settings=settings, progress=progress, watched=True
        )
