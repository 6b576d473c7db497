"""Named sizes with random weights and random weather, as files that both implementations read."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import jax
import numpy as np
import xarray as xr

from model.checkpoint_file import CheckpointFile, FamilyConfig, write_checkpoint
from model.gencast.configs import DenoiserArchitectureConfig, GenCastConfig, SparseTransformerConfig
from model.gencast.denoiser_parameters import DenoiserChannels, initial_parameters
from model.graphcast import ModelConfig
from model.grid import Grid
from model.networks import graphcast_network
from model.task import TaskConfig
from model.variables import LEVELS_13, LEVELS_37, STATICS, VARIABLES

_SURFACE = ("2m_temperature", "mean_sea_level_pressure", "10m_v_component_of_wind", "10m_u_component_of_wind")
_UPPER = (
    "temperature",
    "geopotential",
    "u_component_of_wind",
    "v_component_of_wind",
    "vertical_velocity",
    "specific_humidity",
)
_PROGRESS = ("year_progress_sin", "year_progress_cos", "day_progress_sin", "day_progress_cos")
_SUN = ("toa_incident_solar_radiation",)
_STATIC = ("geopotential_at_surface", "land_sea_mask")


def _graphcast_task(levels: tuple[int, ...]) -> TaskConfig:
    weather = (*_SURFACE, "total_precipitation_6hr", *_UPPER)
    return TaskConfig(
        input_variables=(*weather, *_SUN, *_PROGRESS, *_STATIC),
        target_variables=weather,
        forcing_variables=(*_SUN, *_PROGRESS),
        pressure_levels=levels,
        input_duration="12h",
    )


def _gencast_task() -> TaskConfig:
    weather = (*_SURFACE, "sea_surface_temperature", *_UPPER)
    return TaskConfig(
        input_variables=(*weather, *_PROGRESS, *_STATIC),
        target_variables=(*_SURFACE, "total_precipitation_12hr", "sea_surface_temperature", *_UPPER),
        forcing_variables=_PROGRESS,
        pressure_levels=LEVELS_13,
        input_duration="24h",
    )


@dataclass(frozen=True, kw_only=True)
class Case:
    """One size.

    Args:
        name: on the command line.
        config, task: of the network.
        resolution: of the grid, degrees.
        compile_only: too large to run on an ordinary machine: compile and analyse the memory alone.
    """

    name: str
    config: FamilyConfig
    task: TaskConfig
    resolution: float
    compile_only: bool = False


def _graphcast(resolution: float, mesh: int, latent: int, steps: int) -> ModelConfig:
    return ModelConfig(
        resolution=resolution,
        mesh_size=mesh,
        latent_size=latent,
        gnn_msg_steps=steps,
        hidden_layers=1,
        radius_query_fraction_edge_length=0.6,
    )


def _gencast(mesh: int, latent: int, layers: int, hops: int) -> GenCastConfig:
    return GenCastConfig(
        denoiser_architecture_config=DenoiserArchitectureConfig(
            sparse_transformer_config=SparseTransformerConfig(
                attention_k_hop=hops,
                d_model=latent,
                num_layers=layers,
                num_heads=4,
                attention_type="triblockdiag_mha",
                mask_type="full",
                ffw_hidden=4 * latent,
                ffw_winit_final_mult=1.0,
                attn_winit_final_mult=1.0,
            ),
            mesh_size=mesh,
            latent_size=latent,
        )
    )


CASES = {
    case.name: case
    for case in (
        Case(name="demo", config=_graphcast(5.0, 3, 64, 6), task=_graphcast_task(LEVELS_13), resolution=5.0),
        Case(
            name="graphcast-small",
            config=_graphcast(1.0, 5, 512, 16),
            task=_graphcast_task(LEVELS_13),
            resolution=1.0,
        ),
        Case(name="gencast-mini", config=_gencast(4, 512, 16, 16), task=_gencast_task(), resolution=1.0),
        Case(
            name="graphcast-quarter-degree",
            config=_graphcast(0.25, 6, 512, 16),
            task=_graphcast_task(LEVELS_37),
            resolution=0.25,
            compile_only=True,
        ),
        Case(
            name="gencast-quarter-degree",
            config=_gencast(6, 512, 16, 32),
            task=_gencast_task(),
            resolution=0.25,
            compile_only=True,
        ),
    )
}


def write_case(case: Case, folder: Path) -> None:
    """Write ``params.npz``, the statistics and, of a case to be run, ``dataset.nc`` (three frames), unless there."""
    if (folder / "complete").is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    grid = Grid(resolution=case.resolution)
    params = jax.tree.map(np.asarray, _initial_parameters(case))
    checkpoint = CheckpointFile(
        params=params,
        task=case.task,
        config=case.config,
        description=f"random weights, resolution {case.resolution:g}",
        license="none",
    )
    (folder / "params.npz").write_bytes(write_checkpoint(checkpoint))
    _write_statistics(case.task, folder)
    if not case.compile_only:
        _random_weather(case.task, grid).to_netcdf(folder / "dataset.nc", engine="h5netcdf")
    (folder / "complete").touch()


def _initial_parameters(case: Case) -> dict[str, dict[str, jax.Array]]:
    key = jax.random.PRNGKey(0)
    if isinstance(case.config, ModelConfig):
        return graphcast_network(case.config, case.task).initial_parameters(key)
    channels = DenoiserChannels.of_task(case.task)
    architecture = case.config.denoiser_architecture_config
    return initial_parameters(key, architecture, case.config.noise_encoder_config, channels)


def _write_statistics(task: TaskConfig, folder: Path) -> None:
    names = {*task.input_variables, *task.target_variables, *task.forcing_variables}
    levels = np.array(task.pressure_levels, dtype=np.int32)
    for statistic, value in (("mean", 0.0), ("stddev", 1.0), ("diffs_stddev", 0.1), ("min", -5.0)):
        fields = {
            name: (("level",), np.full(levels.size, value, np.float32))
            if VARIABLES[name].on_levels
            else ((), np.float32(value))
            for name in sorted(names)
        }
        statistics = xr.Dataset(fields, coords={"level": levels})
        statistics.to_netcdf(folder / f"{statistic}_by_level.nc", engine="h5netcdf")


def _random_weather(task: TaskConfig, grid: Grid) -> xr.Dataset:
    random = np.random.default_rng(0)
    frames = np.arange(3)
    fields = {}
    computed = {*_PROGRESS}
    for name in sorted({*task.input_variables, *task.target_variables} - computed):
        if name in STATICS:
            dims: tuple[str, ...] = ("lat", "lon")
            shape: tuple[int, ...] = grid.shape
        else:
            levels = (len(task.pressure_levels),) if VARIABLES[name].on_levels else ()
            dims = ("batch", "time", *(("level",) if levels else ()), "lat", "lon")
            shape = (1, frames.size, *levels, *grid.shape)
        fields[name] = (dims, random.standard_normal(shape, dtype=np.float32))
    step = np.timedelta64(task.step // timedelta(hours=1), "h").astype("timedelta64[ns]")
    times = np.datetime64("2022-01-01T00", "ns") + frames * step
    return xr.Dataset(
        fields,
        coords={
            "time": frames * step,
            "level": np.array(task.pressure_levels, dtype=np.int32),
            "lat": grid.latitude,
            "lon": grid.longitude,
            "datetime": (("batch", "time"), times[None]),
        },
    )
