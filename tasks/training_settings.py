"""What a training's configuration file says."""

from __future__ import annotations

import tomllib
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from infra.errors import FoldcastError
from model.gencast.configs import GenCastConfig
from model.graphcast import ModelConfig
from model.task import TaskConfig
from model.training.curriculum import Curriculum, Stage
from model.training.optimizer import OptimizerConfig
from model.training.parallel import DeviceLayout
from model.training.rematerialisation import Rematerialisation


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class EvaluationSettings(_Section):
    """Forecasts from held-out dates in the course of training."""

    archive: Path | None = Field(None, description="Zarr store; default: the training's.")
    start: datetime | None = Field(None, description="First analysis (UTC).")
    end: datetime | None = Field(None, description="Last analysis (UTC).")
    climatology: Path | None = Field(None, description="Harmonic climatology, for anomaly correlations.")
    variables: tuple[str, ...] = Field(("geopotential", "2m_temperature"), description="What is scored.")
    field: str = Field("geopotential 500", description="Whose RMSE decides when to stop.")
    starts: int = Field(12, ge=1, description="Forecasts of one evaluation, evenly over the period.")
    steps: int = Field(12, ge=1, description="Model steps of each forecast.")
    members: int = Field(1, ge=1, description="Members of each forecast.")
    every: int = Field(1000, ge=1, description="Updates between evaluations.")
    patience: int = Field(0, ge=0, description="Evaluations without gain before training stops; 0: never.")


class TrainingSettings(_Section):
    """One training, from nothing or from a published checkpoint."""

    archive: Path = Field(..., description="Zarr store of analyses.")
    start: datetime | None = Field(None, description="First analysis used (UTC).")
    end: datetime | None = Field(None, description="Last analysis used (UTC).")
    resolution: float = Field(..., gt=0, description="Of the archive's grid, degrees.")
    statistics: Path = Field(..., description="Folder of the *_by_level.nc normalisation statistics.")
    output: Path = Field(..., description="Folder of checkpoints and results.")
    family: Literal["graphcast", "gencast"] | None = Field(None, description="Of a new model.")
    initialize_from: Path | None = Field(
        None, description="Params file to fine-tune or, with a larger model, to grow."
    )
    task: dict[str, Any] | None = Field(None, description="task_config of a new model.")
    model: dict[str, Any] | None = Field(None, description="Configuration of a new model, as published.")
    stages: tuple[dict[str, Any], ...] = Field(..., min_length=1, description="See Stage.")
    optimizer: dict[str, Any] = Field(default_factory=dict, description="See OptimizerConfig.")
    variable_weights: dict[str, float] = Field(default_factory=dict, description="Other than published.")
    precision: Literal["float32", "bfloat16"] = Field("float32", description="Of weights and activations.")
    rematerialise: Literal["auto"] | dict[str, Any] = Field(
        default_factory=dict, description="What is not kept for the backward pass, see Rematerialisation."
    )
    device_memory: int | None = Field(
        None,
        gt=0,
        description="Bytes for `auto` to fit into; default: what the device, or this machine, has.",
    )
    devices: dict[str, int] = Field(
        default_factory=dict, description="See DeviceLayout; default: one device."
    )
    seed: int = Field(0, ge=0, description="Of fresh parameters, order of examples, noise.")
    checkpoint_every: int = Field(200, ge=1, description="Updates between checkpoints.")
    description: str = Field("", description="Written into the params file.")
    license: str = Field("", description="Written into the params file.")
    evaluation: EvaluationSettings | None = Field(None, description="Held-out skill.")

    @model_validator(mode="after")
    def _new_or_old(self) -> TrainingSettings:
        new = (self.family, self.task, self.model)
        if self.initialize_from is None and None in new:
            raise ValueError("expected family, task and model for a new model, or initialize_from")
        if self.initialize_from is not None and (self.family, self.task) != (None, None):
            raise ValueError("family and task come from the checkpoint that initialize_from names")
        layout, batches = self.layout(), [stage.batch_size for stage in self.curriculum().stages]
        if any(size % layout.data for size in batches):
            raise ValueError(f"batch_size: expected multiples of {layout.data} devices, got {batches}")
        return self

    def curriculum(self) -> Curriculum:
        """The stages."""
        return Curriculum(stages=tuple(Stage(**stage) for stage in self.stages))

    def optimizer_config(self) -> OptimizerConfig:
        """The optimiser."""
        return TypeAdapter(OptimizerConfig).validate_python(self.optimizer)

    def layout(self) -> DeviceLayout:
        """How devices share a batch."""
        return TypeAdapter(DeviceLayout).validate_python(self.devices)

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints to go on from."""
        return self.output / "checkpoints"

    def chosen_rematerialisation(self) -> Rematerialisation | None:
        """What is not kept; None if it is to be chosen."""
        if self.rematerialise == "auto":
            return None
        return TypeAdapter(Rematerialisation).validate_python(self.rematerialise)

    def new_task(self) -> TaskConfig:
        """The task of a new model."""
        return TypeAdapter(TaskConfig).validate_python(self.task)

    def new_model(self) -> ModelConfig | GenCastConfig:
        """The configuration of a new model, or of the larger one to grow into."""
        kind: TypeAdapter[Any] = TypeAdapter(GenCastConfig if self.family == "gencast" else ModelConfig)
        config: ModelConfig | GenCastConfig = kind.validate_python(self.model)
        return config


def read_training_settings(path: Path) -> TrainingSettings:
    """The settings of a TOML file; relative paths in it are relative to its folder.

    Raises:
        FoldcastError: no such file, or it does not say what it should.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        settings = TrainingSettings.model_validate(content)
        settings.optimizer_config(), settings.chosen_rematerialisation()
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc'])) or 'file'}: {problem['msg']}"
            for problem in error.errors(include_input=False, include_url=False)
        )
        raise FoldcastError(f"{path}: not the configuration of a training: {problems}") from None
    except (OSError, tomllib.TOMLDecodeError, ValueError, TypeError) as error:
        raise FoldcastError(f"{path}: not the configuration of a training: {error}") from error
    return _anchored(settings, path.resolve().parent)


def _anchored(settings: TrainingSettings, folder: Path) -> TrainingSettings:
    def anchor(section: Any, names: tuple[str, ...]) -> dict[str, Path]:
        paths = {name: getattr(section, name) for name in names}
        return {name: folder / path.expanduser() for name, path in paths.items() if path is not None}

    update: dict[str, Any] = anchor(settings, ("archive", "statistics", "output", "initialize_from"))
    if settings.evaluation is not None:
        update["evaluation"] = settings.evaluation.model_copy(
            update=anchor(settings.evaluation, ("archive", "climatology"))
        )
    return settings.model_copy(update=update)
