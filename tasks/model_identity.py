"""What a configured model is, read from its checkpoint without making it ready to run."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from infra.checkpoint_files import read_checkpoint as checkpoint_path
from infra.settings import ModelSettings
from model.checkpoint_file import read_checkpoint
from model.grid import Grid
from model.networks import checkpoint_grid
from model.task import TaskConfig
from tasks.models import load_models


@dataclass(frozen=True, kw_only=True)
class ModelIdentity:
    """A model's family, what it takes and gives, its grid, the publisher's words, and its file's sha256."""

    family: str
    task: TaskConfig
    grid: Grid
    description: str
    sha256: str


def model_identity(model: ModelSettings, *, cache: Path) -> ModelIdentity:
    """The identity of a configured model.

    Args:
        model: its settings.
        cache: folder that keeps remote params files.

    Raises:
        CheckpointFileError: its params file is not there or not what it should be.
        UnknownOptionError: its loader names no function.
    """
    if model.loader is not None:
        forecaster = load_models(model, devices=1)[0]
        return ModelIdentity(
            family=forecaster.family,
            task=forecaster.task,
            grid=forecaster.grid,
            description=forecaster.description,
            sha256=forecaster.sha256,
        )
    path = checkpoint_path(model.checkpoint, cache=cache)
    content = path.read_bytes()
    checkpoint = read_checkpoint(content, name=path.name)
    named = Grid(resolution=model.resolution) if model.resolution is not None else None
    return ModelIdentity(
        family=checkpoint.family,
        task=checkpoint.task,
        grid=checkpoint_grid(checkpoint, named),
        description=checkpoint.description,
        sha256=hashlib.sha256(content).hexdigest(),
    )
