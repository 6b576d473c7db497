"""How much memory stepping a model takes, from its configuration alone."""

from __future__ import annotations

import numpy as np

from model.channels import count_channels, forcing_blocks, input_blocks, target_blocks
from model.checkpoint_file import CheckpointFile
from model.graphcast import ModelConfig
from model.grid import Grid

_MESH_EDGE_LENGTH = 1.107
"""Edge of the icosahedron as an angle, radians; each refinement halves it."""
_LIVE_EDGE_ARRAYS = 3
_LIVE_GRID_ARRAYS = 4


def memory_needed(checkpoint: CheckpointFile, grid: Grid, *, precision: str, members: int = 1) -> int:
    """Bytes on the device for stepping ``members`` members in one program, an estimate.

    Parameters and embeddings of the structure are held throughout; of the activations those of the widest moment
    count: on the mesh, edges with their messages; on the grid, points with the edges of a decoder.

    Args:
        precision: ``"float32"``, ``"bfloat16"`` or ``"float16"``.
    """
    item = 4 if precision == "float32" else 2
    config = checkpoint.config
    points = int(np.prod(grid.shape))
    if isinstance(config, ModelConfig):
        latent, refinements = config.latent_size, config.mesh_size
        radius = config.radius_query_fraction_edge_length
        mesh_edges = 20 * (4 ** (refinements + 1) - 1)
    else:
        architecture = config.denoiser_architecture_config
        latent, refinements = architecture.latent_size, architecture.mesh_size
        radius = architecture.radius_query_fraction_edge_length
        mesh_edges = 0
    vertices = 10 * 4**refinements + 2
    reach = radius * _MESH_EDGE_LENGTH / 2**refinements
    grid_to_mesh_edges = int(points * vertices * reach**2 / 4)
    held = (grid_to_mesh_edges + 3 * points + mesh_edges + 2 * vertices) * latent * item
    channels = (
        count_channels(input_blocks(checkpoint.task))
        + count_channels(forcing_blocks(checkpoint.task))
        + 3 * count_channels(target_blocks(checkpoint.task))
    )
    fields = points * channels * 4
    widest = max(
        _LIVE_EDGE_ARRAYS * mesh_edges,
        _LIVE_EDGE_ARRAYS * grid_to_mesh_edges,
        _LIVE_GRID_ARRAYS * points,
    )
    return checkpoint.parameter_count * item + held + members * (fields + widest * latent * item)
