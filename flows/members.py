"""One block of members on one worker.

The worker reads what it needs from the store: the run's description, the initial condition, and how far each
of its members is. It may be killed at any moment; whoever runs the block next continues.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prefect import flow

from infra import layout
from infra.initial_conditions import load_initial_condition
from infra.manifests import load_run_description
from infra.settings import Settings, load_settings
from infra.watchdog import Watchdog
from model.cycle import Cycle, parse_init_time
from tasks.models import member_starter, statics_of
from tasks.perturbations import member_conditions, member_parameters
from tasks.report_progress import reported
from tasks.rollout import BlockRollout, LoadedModels, ProgressCallback, RolloutOptions
from tasks.run_description import describe_run, require_same
from tasks.run_plan import load_fitting_models

_PREPARING_ALLOWANCE = 2.0
"""Reaching the devices, loading the model and the first initial conditions, against the limit of a step."""


def prepare_block(
    cycle: Cycle,
    *,
    run: str,
    members: Sequence[int],
    steps: int,
    settings: Settings,
    load: Callable[[], LoadedModels] | None = None,
    progress: ProgressCallback | None = None,
    watchdog: Watchdog | None = None,
) -> BlockRollout:
    """Everything of a block but the computation: checks, open work, the first members' initial states.

    Args:
        cycle: the cycle.
        run: short name of the run, whose description and forecast store exist.
        members: global member numbers.
        steps: model steps each member shall have.
        settings: the store, and how this worker runs the model.
        load: gives the model on each local device; default: loads it, if this machine can hold it.
        progress: called after every step.
        watchdog: ends the process when preparing, a step or a write makes no progress; None: nothing does.

    Raises:
        CheckpointMismatchError: this worker would compute other values than the run was planned with: another
            model, configuration, code or initial condition.
        DoesNotFitError: this machine lacks the memory; the message names settings that would fit.
        StoreError: the run's description or initial condition is missing.
        TransientSourceError: the store kept failing.
    """
    store = settings.store.open()
    model = settings.configured_model(cycle.model)
    watchdog = watchdog or Watchdog(None)
    with watchdog.watching("preparing", allowance=_PREPARING_ALLOWANCE):
        description = load_run_description(store, cycle, run)
        initial_condition = load_initial_condition(store, cycle)
        models = load() if load is not None else load_fitting_models(cycle.model, settings)
        own = describe_run(
            cycle, settings, model_sha256=models[0].sha256, initial_condition=initial_condition
        )
        require_same(description, own)
        block = BlockRollout(
            forecasters=models,
            store=store,
            description=description,
            members=members,
            steps=steps,
            initial_state=member_starter(description, member_conditions(cycle, settings, initial_condition)),
            statics=statics_of(initial_condition, cycle, models[0].task.statics),
            parameters=member_parameters(description, models[0]),
            options=RolloutOptions(
                checkpoint_every=model.checkpoint_every, members_per_program=model.members_per_program
            ),
            progress=progress,
            watchdog=watchdog,
        )
        block.prepare()
    return block


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
    limit = settings.configured_model(model).step_timeout.total_seconds()
    with (
        Watchdog(limit) as watchdog,
        reported(
            settings.store.open(),
            layout.block_progress(cycle, run, block),
            block=block,
            seconds=settings.run.heartbeat.total_seconds(),
        ) as progress,
    ):
        prepare_block(
            cycle,
            run=run,
            members=members,
            steps=steps,
            settings=settings,
            progress=progress,
            watchdog=watchdog,
        ).run()
