"""How much memory stepping a model takes, from its configuration alone.

What a step takes as arguments is counted. What it holds while it runs depends on the compiler, so it is the largest
of the moments in which most is alive, times factors fitted to XLA's own analysis of compiled programs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model.channels import INPUT_FRAMES, count_channels, forcing_blocks, input_blocks, target_blocks
from model.checkpoint_file import CheckpointFile
from model.graphcast import ModelConfig
from model.graphs.model_graphs import SLOTS
from model.grid import Grid
from model.task import TaskConfig
from model.variables import VARIABLES

_MESH_EDGE_LENGTH = 1.107
"""Edge of the icosahedron as an angle, radians; each refinement halves it."""
_INDEX = 4
_EDGE_FEATURES = 4
_SINGLE = 4
"""Bytes of an index and of a float32; numbers of spatial features of an edge."""
_GRID_ARRAYS = 2
_MESH_EDGE_ARRAYS = 2
"""Latent arrays alive at once: what the grid sends and keeps, the multi-mesh's edges before and after a step."""


@dataclass(frozen=True, kw_only=True)
class _Sizes:
    """Numbers of things.

    Args:
        points: of the grid.
        vertices: of the finest mesh.
        mesh_edges: of the multi-mesh, empty slots included (GraphCast).
        grid_to_mesh_edges: about.
        latent: features of a node or edge.
    """

    points: int
    vertices: int
    mesh_edges: int
    grid_to_mesh_edges: int
    latent: int


def memory_needed(
    checkpoint: CheckpointFile,
    grid: Grid,
    *,
    precision: str,
    members: int = 1,
    attention: str | None = None,
    platform: str = "cpu",
) -> int:
    """Bytes on the device for stepping ``members`` members in one program, an estimate.

    Args:
        checkpoint: the model.
        grid: its grid.
        precision: ``"float32"``, ``"bfloat16"`` or ``"float16"``.
        members: advanced by one program.
        attention: kind of attention of a GenCast; None for that of the platform.
        platform: JAX's name of the device's platform.
    """
    item = _SINGLE if precision == "float32" else 2
    sizes = _sizes(checkpoint, grid)
    held = checkpoint.parameter_count * item + _structure_bytes(sizes, item)
    weather = (
        sizes.points
        * _SINGLE
        * (_window_layers(checkpoint.task) + 3 * len(checkpoint.task.forcing_variables))
    )
    fields = sizes.points * _SINGLE * count_channels(target_blocks(checkpoint.task))
    working = _working_bytes(checkpoint, sizes, item, attention, platform)
    return held + members * (weather + fields + working)


def _sizes(checkpoint: CheckpointFile, grid: Grid) -> _Sizes:
    config = checkpoint.config
    shape = config if isinstance(config, ModelConfig) else config.denoiser_architecture_config
    points, vertices = int(np.prod(grid.shape)), 10 * 4**shape.mesh_size + 2
    levels = range(shape.mesh_size + 1) if isinstance(config, ModelConfig) else ()
    reach = shape.radius_query_fraction_edge_length * _MESH_EDGE_LENGTH / 2**shape.mesh_size
    return _Sizes(
        points=points,
        vertices=vertices,
        mesh_edges=SLOTS * sum(10 * 4**level + 2 for level in levels),
        grid_to_mesh_edges=int(points * vertices * reach**2 / 4),
        latent=shape.latent_size,
    )


def _structure_bytes(sizes: _Sizes, item: int) -> int:
    """Edges and their embeddings, held for the whole rollout."""
    edges = sizes.grid_to_mesh_edges + sizes.mesh_edges + 3 * sizes.points
    embedded = (edges + 2 * sizes.vertices) * sizes.latent * item
    return embedded + edges * (_EDGE_FEATURES * item + _INDEX) + sizes.grid_to_mesh_edges * _INDEX


def _window_layers(task: TaskConfig) -> int:
    """Horizontal fields in an input window."""
    levels = len(task.pressure_levels)
    return INPUT_FRAMES * sum(levels if VARIABLES[name].on_levels else 1 for name in task.time_inputs)


def _working_bytes(
    checkpoint: CheckpointFile, sizes: _Sizes, item: int, attention: str | None, platform: str
) -> int:
    """Bytes of one member's activations at the widest moment."""
    task = checkpoint.task
    features = sizes.points * (count_channels(input_blocks(task)) + count_channels(forcing_blocks(task)))
    on_grid = sizes.points * sizes.latent * item
    on_mesh = sizes.mesh_edges * sizes.latent * item
    return features * _SINGLE + _GRID_ARRAYS * on_grid + _MESH_EDGE_ARRAYS * on_mesh
