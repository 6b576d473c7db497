"""A GraphCast small enough to compile in seconds, with weather and statistics to match."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache

import numpy as np
import xarray as xr

from model.checkpoint_file import CheckpointFile, write_checkpoint
from model.graphcast import ModelConfig
from model.grid import Grid
from model.networks import graphcast_network
from model.normalization import Statistics
from model.task import TaskConfig
from model.variables import VARIABLES

INIT_TIME = datetime(2020, 1, 1, 6, tzinfo=UTC)
GRID = Grid(resolution=30.0)
CONFIG = ModelConfig(
    resolution=30.0,
    mesh_size=1,
    latent_size=8,
    gnn_msg_steps=1,
    hidden_layers=1,
    radius_query_fraction_edge_length=0.8,
)
TASK = TaskConfig(
    input_variables=("2m_temperature", "temperature", "day_progress_sin", "land_sea_mask"),
    target_variables=("2m_temperature", "temperature", "total_precipitation_6hr"),
    forcing_variables=("day_progress_sin",),
    pressure_levels=(500, 850),
    input_duration="12h",
)


def checkpoint(config: ModelConfig = CONFIG) -> CheckpointFile:
    """With random weights."""
    random = np.random.default_rng(1)
    params = {
        module: {
            name: (random.normal(size=shape) / np.sqrt(shape[0])).astype(np.float32)
            for name, shape in shapes.items()
        }
        for module, shapes in graphcast_network(config, TASK).parameter_shapes().items()
    }
    return CheckpointFile(params=params, task=TASK, config=config, description="tiny", license="none")


@cache
def params_file() -> bytes:
    """The content of its params file."""
    return write_checkpoint(checkpoint())


def statistics() -> Statistics:
    """Means 1, spreads 2, spreads of differences 0.5."""
    names = {*TASK.input_variables, *TASK.target_variables}

    def constant(value: float) -> xr.Dataset:
        fields = {
            name: ("level", np.full(2, value, np.float32)) if VARIABLES[name].on_levels else value
            for name in sorted(names)
        }
        return xr.Dataset(fields, coords={"level": [500, 850]})

    return Statistics(mean=constant(1.0), stddev=constant(2.0), diffs_stddev=constant(0.5))


def initial_condition(seed: int = 0) -> xr.Dataset:
    """Two random frames six hours apart, and the statics."""
    random = np.random.default_rng(seed)
    shape = GRID.shape
    surface, upper = ("time", "latitude", "longitude"), ("time", "level", "latitude", "longitude")
    return xr.Dataset(
        {
            "2m_temperature": (surface, random.normal(size=(2, *shape)).astype(np.float32)),
            "temperature": (upper, random.normal(size=(2, 2, *shape)).astype(np.float32)),
            "land_sea_mask": (surface[1:], random.uniform(size=shape).astype(np.float32)),
        },
        coords={
            "time": np.array(["2020-01-01T00", "2020-01-01T06"], dtype="datetime64[ns]"),
            "level": [500, 850],
            "latitude": GRID.latitude,
            "longitude": GRID.longitude,
        },
    )
