"""The controller: describe the run, hand out its blocks, gather its members.

Blocks run in this process (the embedded default) or on whichever worker pulls them from a work pool. The
controller keeps nothing in memory that it could not find again in the store or on the server: started again
after its own death it goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import FlowRunContext
from prefect.futures import wait
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.tasks import exponential_backoff

from flows.members import prepare_block
from infra import layout
from infra.events import raise_event
from infra.forecast_store import create_forecast_store
from infra.initial_conditions import load_initial_condition
from infra.manifests import RunDescription
from infra.settings import Settings, load_settings
from model.cycle import Block, Cycle, parse_init_time, plan_blocks
from model.task import TaskConfig
from tasks.blocks import BlockRefusedError, HandOut, compute_block_elsewhere, is_complete
from tasks.gather import Gathered, gather_members, require_enough, save_ensemble_manifest
from tasks.model_identity import model_identity
from tasks.models import cache_folder
from tasks.report_progress import load_shown
from tasks.rollout import BlockRollout, LoadedModels, ProgressCallback, RolloutProgress
from tasks.run_description import describe_run
from tasks.run_plan import load_fitting_models

_LOAD_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class EnsembleResult:
    """A gathered ensemble.

    Args:
        cycle: its cycle.
        run: short name of the run.
        forecast_store: key of the forecast store.
        steps: number of model steps.
        members: global numbers of the members that are complete and verified.
        missing: what is wrong with each member that was given up; empty unless the policy allows it.
    """

    cycle: Cycle
    run: str
    forecast_store: str
    steps: int
    members: tuple[int, ...]
    missing: dict[int, str]


def forecast_ensemble(
    cycle: Cycle,
    settings: Settings,
    *,
    members: int | None = None,
    steps: int | None = None,
    progress: ProgressCallback | None = None,
    queue: str | None = None,
) -> EnsembleResult:
    """Compute all members of a cycle whose initial condition is stored, and verify them.

    What is complete already is not computed again, so calling this after any interruption finishes the work.

    Args:
        cycle: the cycle.
        settings: store, model and how blocks are submitted.
        members: ensemble size; default the model's.
        steps: model steps; default the model's.
        progress: called after every step of a block that runs in this process.
        queue: work queue of blocks that are submitted; default the deployment's own.

    Raises:
        IncompleteCycleError: fewer members are whole than the policy requires; an event was raised.
        StoreError: there is no initial condition.
    """
    model = settings.configured_model(cycle.model)
    members, steps = members or model.members, steps or model.steps
    store = settings.store.open()
    identity = model_identity(model, cache=cache_folder(settings))
    description = describe_run(
        cycle,
        settings,
        model_sha256=identity.sha256,
        initial_condition=load_initial_condition(store, cycle),
    )
    description.save(store)
    create_forecast_store(
        store,
        layout.forecast_store(cycle, description.run),
        task=identity.task,
        grid=identity.grid,
        init_time=cycle.init_time,
        members=members,
        steps=steps,
        attrs={"model": cycle.model, "run": description.run, "model_description": identity.description},
    )
    load = cache(partial(load_fitting_models, cycle.model, settings))

    def compute(
        numbers: Sequence[int], *, repair: bool = False, whole: tuple[int, ...] = ()
    ) -> dict[int, str]:
        blocks = plan_blocks(numbers, block_size=model.block_size)
        if settings.run.submission == "in-process":
            if not repair:
                done = {
                    block: is_complete(store, cycle, run=description.run, members=block.members, steps=steps)
                    for block in blocks
                }
                blocks = tuple(block for block in blocks if not done[block])
                whole = tuple(member for block in done if done[block] for member in block.members)
            told = partial(_with_found, progress, whole) if progress else None
            return _compute_here(cycle, description.run, blocks, steps, settings, load, told)
        verified = None
        if repair:

            def verified(block: Block) -> bool:
                return not _gather(settings, description, identity.task, block.members, steps, {}).problems

        how = HandOut(
            deployment=f"members/{settings.run.work_pool}",
            queue=queue,
            poll_seconds=settings.run.poll.total_seconds(),
            silence_seconds=settings.run.lost_after.total_seconds(),
            start_seconds=settings.run.start_within.total_seconds(),
        )
        return _compute_elsewhere(cycle, description.run, blocks, steps, settings, how, verified)

    with _event_if_given_up(cycle, description.run):
        failures = compute(range(members))
        gathered = _gather(settings, description, identity.task, range(members), steps, failures)
        damaged = [member for member in gathered.problems if member not in failures]
        if damaged:
            failures |= compute(damaged, repair=True, whole=gathered.members)
            gathered = _gather(settings, description, identity.task, range(members), steps, failures)
        save_ensemble_manifest(store, description, gathered, steps=steps)
        require_enough(gathered, cycle, members=members, require=model.require)
    return EnsembleResult(
        cycle=cycle,
        run=description.run,
        forecast_store=layout.forecast_store(cycle, description.run),
        steps=steps,
        members=gathered.members,
        missing=gathered.problems,
    )


@flow(name="ensemble")
def ensemble(model: str, init_time: str, members: int | None = None, steps: int | None = None) -> None:
    """Compute all members of a cycle whose initial condition is stored.

    Args:
        model: name of the configured model.
        init_time: start of the forecast.
        members: ensemble size; default the model's.
        steps: model steps; default the model's.
    """
    cycle = Cycle(model=model, init_time=parse_init_time(init_time))
    forecast_ensemble(cycle, load_settings(), members=members, steps=steps)


def _with_found(progress: ProgressCallback, whole: tuple[int, ...], latest: RolloutProgress) -> None:
    progress(replace(latest, found_whole=whole))


@contextmanager
def _event_if_given_up(cycle: Cycle, run: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise_event("incomplete", cycle, run=run, reason=f"{type(error).__name__}: {error}")
        raise


def _gather(
    settings: Settings,
    description: RunDescription,
    task: TaskConfig,
    members: Sequence[int],
    steps: int,
    failures: dict[int, str],
) -> Gathered:
    gathered = gather_members(
        settings.store.open(),
        description.cycle,
        run=description.run,
        task=task,
        members=members,
        steps=steps,
    )
    problems = {member: failures.get(member, problem) for member, problem in gathered.problems.items()}
    return Gathered(manifests=gathered.manifests, problems=problems)


def _compute_here(
    cycle: Cycle,
    run: str,
    blocks: Sequence[Block],
    steps: int,
    settings: Settings,
    load: Callable[[], LoadedModels],
    progress: ProgressCallback | None,
) -> dict[int, str]:
    """Blocks one after the other in this process, the next one prepared while the device has this one.

    In a flow each is a task that the UI shows.
    """

    def prepare(block: Block) -> BlockRollout:
        return prepare_block(
            cycle,
            run=run,
            members=block.members,
            steps=steps,
            settings=settings,
            load=load,
            progress=progress,
        )

    def compute(prepared: Future[BlockRollout]) -> None:
        prepared.result().run()

    failures: dict[int, str] = {}
    with ThreadPoolExecutor(1, "next-block") as ahead:
        upcoming = [ahead.submit(prepare, block) for block in blocks[:1]]
        for number, block in enumerate(blocks):
            prepared = upcoming.pop()
            upcoming += [ahead.submit(prepare, following) for following in blocks[number + 1 : number + 2]]
            try:
                if FlowRunContext.get() is None:
                    compute(prepared)
                else:
                    shown = task(name=f"block-{block.index}", cache_policy=NO_CACHE, persist_result=False)
                    shown(compute)(prepared)
            except Exception as error:
                if settings.configured_model(cycle.model).require == "all":
                    raise
                failures |= dict.fromkeys(block.members, f"{type(error).__name__}: {error}")
    return failures


def _compute_elsewhere(
    cycle: Cycle,
    run: str,
    blocks: Sequence[Block],
    steps: int,
    settings: Settings,
    how: HandOut,
    verified: Callable[[Block], bool] | None,
) -> dict[int, str]:
    """Blocks on the workers of a pool; returns what became of the members of those that were given up."""
    attempts = settings.run.block_attempts

    @task(
        name="block",
        task_run_name="block-{index}",
        retries=attempts - 1,
        retry_delay_seconds=exponential_backoff(settings.run.retry_delay.total_seconds()),
        retry_jitter_factor=0.5,
        retry_condition_fn=_may_be_cured,
        cache_policy=NO_CACHE,
        persist_result=False,
    )
    def submit(index: int, members: tuple[int, ...]) -> None:
        block = Block(index=index, members=members)
        compute_block_elsewhere(
            settings.store.open(),
            cycle,
            run=run,
            block=block,
            steps=steps,
            how=how,
            done=partial(verified, block) if verified else None,
            purpose="repair" if verified else "compute",
        )

    @flow(
        name="blocks",
        flow_run_name=f"{cycle.model}-{cycle.identifier}-blocks",
        task_runner=ThreadPoolTaskRunner(max_workers=settings.run.workers_at_once),  # type: ignore[arg-type]
        persist_result=False,
    )
    def hand_out_all() -> dict[int, str]:
        futures = [(block, submit.submit(block.index, block.members)) for block in blocks]
        signs = [layout.block_progress(cycle, run, block.index) for block in blocks]
        key = f"load-{cycle.model}-{cycle.identifier.lower()}"
        with load_shown(settings.store.open(), signs, key=key, seconds=_LOAD_SECONDS):
            wait([future for _, future in futures])
        return {
            member: str(future.state.message)
            for block, future in futures
            if not future.state.is_completed()
            for member in block.members
        }

    return hand_out_all()


def _may_be_cured(_: object, __: TaskRun, state: State[object]) -> bool:
    return not isinstance(state.result(raise_on_failure=False), BlockRefusedError)
