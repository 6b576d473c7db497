"""The steps of a training: read the archive, build the family, go through the updates, write the params file."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from pydantic import TypeAdapter

from infra.checkpoint_files import read_statistics
from infra.errors import FoldcastError
from infra.jax_runtime import hold_random_numbers
from infra.resources import host_memory_available
from infra.training_archive import StoredField, read_archive
from infra.training_checkpoints import TrainingCheckpoints
from infra.whole_files import write_whole
from model.checkpoint_file import CheckpointFile, FamilyConfig, read_checkpoint, write_checkpoint
from model.errors import InvalidFieldError
from model.gencast.gencast import gencast_graphs, gencast_network, gencast_structure, noise_basis
from model.graphcast import ModelConfig
from model.graphs.graph_network import Parameters
from model.grid import Grid
from model.networks import checkpoint_grid, graphcast_graphs, graphcast_network
from model.normalization import channel_scaling
from model.step import ModelStep
from model.task import TaskConfig
from model.training.curriculum import ExampleOrder, Stage
from model.training.examples import AnalysisSeries, accumulate_precipitation
from model.training.family_losses import EnsembleLoss, FamilyLoss, GenCastLoss, GraphCastLoss
from model.training.growth import grow
from model.training.losses import loss_weights
from model.training.optimizer import build_optimizer
from model.training.schedule import learning_rate
from model.training.training import TrainingState, initial_state
from tasks.training_evaluation import HeldOutSkill
from tasks.training_settings import TrainingSettings
from tasks.training_update import build_update

_TWELVE_HOURS = "total_precipitation_12hr"
_SIX_HOURS = "total_precipitation_6hr"
_SHARE_IN_MEMORY = 0.5
"""Of the free memory, that the analyses may take."""


@dataclass(frozen=True, kw_only=True)
class UpdateReport:
    """What an update gave.

    Args:
        update: its number, from 0.
        metrics: ``loss``, ``gradient_norm``, ``learning_rate`` and each variable's share of the loss.
        skill: scores of held-out forecasts after it, if it was followed by an evaluation.
        stopped: whether skill no longer grew and the training ends here.
    """

    update: int
    metrics: dict[str, float]
    skill: xr.Dataset | None = None
    stopped: bool = False


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """Everything read and built before the first update.

    Args:
        settings: of the training.
        checkpoint: family, task and configuration, with the parameters to start from.
        series: the examples.
        loss: of the family.
    """

    settings: TrainingSettings
    checkpoint: CheckpointFile
    series: AnalysisSeries
    loss: FamilyLoss

    @property
    def fingerprint(self) -> str:
        """Of everything that decides a parameter: settings, analyses, statistics, initial parameters.

        Where files lie is not among it, what they hold is; of analyses that stay on disk a few are taken.
        """
        places = {"archive", "statistics", "initialize_from", "output"}
        others = {"checkpoint_every", "evaluation", "device_memory"}
        settings = self.settings.model_dump(mode="json", exclude=places | others)
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
        few = np.array([0, self.series.times.size // 2, self.series.times.size - 1])
        fields = {
            name: field if isinstance(field, np.ndarray) else field[few]
            for name, field in self.series.fields.items()
        }
        scaling = vars(self.loss.model_step.scaling)
        content = (self.series.times, fields, dict(self.series.statics), scaling, self.checkpoint.params)
        for leaf in jax.tree.leaves(content):
            digest.update(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data)
        return digest.hexdigest()[:12]


def prepare(settings: TrainingSettings) -> Preparation:
    """Read what the training needs and build its family.

    Raises:
        FoldcastError: something is missing or does not fit: the archive's grid or levels are not the
            checkpoint's, statistics lack a variable, a configuration is none.
    """
    hold_random_numbers()
    grid = Grid(resolution=settings.resolution)
    task, config, params, old = _origin(settings, grid)
    series = read_series(settings.archive, task, grid, start=settings.start, end=settings.end)
    checkpoint = CheckpointFile(
        params=params or {},
        task=task,
        config=config,
        description=settings.description or (old.description if old else ""),
        license=settings.license or (old.license if old else ""),
    )
    loss, fresh = build_family(
        checkpoint,
        grid,
        settings.statistics,
        series.statics,
        variable_weights=settings.variable_weights,
        precision=settings.precision,
        key=jax.random.PRNGKey(settings.seed),
    )
    if not checkpoint.params:
        checkpoint = dataclasses.replace(checkpoint, params=fresh())
    return Preparation(settings=settings, checkpoint=checkpoint, series=series, loss=loss)


def read_series(
    archive: Path,
    task: TaskConfig,
    grid: Grid,
    *,
    start: Any = None,
    end: Any = None,
    in_memory: bool | None = None,
) -> AnalysisSeries:
    """A period of an archive as a series for a task; 12 h precipitation is summed where only 6 h is archived.

    Args:
        in_memory: whether the fields are; otherwise they are read example by example. None: if they take at most
            half the memory that is free.

    Raises:
        MissingDataError: see ``infra.training_archive.read_archive``.
        InvalidFieldError: the archive lies on another grid, or has gaps.
    """
    moving = {*task.time_inputs, *task.target_variables}
    summed = _TWELVE_HOURS in moving
    names = sorted(moving - {_TWELVE_HOURS} | ({_SIX_HOURS} if summed else set()))
    dataset = read_archive(
        archive, [*names, *task.statics], task.pressure_levels, start=start, end=end, load=False
    )
    if in_memory is None:
        in_memory = _float32_bytes(dataset) <= _SHARE_IN_MEMORY * host_memory_available()
    if in_memory:
        dataset = dataset.astype(np.float32).load()
    return series_of(dataset, task, grid, name=str(archive), stored=not in_memory)


def _float32_bytes(dataset: xr.Dataset) -> int:
    return 4 * sum(int(field.size) for field in dataset.values())


def series_of(
    dataset: xr.Dataset, task: TaskConfig, grid: Grid, *, name: str = "archive", stored: bool = False
) -> AnalysisSeries:
    """Six-hourly analyses as a series for a task.

    Args:
        name: of the dataset, for errors.
        stored: leave the fields on disk.

    Raises:
        InvalidFieldError: they lie on another grid, or have gaps.
    """
    mismatch = grid.mismatch(dataset)
    if mismatch:
        raise InvalidFieldError(f"{name}: the model works on {grid.resolution:g}°; {mismatch}")
    moving = {*task.time_inputs, *task.target_variables}

    def field(array: xr.DataArray) -> Any:
        array = array.transpose("time", ..., "latitude", "longitude")
        return StoredField(array) if stored else array.values

    fields = {
        variable: field(dataset[variable])
        for variable in sorted(moving | {_SIX_HOURS} if _TWELVE_HOURS in moving else moving)
        if variable in dataset
    }
    times = dataset["time"].values
    if _TWELVE_HOURS in moving and _TWELVE_HOURS not in fields:
        six_hours = {_SIX_HOURS: dataset[_SIX_HOURS].transpose("time", ...).values.astype(np.float32)}
        summed = accumulate_precipitation(six_hours, 12, timedelta(hours=6))
        times, later = times[1:], dataset.isel(time=slice(1, None))
        fields = {variable: field(later[variable]) for variable in fields if variable in moving} | {
            _TWELVE_HOURS: summed[1:]
        }
    statics = {
        variable: dataset[variable].transpose("latitude", "longitude").values.astype(np.float32)
        for variable in task.statics
    }
    return AnalysisSeries(task=task, grid=grid, times=times, fields=fields, statics=statics)


def updates(preparation: Preparation) -> Iterator[UpdateReport]:
    """Go through the curriculum, from the newest checkpoint if there is one; the average is published at the end.

    The params file ``{output}/params.npz`` is that of the best evaluation so far, or of the last update
    without evaluations.
    """
    settings = preparation.settings
    curriculum, config = settings.curriculum(), settings.optimizer_config()
    params = preparation.checkpoint.params
    try:
        optimizer = build_optimizer(config, lambda update: learning_rate(curriculum, update), params)
    except ValueError as error:
        raise FoldcastError(f"optimizer: {error}") from error
    shapes = functools.partial(_batch_shapes, preparation)
    steps = {}
    for members, loss in _losses(preparation).items():
        stages = [stage for stage in curriculum.stages if stage.ensemble_members == members]
        steps[members] = build_update(settings, loss, optimizer, params, stages, shapes)
    state = initial_state(params, optimizer)
    watch = _held_out_skill(preparation)
    with TrainingCheckpoints(settings.checkpoints, fingerprint=preparation.fingerprint) as checkpoints:
        state, notes = checkpoints.restore(state) or (state, {})
        if watch:
            watch.resume(notes)
            if watch.exhausted:
                return
        for update, batch in _batches(preparation, int(state.update)):
            state, metrics = steps[curriculum.stage_of(update).ensemble_members](state, batch)
            metrics["learning_rate"] = learning_rate(curriculum, update)
            values = {name: float(value) for name, value in metrics.items()}
            _require_finite(values, update)
            last = update + 1 == curriculum.updates
            skill = watch.scores(state.average, update) if watch and (watch.due(update) or last) else None
            better = skill is not None and watch is not None and watch.is_best(skill)
            if better or (watch is None and last):
                write_params(preparation, state)
            stopped = watch is not None and watch.exhausted
            if stopped or last or (update + 1) % settings.checkpoint_every == 0:
                checkpoints.save(update + 1, state, notes=watch.notes() if watch else {})
            yield UpdateReport(
                update=update,
                metrics=values,
                skill=skill,
                stopped=stopped,
            )
            if stopped:
                return


def _losses(preparation: Preparation) -> dict[int, FamilyLoss]:
    """The loss of each kind of stage, by its number of members."""
    own = preparation.loss
    losses: dict[int, FamilyLoss] = {}
    for members in {stage.ensemble_members for stage in preparation.settings.curriculum().stages}:
        if not members:
            losses[members] = own
        elif isinstance(own, GenCastLoss):
            losses[members] = EnsembleLoss(of=own, members=members)
        else:
            raise FoldcastError(
                f"ensemble_members: expected 0 for a model that draws no samples, got {members}"
            )
    return losses


def write_params(preparation: Preparation, state: TrainingState) -> Path:
    """Write the averaged parameters in the published format; the file appears only when whole."""
    params = jax.tree.map(lambda array: np.asarray(array, np.float32), state.average)
    checkpoint = dataclasses.replace(preparation.checkpoint, params=params)
    return write_whole(preparation.settings.output / "params.npz", write_checkpoint(checkpoint))


def _origin(
    settings: TrainingSettings, grid: Grid
) -> tuple[TaskConfig, FamilyConfig, Parameters | None, CheckpointFile | None]:
    """Task, configuration and parameters to start from."""
    if settings.initialize_from is None:
        try:
            return settings.new_task(), settings.new_model(), None, None
        except (ValueError, TypeError) as error:
            raise FoldcastError(f"task or model: not a configuration: {error}") from error
    old = read_checkpoint(settings.initialize_from.read_bytes(), name=settings.initialize_from.name)
    checkpoint_grid(old, grid)
    if settings.model is not None:
        try:
            old = grow(old, TypeAdapter(ModelConfig).validate_python(settings.model), seed=settings.seed)
        except (ValueError, TypeError) as error:
            raise FoldcastError(f"model: not a configuration: {error}") from error
    return old.task, old.config, old.params, old


def build_family(
    checkpoint: CheckpointFile,
    grid: Grid,
    statistics: Path,
    statics: Mapping[str, np.ndarray],
    *,
    variable_weights: Mapping[str, float] | None = None,
    precision: str = "float32",
    key: jax.Array | None = None,
) -> tuple[FamilyLoss, Callable[[], Any]]:
    """The family's loss on a grid, and what draws fresh parameters with the key.

    Args:
        statistics: folder of the ``*_by_level.nc`` files.
        statics: (latitude, longitude).

    Raises:
        FoldcastError: weights for what is no target, or statistics that lack something.
    """
    task, config = checkpoint.task, checkpoint.config
    weights = loss_weights(task, grid)
    chosen = dict(variable_weights or {})
    unknown = sorted(set(chosen) - set(weights.variable))
    if unknown:
        raise FoldcastError(f"variable_weights: expected targets {sorted(weights.variable)}, got {unknown}")
    scaling = channel_scaling(task, read_statistics(str(statistics)))
    common: dict[str, Any] = {
        "model_step": ModelStep(task=task, grid=grid, scaling=scaling),
        "weights": dataclasses.replace(weights, variable={**weights.variable, **chosen}),
        "statics": {name: jnp.asarray(field) for name, field in statics.items()},
        "precision": precision,
    }
    dtype, key = jnp.dtype(precision), jax.random.PRNGKey(0) if key is None else key
    if isinstance(config, ModelConfig):
        network = graphcast_network(config, task)
        structure = network.structure(graphcast_graphs(config, grid), dtype=dtype)
        return GraphCastLoss(
            network=network, structure=structure, **common
        ), lambda: network.initial_parameters(key)
    denoising = gencast_network(config, task, platform=jax.default_backend())
    return GenCastLoss(
        network=denoising,
        structure=gencast_structure(denoising, gencast_graphs(config, grid), dtype=dtype),
        basis={name: jnp.asarray(array) for name, array in noise_basis(grid).items()},
        **common,
    ), lambda: denoising.initial_parameters(key)


def _batch(preparation: Preparation, update: int) -> Any:
    curriculum, settings = preparation.settings.curriculum(), preparation.settings
    stage = curriculum.stage_of(update)
    order = ExampleOrder(seed=settings.seed, examples=preparation.series.count(stage.rollout_steps))
    numbers = order.numbers(curriculum.examples_before(update), stage.examples_per_update)
    batch = preparation.series.batch(numbers, stage.rollout_steps)
    shape = (stage.accumulate, stage.batch_size)
    return jax.tree.map(lambda array: array.reshape(*shape, *array.shape[1:]), batch)


def _batches(preparation: Preparation, first: int) -> Iterator[tuple[int, Any]]:
    """Every update with its batch; the next one is read while the last is computed on."""
    numbers = range(first, preparation.settings.curriculum().updates)
    with ThreadPoolExecutor(max_workers=1) as reader:
        ahead = {first: reader.submit(_batch, preparation, first)} if numbers else {}
        for update in numbers:
            batch = ahead.pop(update).result()
            if update + 1 in numbers:
                ahead[update + 1] = reader.submit(_batch, preparation, update + 1)
            yield update, batch


def _require_finite(metrics: Mapping[str, float], update: int) -> None:
    """Before a state that is lost replaces a good one."""
    wrong = {name: value for name, value in metrics.items() if not np.isfinite(value)}
    if wrong:
        raise FoldcastError(
            f"update {update}: expected finite losses and gradients, got {wrong}; the checkpoints before it are kept; "
            "a lower learning rate or clip_norm may help, or look for values in the archive that are none"
        )


def _held_out_skill(preparation: Preparation) -> HeldOutSkill | None:
    settings = preparation.settings
    if settings.evaluation is None:
        return None
    held_out = read_series(
        settings.evaluation.archive or settings.archive,
        preparation.checkpoint.task,
        preparation.series.grid,
        start=settings.evaluation.start,
        end=settings.evaluation.end,
    )
    return HeldOutSkill.of(settings, preparation.series, held_out, preparation.loss)


def _batch_shapes(preparation: Preparation, stage: Stage) -> Any:
    example = preparation.series.batch(np.array([0]), stage.rollout_steps)
    shape = (stage.accumulate, stage.batch_size)
    return jax.tree.map(lambda array: jax.ShapeDtypeStruct((*shape, *array.shape[1:]), array.dtype), example)
