"""Training of either family: the state, one update of it, and the families' losses.

An update is a pure function of the state, of a batch and of the seed; all randomness follows from the number of
the update. So two trainings from one state over the same batches agree bit for bit on one kind of device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, PartitionSpec

from model.graphs.graph_network import Parameters
from model.training.family_losses import Batch, FamilyLoss
from model.training.optimizer import OptimizerConfig
from model.training.parallel import DeviceLayout, gradient_of, place
from model.training.partition import PartitionedGraphCastLoss
from model.training.rematerialisation import program_peak_bytes


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """Everything a training needs to go on.

    Args:
        params: float32, under their published names.
        average: their running average; what is published.
        optimizer: the optimiser's own.
        update: number of the next update, int32.
    """

    params: Parameters
    average: Parameters
    optimizer: optax.OptState
    update: jax.Array


def initial_state(params: Parameters, optimizer: optax.GradientTransformation) -> TrainingState:
    """A training's state before its first update."""
    params = jax.tree.map(lambda array: jnp.array(array, jnp.float32), params)
    return TrainingState(
        params=params,
        average=jax.tree.map(jnp.copy, params),
        optimizer=optimizer.init(params),
        update=jnp.zeros((), jnp.int32),
    )


@dataclass(frozen=True, kw_only=True)
class Update:
    """The function that makes one update, compiled; it takes over the state it is given.

    Its batch has two leading axes: gradients of the first are averaged one after the other (gradient
    accumulation), examples of the second are taken together. It returns the next state and, as float32 scalars,
    ``loss``, ``gradient_norm`` (of what is not frozen, before clipping) and the diagnostics of the loss.

    Args:
        loss: with its arrays.
        compiled: from state, batch and the loss's arrays.
        layout, mesh: of the devices; no mesh for one device.
    """

    loss: FamilyLoss
    compiled: Any
    layout: DeviceLayout
    mesh: Mesh | None

    def __call__(self, state: TrainingState, batch: Batch) -> tuple[TrainingState, dict[str, jax.Array]]:
        """One update."""
        done: tuple[TrainingState, dict[str, jax.Array]] = self.compiled(
            *self._placed(state, batch, self.loss.arrays)
        )
        return done

    def peak_bytes(self, state: TrainingState, batch: Batch) -> int:
        """What an update needs on each device at its peak by the compiler's own account; nothing is run.

        Args:
            state, batch: arrays or their ``jax.ShapeDtypeStruct``.
        """
        arrays = jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype), self.loss.arrays)
        return program_peak_bytes(self.compiled.lower(*self._placed(state, batch, arrays)).compile())

    def _placed(self, state: Any, batch: Any, arrays: Any) -> tuple[Any, Any, Any]:
        if self.mesh is None:
            return state, batch, arrays
        batch = self.loss.prepare(batch) if isinstance(self.loss, PartitionedGraphCastLoss) else batch
        return (
            place(state, self.mesh, PartitionSpec()),
            place(batch, self.mesh, lambda leaf: self.layout.batch_spec(leaf, leading=1)),
            place(arrays, self.mesh, self.layout.array_spec()),
        )


def make_update(
    loss: FamilyLoss,
    optimizer: optax.GradientTransformation,
    config: OptimizerConfig,
    *,
    seed: int,
    layout: DeviceLayout | None = None,
    devices: Sequence[jax.Device] = (),
    fresh: bool = True,
) -> Update:
    """The update of a training.

    Args:
        loss: of the family; partitioned as ``model.training.partition`` does if ``layout.sample`` is more than one.
        layout: how devices share a batch; None for one device.
        devices: at least as many as the layout takes.
        fresh: whether the training starts from random parameters, which the average is to forget soon.
    """
    layout = layout or DeviceLayout()
    mesh = layout.mesh(devices) if layout.devices > 1 else None
    gradient = gradient_of(loss, layout, mesh)

    def update(state: TrainingState, batch: Batch, arrays: Any) -> tuple[TrainingState, dict[str, jax.Array]]:
        key = jax.random.fold_in(jax.random.PRNGKey(seed), state.update)
        parts, examples = jax.tree.leaves(batch)[0].shape[:2]

        def of_part(part: Batch, key: jax.Array) -> tuple[dict[str, jax.Array], Parameters]:
            return gradient(state.params, part, jax.random.split(key, examples), arrays)

        if parts == 1:
            metrics, gradients = of_part(jax.tree.map(lambda array: array[0], batch), key)
        else:
            results = jax.lax.map(lambda item: of_part(*item), (batch, jax.random.split(key, parts)))
            metrics, gradients = jax.tree.map(lambda array: array.mean(axis=0), results)
        metrics["gradient_norm"] = optax.tree.norm(
            [leaves for module, leaves in gradients.items() if not module.startswith(config.frozen)]
        )
        changes, optimizer_state = optimizer.update(gradients, state.optimizer, state.params)
        params = optax.apply_updates(state.params, changes)
        done = state.update.astype(jnp.float32)
        # A young average forgets faster, or it would remember the fresh parameters for long.
        decay = jnp.minimum(config.average_decay, (1 + done) / (10 + done)) if fresh else config.average_decay
        average = jax.tree.map(lambda old, new: old + (1 - decay) * (new - old), state.average, params)
        next_state = TrainingState(
            params=params, average=average, optimizer=optimizer_state, update=state.update + 1
        )
        return next_state, metrics

    return Update(loss=loss, compiled=jax.jit(update, donate_argnums=0), layout=layout, mesh=mesh)
