"""What a configured model is, read from its checkpoint without making it ready to run."""

from __future__ import annotations

from dataclasses import dataclass

from infra.checkpoint_files import read_checkpoint as checkpoint_path
from infra.settings import ModelSettings
from model.checkpoint_file import read_checkpoint
from model.grid import Grid
from model.networks import checkpoint_grid
from model.task import TaskConfig
from tasks.models import load_models


@dataclass(frozen=True, kw_only=True)
class ModelIdentity:
    """A model's family, what it takes and gives, and its grid."""

    family: str
    task: TaskConfig
    grid: Grid


def model_identity(model: ModelSettings) -> ModelIdentity:
    """The identity of a configured model.

    Raises:
        CheckpointFileError: its params file is not there or not what it should be.
        UnknownOptionError: its loader names no function.
    """
    if model.loader is not None:
        forecaster = load_models(model, devices=1)[0]
        return ModelIdentity(family=forecaster.family, task=forecaster.task, grid=forecaster.grid)
    path = checkpoint_path(model.checkpoint)
    checkpoint = read_checkpoint(path.read_bytes(), name=path.name)
    named = Grid(resolution=model.resolution) if model.resolution is not None else None
    return ModelIdentity(
        family=checkpoint.family, task=checkpoint.task, grid=checkpoint_grid(checkpoint, named)
    )
