"""The update of a training over the devices at hand, keeping no more for the backward pass than fits."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import optax

from infra.errors import DoesNotFitError, FoldcastError
from infra.resources import host_memory_available
from infra.whole_files import write_whole
from model.errors import UnknownOptionError
from model.graphs.graph_network import Parameters
from model.networks import graphcast_graphs
from model.training.curriculum import Stage
from model.training.family_losses import FamilyLoss, GraphCastLoss
from model.training.parallel import DeviceLayout
from model.training.partition import PartitionedGraphCastLoss
from model.training.rematerialisation import KEEP_ALL, Rematerialisation, least_saving_that_fits
from model.training.training import Update, initial_state, make_update
from tasks.training_settings import TrainingSettings


def build_update(
    settings: TrainingSettings,
    loss: FamilyLoss,
    optimizer: optax.GradientTransformation,
    params: Parameters,
    stages: Sequence[Stage],
    batch_shapes: Callable[[Stage], Any],
) -> Update:
    """The update as the settings say; with ``rematerialise = "auto"`` the first level that fits.

    What was chosen stands in ``{output}/rematerialisation.json`` and is taken again: another level would round
    otherwise, and a resumed training must not. Stages of an ensemble's score have a choice and a file of their own.
    Checkpoints without a choice are of a version that kept everything of GenCast and wrote none: so it goes on.

    Args:
        stages: those that this loss serves.
        batch_shapes: shapes of a stage's batch, as ``jax.ShapeDtypeStruct``.

    Raises:
        FoldcastError: there are too few devices, or a sample of this family cannot be divided.
        DoesNotFitError: no level of recomputation fits the device.
    """
    layout = settings.layout()

    def build(recompute: Rematerialisation) -> Update:
        return make_update(
            _laid_out(loss, layout, recompute),
            optimizer,
            settings.optimizer_config(),
            seed=settings.seed,
            layout=layout,
            devices=jax.local_devices(),
            fresh=settings.initialize_from is None,
        )

    try:
        layout.mesh(jax.local_devices())  # before anything is divided: are there enough?
        chosen = settings.chosen_rematerialisation()
        if chosen is not None:
            return build(chosen)
        members = stages[0].ensemble_members
        remembered = settings.output / f"rematerialisation{f'-{members}-members' if members else ''}.json"
        if remembered.is_file():
            return build(Rematerialisation(**json.loads(remembered.read_text())))
        if _has_checkpoints(settings.checkpoints):
            return build(KEEP_ALL)
        available = settings.device_memory or memory_for_training(jax.local_devices())
        state = jax.eval_shape(lambda: initial_state(params, optimizer))
        # The stage that needs most has the longest rollout of the most examples.
        stage = max(stages, key=lambda stage: stage.rollout_steps * stage.batch_size)
        batch = batch_shapes(stage)
        level = least_saving_that_fits(lambda level: build(level).peak_bytes(state, batch), available)
    except (ValueError, UnknownOptionError) as error:
        raise FoldcastError(f"devices: {error}") from error
    if level is None:
        raise DoesNotFitError(
            f"training: no level of recomputation fits into {available} bytes of device memory; take a smaller "
            "batch_size with accumulate, or divide a sample over more devices"
        )
    write_whole(remembered, json.dumps(dataclasses.asdict(level)).encode())
    return build(level)


def _has_checkpoints(folder: Path) -> bool:
    return folder.is_dir() and any(entry.name.isdecimal() for entry in folder.iterdir())


def memory_for_training(devices: Sequence[jax.Device]) -> int:
    """Bytes on the smallest device, or free on this machine where devices have none of their own."""
    limits = [
        statistics["bytes_limit"]
        for statistics in (device.memory_stats() for device in devices)
        if statistics
    ]
    return min(limits, default=None) or host_memory_available() // len(devices)


def _laid_out(loss: FamilyLoss, layout: DeviceLayout, recompute: Rematerialisation) -> FamilyLoss:
    loss = loss.recomputing(recompute)
    if layout.sample == 1:
        return loss
    if not isinstance(loss, GraphCastLoss):
        raise FoldcastError("devices: expected sample = 1 for GenCast; only GraphCast's grid is divided")
    graphs = graphcast_graphs(loss.network.config, loss.model_step.grid)
    return PartitionedGraphCastLoss.of(loss, graphs, layout.sample)
