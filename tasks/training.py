"""The steps of a training: read the archive, build the family, go through the updates, write the params file."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from infra.checkpoint_files import read_statistics
from infra.errors import FoldcastError
from infra.training_archive import read_archive
from infra.training_checkpoints import TrainingCheckpoints
from model.checkpoint_file import CheckpointFile, FamilyConfig, read_checkpoint, write_checkpoint
from model.errors import InvalidFieldError
from model.gencast.gencast import gencast_graphs, gencast_network, gencast_structure, noise_basis
from model.graphcast import ModelConfig
from model.grid import Grid
from model.networks import checkpoint_grid, graphcast_graphs, graphcast_network
from model.normalization import channel_scaling
from model.step import ModelStep
from model.task import TaskConfig
from model.training.curriculum import ExampleOrder
from model.training.evaluation import Forecast, evaluate, make_forecast
from model.training.examples import AnalysisSeries, accumulate_precipitation
from model.training.family_losses import FamilyLoss, GenCastLoss, GraphCastLoss
from model.training.losses import loss_weights
from model.training.optimizer import Params, build_optimizer
from model.training.schedule import learning_rate
from model.training.training import TrainingState, initial_state, make_update
from tasks.training_settings import EvaluationSettings, TrainingSettings

_TWELVE_HOURS = "total_precipitation_12hr"
_SIX_HOURS = "total_precipitation_6hr"


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
        """Of everything that decides a parameter: settings, archive period, initial parameters."""
        settings = self.settings.model_dump(mode="json", exclude={"output", "checkpoint_every", "evaluation"})
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
        digest.update(np.ascontiguousarray(self.series.times).tobytes())
        for leaf in jax.tree.leaves(self.checkpoint.params):
            digest.update(np.asarray(leaf).tobytes())
        return digest.hexdigest()[:12]


def prepare(settings: TrainingSettings) -> Preparation:
    """Read what the training needs and build its family.

    Raises:
        FoldcastError: something is missing or does not fit: the archive's grid or levels are not the
            checkpoint's, statistics lack a variable, a configuration is none.
    """
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
        rematerialize_steps=settings.rematerialize_steps,
        key=jax.random.PRNGKey(settings.seed),
    )
    if not checkpoint.params:
        checkpoint = dataclasses.replace(checkpoint, params=fresh())
    return Preparation(settings=settings, checkpoint=checkpoint, series=series, loss=loss)


def read_series(
    archive: Path, task: TaskConfig, grid: Grid, *, start: Any = None, end: Any = None
) -> AnalysisSeries:
    """A period of an archive as a series for a task; 12 h precipitation is summed where only 6 h is archived.

    Raises:
        MissingDataError: see ``infra.training_archive.read_archive``.
        InvalidFieldError: the archive lies on another grid, or has gaps.
    """
    moving = {*task.time_inputs, *task.target_variables}
    summed = _TWELVE_HOURS in moving
    names = sorted(moving - {_TWELVE_HOURS} | ({_SIX_HOURS} if summed else set()))
    dataset = read_archive(archive, [*names, *task.statics], task.pressure_levels, start=start, end=end)
    return series_of(dataset, task, grid, name=str(archive))


def series_of(dataset: xr.Dataset, task: TaskConfig, grid: Grid, *, name: str = "archive") -> AnalysisSeries:
    """Six-hourly analyses in memory as a series for a task.

    Raises:
        InvalidFieldError: they lie on another grid, or have gaps.
    """
    mismatch = grid.mismatch(dataset)
    if mismatch:
        raise InvalidFieldError(f"{name}: the model works on {grid.resolution:g}°; {mismatch}")
    moving = {*task.time_inputs, *task.target_variables}
    fields = {
        variable: dataset[variable].transpose("time", ..., "latitude", "longitude").values
        for variable in sorted(moving | {_SIX_HOURS} if _TWELVE_HOURS in moving else moving)
        if variable in dataset
    }
    times = dataset["time"].values
    if _TWELVE_HOURS in moving and _TWELVE_HOURS not in fields:
        fields[_TWELVE_HOURS] = accumulate_precipitation(fields, 12, timedelta(hours=6))
        fields = {variable: field[1:] for variable, field in fields.items() if variable in moving}
        times = times[1:]
    statics = {
        variable: dataset[variable].transpose("latitude", "longitude").values for variable in task.statics
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
    optimizer = build_optimizer(config, lambda update: learning_rate(curriculum, update), params)
    step = make_update(preparation.loss, optimizer, config, seed=settings.seed)
    state = initial_state(params, optimizer)
    watch = _Evaluation.of(preparation)
    with TrainingCheckpoints(
        settings.output / "checkpoints", fingerprint=preparation.fingerprint
    ) as checkpoints:
        state, notes = checkpoints.restore(state) or (state, {})
        if watch:
            watch.resume(notes)
        for update in range(int(state.update), curriculum.updates):
            state, metrics = step(state, _batch(preparation, update))
            metrics["learning_rate"] = learning_rate(curriculum, update)
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
                metrics={name: float(value) for name, value in metrics.items()},
                skill=skill,
                stopped=stopped,
            )
            if stopped:
                return


def write_params(preparation: Preparation, state: TrainingState) -> Path:
    """Write the averaged parameters in the published format; the file appears only when whole."""
    params = jax.tree.map(lambda array: np.asarray(array, np.float32), state.average)
    path = preparation.settings.output / "params.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".partial")
    temporary.write_bytes(write_checkpoint(dataclasses.replace(preparation.checkpoint, params=params)))
    return temporary.replace(path)


def _origin(
    settings: TrainingSettings, grid: Grid
) -> tuple[TaskConfig, FamilyConfig, Params | None, CheckpointFile | None]:
    """Task, configuration and parameters to start from."""
    if settings.initialize_from is None:
        try:
            return settings.new_task(), settings.new_model(), None, None
        except (ValueError, TypeError) as error:
            raise FoldcastError(f"task or model: not a configuration: {error}") from error
    old = read_checkpoint(settings.initialize_from.read_bytes(), name=settings.initialize_from.name)
    checkpoint_grid(old, grid)
    return old.task, old.config, old.params, old


def build_family(
    checkpoint: CheckpointFile,
    grid: Grid,
    statistics: Path,
    statics: Mapping[str, np.ndarray],
    *,
    variable_weights: Mapping[str, float] | None = None,
    precision: str = "float32",
    rematerialize_steps: bool = False,
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
            network=network, structure=structure, rematerialize_steps=rematerialize_steps, **common
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


@dataclass
class _Evaluation:
    """Held-out skill in the course of a training, and when to stop."""

    settings: EvaluationSettings
    series: AnalysisSeries
    climatology: xr.Dataset | None
    forecast: Forecast
    seed: int
    best: float = np.inf
    without_gain: int = 0

    @classmethod
    def of(cls, preparation: Preparation) -> _Evaluation | None:
        settings = preparation.settings.evaluation
        if settings is None:
            return None
        series = read_series(
            settings.archive or preparation.settings.archive,
            preparation.checkpoint.task,
            preparation.series.grid,
            start=settings.start,
            end=settings.end,
        )
        if series.count(settings.steps) < 1:
            raise FoldcastError(
                f"evaluation: expected a period longer than {settings.steps} model steps, "
                f"got {series.times.size} analyses"
            )
        climatology = None
        if settings.climatology is not None:
            with xr.open_dataset(settings.climatology) as opened:
                climatology = opened.load()
        return cls(
            settings=settings,
            series=series,
            climatology=climatology,
            forecast=make_forecast(preparation.loss, settings.variables, steps=settings.steps),
            seed=preparation.settings.seed,
        )

    def notes(self) -> dict[str, Any]:
        """What a resumed training must know."""
        return {"best": self.best if np.isfinite(self.best) else None, "without_gain": self.without_gain}

    def resume(self, notes: Mapping[str, Any]) -> None:
        """Go on from the notes of a checkpoint."""
        if notes.get("best") is not None:
            self.best, self.without_gain = notes["best"], notes["without_gain"]

    def due(self, update: int) -> bool:
        """Whether an evaluation follows this update."""
        return (update + 1) % self.settings.every == 0

    def scores(self, params: Params, update: int) -> xr.Dataset:
        """Scores of the forecasts with these parameters."""
        count = self.series.count(self.settings.steps)
        starts = np.unique(np.linspace(0, count - 1, self.settings.starts).astype(int))
        return evaluate(
            self.forecast,
            params,
            self.series,
            starts.tolist(),
            self.settings.variables,
            steps=self.settings.steps,
            members=self.settings.members,
            seed=self.seed,
            climatology=self.climatology,
        )

    def is_best(self, skill: xr.Dataset) -> bool:
        """Whether the mean RMSE over lead times of the deciding field fell; counts those that did not."""
        rmse = float(skill["rmse"].sel(field=self.settings.field).mean())
        self.without_gain = 0 if rmse < self.best else self.without_gain + 1
        better = rmse < self.best
        self.best = min(self.best, rmse)
        return better

    @property
    def exhausted(self) -> bool:
        """Whether there was no gain for as many evaluations as patience has."""
        return 0 < self.settings.patience <= self.without_gain
