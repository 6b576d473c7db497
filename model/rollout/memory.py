"""How much memory stepping a model takes, from its configuration alone.

What a step takes as arguments is counted. What it holds while it runs depends on the compiler, so it is the largest
of the moments in which most is alive, times factors fitted to XLA's own analysis of compiled programs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model.channels import INPUT_FRAMES, count_channels, forcing_blocks, input_blocks, target_blocks
from model.checkpoint_file import CheckpointFile
from model.gencast.configs import GenCastConfig
from model.graphcast import ModelConfig
from model.graphs.model_graphs import SLOTS
from model.grid import Grid
from model.task import TaskConfig
from model.variables import VARIABLES

_MESH_EDGE_LENGTH = 1.107 * 1.18
"""Edge of the icosahedron as an angle, radians, which each refinement halves; times how much the longest edge of a
refined mesh exceeds that half."""
_INDEX = 4
_EDGE_FEATURES = 4
_SINGLE = 4
"""Bytes of an index and of a float32; numbers of spatial features of an edge."""
_GRID_ARRAYS = 2
_MESH_EDGE_ARRAYS = 2
"""Latent arrays alive at once: what the grid sends and keeps, the multi-mesh's edges before and after a step."""
_CHANNEL_ARRAYS = 1.75
"""Copies of GraphCast's channels alive at once, stacked and normalised: between one and two, as the program is cut."""
_DENOISER_CHANNELS = 3
"""Copies of a denoiser's channels alive at once: conditioning and noisy sample, scaled, and the sampler's stages."""
_ATTENTION_ARRAYS = 3
"""Arrays of attention's size alive at once: logits, their exponentials, the weights."""
_CHUNK = 6144
_CHUNK_ARRAYS = 4
"""Edges in a chunk in half precision, and arrays of a chunk's size alive at once."""
_CPU_QUERIES = 256
"""Queries in a block of attention on a CPU."""


@dataclass(frozen=True, kw_only=True)
class _Sizes:
    """Numbers of things.

    Args:
        points: of the grid.
        vertices: of the finest mesh.
        mesh_edges: of the multi-mesh, empty slots included (GraphCast).
        grid_to_mesh_edges: about.
        latent: features of a node or edge.
        channels: that a grid point takes, a denoiser's noisy targets included.
    """

    points: int
    vertices: int
    mesh_edges: int
    grid_to_mesh_edges: int
    latent: int
    channels: int


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
    task, sizes = checkpoint.task, _sizes(checkpoint, grid)
    held = checkpoint.parameter_count * item + _structure_bytes(checkpoint, sizes, item)
    weather = sizes.points * _SINGLE * (_window_layers(task) + 3 * len(task.forcing_variables))
    fields = sizes.points * _SINGLE * count_channels(target_blocks(task))
    working_item = item
    if platform == "cpu" and item < _SINGLE:
        # Half precision on a CPU is computed in float32, for which XLA keeps copies of what is embedded and of chunks.
        working_item = _SINGLE
        embedded = sizes.grid_to_mesh_edges + 3 * sizes.points
        if not isinstance(checkpoint.config, ModelConfig):
            embedded += sizes.points
        held += (embedded + _CHUNK_ARRAYS * _CHUNK) * sizes.latent * _SINGLE
    if isinstance(checkpoint.config, ModelConfig):
        working = int(_CHANNEL_ARRAYS * sizes.points * sizes.channels * _SINGLE)
        working += _MESH_EDGE_ARRAYS * sizes.mesh_edges * sizes.latent * working_item
    else:
        working = _DENOISER_CHANNELS * sizes.points * sizes.channels * _SINGLE
        working += _attention_bytes(checkpoint.config, sizes, item, attention or _DEFAULT_ATTENTION[platform])
    working += _GRID_ARRAYS * sizes.points * sizes.latent * working_item
    return held + members * (weather + fields + working)


def _sizes(checkpoint: CheckpointFile, grid: Grid) -> _Sizes:
    config, task = checkpoint.config, checkpoint.task
    deterministic = isinstance(config, ModelConfig)
    shape = config if isinstance(config, ModelConfig) else config.denoiser_architecture_config
    points, vertices = int(np.prod(grid.shape)), 10 * 4**shape.mesh_size + 2
    levels = range(shape.mesh_size + 1) if deterministic else ()
    reach = shape.radius_query_fraction_edge_length * _MESH_EDGE_LENGTH / 2**shape.mesh_size
    channels = count_channels(input_blocks(task)) + count_channels(forcing_blocks(task))
    return _Sizes(
        points=points,
        vertices=vertices,
        mesh_edges=SLOTS * sum(10 * 4**level + 2 for level in levels),
        grid_to_mesh_edges=int(points * vertices * reach**2 / 4),
        latent=shape.latent_size,
        channels=channels + (0 if deterministic else count_channels(target_blocks(task))),
    )


def _structure_bytes(checkpoint: CheckpointFile, sizes: _Sizes, item: int) -> int:
    """Edges and their embeddings, held for the whole rollout."""
    edges = sizes.grid_to_mesh_edges + sizes.mesh_edges + 3 * sizes.points
    # GraphCast keeps two embeddings of each vertex, GenCast one, and one of each grid point.
    nodes = 2 * sizes.vertices
    if not isinstance(checkpoint.config, ModelConfig):
        nodes = sizes.vertices + sizes.points
    embedded = (edges + nodes) * sizes.latent * item
    return embedded + edges * (_EDGE_FEATURES * item + _INDEX) + sizes.grid_to_mesh_edges * _INDEX


def _window_layers(task: TaskConfig) -> int:
    """Horizontal fields in an input window."""
    levels = len(task.pressure_levels)
    return INPUT_FRAMES * sum(levels if VARIABLES[name].on_levels else 1 for name in task.time_inputs)


_DEFAULT_ATTENTION = {
    "cpu": "blocked_mha",
    "gpu": "fused_banded_mha",
    "cuda": "fused_banded_mha",
    "tpu": "splash_mha",
}


def _attention_bytes(config: GenCastConfig, sizes: _Sizes, item: int, kind: str) -> int:
    """Bytes of attention at work: the part of the matrix (query, key) that a kind holds at once."""
    shape = config.denoiser_architecture_config
    transformer = shape.sparse_transformer_config
    vertices = sizes.vertices
    # A ring of the mesh has 5·2^refinements vertices; neighbours k hops away are k rings away.
    half_bandwidth = min(vertices, transformer.attention_k_hop * 5 * 2**shape.mesh_size)
    if kind == "splash_mha":
        return 0
    if kind == "fused_banded_mha" and item < _SINGLE:
        return 2 * 5 * vertices * transformer.d_model * item  # keys and values, five windows of each
    rows, columns = {
        "blocked_mha": (max(_CPU_QUERIES, vertices // 16), _CPU_QUERIES + 2 * half_bandwidth),
        "fused_banded_mha": (vertices, 5 * half_bandwidth // 2),
        "triblockdiag_mha": (vertices, 3 * half_bandwidth),
        "mha": (vertices, vertices),
    }[kind]
    return _ATTENTION_ARRAYS * transformer.num_heads * min(rows, vertices) * min(columns, vertices) * _SINGLE
