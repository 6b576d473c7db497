"""Gradients of a batch over several devices: examples apart, and the grid and mesh of each example in parts.

Every device computes its part of the loss and of the gradient of the sum over all devices; both are then summed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from model.graphs.graph_network import Parameters
from model.training.family_losses import FamilyLoss

DATA, SAMPLE = "data", "sample"
"""Names of the two axes of devices."""

Gradient = Callable[[Parameters, Any, jax.Array, Any], tuple[dict[str, jax.Array], Parameters]]
"""Parameters, batch, keys (example, 2) and the loss's arrays to metrics and gradients, means over the batch."""


@dataclass(frozen=True, kw_only=True)
class DeviceLayout:
    """How devices share a batch.

    Args:
        data: groups of devices, each with its share of the examples.
        sample: devices of a group, each with its part of the grid and mesh of every example.
    """

    data: int = 1
    sample: int = 1

    def __post_init__(self) -> None:
        if self.data < 1 or self.sample < 1:
            raise ValueError(f"expected at least one device each, got data {self.data}, sample {self.sample}")

    @property
    def devices(self) -> int:
        """How many there are."""
        return self.data * self.sample

    def mesh(self, devices: Sequence[jax.Device]) -> Mesh:
        """The devices in two axes.

        Raises:
            ValueError: there are too few.
        """
        if len(devices) < self.devices:
            raise ValueError(
                f"devices: expected {self.data} × {self.sample} = {self.devices}, got {len(devices)}"
            )
        return Mesh(np.array(devices[: self.devices]).reshape(self.data, self.sample), (DATA, SAMPLE))

    def batch_spec(self, leaf: Any, *, leading: int = 0) -> PartitionSpec:
        """Where an array of a batch lies: examples follow ``leading`` axes, grid points are the last axis.

        The grid is divided only where examples are; its rows are then flat, as ``model.training.partition`` has them.
        """
        inner = leaf.ndim - leading - 1
        last = (SAMPLE,) if self.sample > 1 else (None,)
        return PartitionSpec(*[None] * leading, DATA, *[None] * (inner - 1), *last[: max(inner, 0)])

    def array_spec(self) -> PartitionSpec:
        """Where the loss's arrays lie: copies, or by a leading axis over the parts."""
        return PartitionSpec(SAMPLE) if self.sample > 1 else PartitionSpec()


def gradient_of(loss: FamilyLoss, layout: DeviceLayout, mesh: Mesh | None) -> Gradient:
    """The gradient of a loss, on one device or over those of a mesh.

    Args:
        loss: its arrays have a leading axis over the parts if ``layout.sample`` is more than one.
        mesh: from ``layout.mesh``; None for one device.
    """

    def here(
        params: Parameters, batch: Any, keys: jax.Array, arrays: Any
    ) -> tuple[dict[str, jax.Array], Parameters]:
        part = loss.with_arrays(arrays)
        (value, shares), gradients = jax.value_and_grad(part, has_aux=True)(params, batch, keys)
        return {"loss": value, **shares}, gradients

    if mesh is None:
        return here

    def on_device(
        params: Parameters, batch: Any, keys: jax.Array, arrays: Any
    ) -> tuple[dict[str, jax.Array], Parameters]:
        if layout.sample > 1:
            arrays = jax.tree.map(lambda array: array[0], arrays)
        parts = here(params, batch, keys, arrays)
        # Examples are averaged, parts of an example are summed.
        return jax.tree.map(lambda part: jax.lax.psum(part, (DATA, SAMPLE)) / layout.data, parts)

    def everywhere(
        params: Parameters, batch: Any, keys: jax.Array, arrays: Any
    ) -> tuple[dict[str, jax.Array], Parameters]:
        specs = (
            PartitionSpec(),
            jax.tree.map(layout.batch_spec, batch),
            PartitionSpec(DATA),
            layout.array_spec(),
        )
        mapped = jax.shard_map(
            on_device, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(), check_vma=False
        )
        summed: tuple[dict[str, jax.Array], Parameters] = mapped(params, batch, keys, arrays)
        return summed

    return everywhere


def place(tree: Any, mesh: Mesh, spec: Callable[[Any], PartitionSpec] | PartitionSpec) -> Any:
    """Arrays (or their shapes) where they belong on the devices."""

    def put(leaf: Any) -> Any:
        sharding = NamedSharding(mesh, spec if isinstance(spec, PartitionSpec) else spec(leaf))
        if isinstance(leaf, jax.ShapeDtypeStruct):
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
        return jax.device_put(leaf, sharding)

    return jax.tree.map(put, tree)
