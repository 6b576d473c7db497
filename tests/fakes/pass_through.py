"""A forecaster without weights: cheap, chaotic and exact, to test everything that surrounds a model.

Every step mixes the bits of both frames, the step's key, the step number, the statics and the parameters with
integer arithmetic, so a wrong key, a double step, a lost frame or a mixed-up member changes every following value.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import jax
import numpy as np
import xarray as xr

from infra.settings import ModelSettings
from model.grid import Grid
from model.rollout.state import RolloutState
from model.task import TaskConfig

Parameters = Mapping[str, Mapping[str, np.ndarray]]

TASK = TaskConfig(
    input_variables=(
        "2m_temperature",
        "temperature",
        "toa_incident_solar_radiation",
        "geopotential_at_surface",
        "land_sea_mask",
    ),
    target_variables=("2m_temperature", "temperature"),
    forcing_variables=("toa_incident_solar_radiation",),
    pressure_levels=(500, 850),
    input_duration="12h",
)


class PassThroughForecaster:
    """Implements the Forecaster protocol on a small grid.

    Args:
        resolution: grid spacing in degrees.
        step_seconds: how long a step lasts, to leave time for a test to kill the process.
        seed: stands for the weights.
        diary: a file to which every process adds a line ``process member step time`` before each step.
    """

    family = "pass-through"

    def __init__(
        self,
        *,
        resolution: float = 30.0,
        step_seconds: float = 0.0,
        seed: int = 0,
        diary: Path | None = None,
    ) -> None:
        self.task = TASK
        self.grid = Grid(resolution=resolution)
        self.description = "pseudo-random pass-through model"
        self.sha256 = hashlib.sha256(f"pass-through {seed}".encode()).hexdigest()
        self.options = {"precision": "float32", "attention": "none"}
        self.advanced: list[tuple[int, int]] = []
        self.parameters: Parameters = {"mix": {"w": np.linspace(0.5, 1.5, 8, dtype=np.float32)}}
        self._in_use = self.parameters
        self._step_seconds = step_seconds
        self._seed = seed
        self._diary = diary

    def initial_state(
        self, initial_condition: xr.Dataset, *, init_time: datetime, member: int, key: np.ndarray
    ) -> RolloutState:
        frames = initial_condition[list(self.task.time_inputs)]
        return RolloutState(member=member, init_time=init_time, step=0, key=key, frames=frames)

    def use_parameters(self, parameters: Parameters) -> None:
        self._in_use = parameters

    def advance(
        self, states: Sequence[RolloutState], statics: xr.Dataset
    ) -> list[tuple[RolloutState, xr.Dataset]]:
        if self._step_seconds:
            time.sleep(self._step_seconds)
        return [self._advance(state, statics) for state in states]

    def _advance(self, state: RolloutState, statics: xr.Dataset) -> tuple[RolloutState, xr.Dataset]:
        self.advanced.append((state.member, state.step))
        if self._diary is not None:
            with open(self._diary, "a") as diary:
                diary.write(f"{os.getpid()} {state.member} {state.step} {time.time()}\n")
        carried, this = np.asarray(jax.random.split(state.key), dtype=np.uint32)
        orography = _bits(statics["geopotential_at_surface"].values)
        weights = _bits(self._in_use["mix"]["w"]).sum(dtype=np.uint32)
        fields = {}
        for name in self.task.target_variables:
            frames = state.frames[name].transpose("time", ..., "latitude", "longitude")
            older, newer = _bits(frames.values[0]), _bits(frames.values[1])
            noise = np.random.Generator(np.random.Philox(key=this.astype(np.uint64), counter=state.step))
            mixed = older * np.uint32(2654435761) ^ np.roll(newer, 1, axis=-1) * np.uint32(40503)
            mixed = mixed + orography + weights + np.uint32(state.step + self._seed)
            mixed ^= noise.integers(0, 2**32, mixed.shape, dtype=np.uint32)
            values = np.float32(250) + np.float32(50) * (mixed >> 8).astype(np.float32) / np.float32(2**24)
            fields[name] = frames.isel(time=1, drop=True).copy(data=values)
        target = xr.Dataset(fields)
        newest = state.frames["time"].values[1]
        times = np.array([newest, newest + np.timedelta64(self.task.step)])
        frames = xr.concat([state.frames.isel(time=1, drop=True), target], dim="time").assign_coords(
            time=times
        )
        following = RolloutState(
            member=state.member, init_time=state.init_time, step=state.step + 1, key=carried, frames=frames
        )
        return following, target


def _bits(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)


def initial_condition(init_time: datetime, *, resolution: float = 30.0, seed: int = 0) -> xr.Dataset:
    """Two frames and statics of plausible, random numbers."""
    grid = Grid(resolution=resolution)
    random = np.random.default_rng(seed)
    newest = np.datetime64(init_time.replace(tzinfo=None), "ns")
    surface, column = (2, *grid.shape), (2, len(TASK.pressure_levels), *grid.shape)
    return xr.Dataset(
        {
            "2m_temperature": (
                ("time", "latitude", "longitude"),
                random.normal(280, 10, surface).astype(np.float32),
            ),
            "temperature": (
                ("time", "level", "latitude", "longitude"),
                random.normal(250, 10, column).astype(np.float32),
            ),
            "geopotential_at_surface": (
                ("latitude", "longitude"),
                random.normal(0, 100, grid.shape).astype(np.float32),
            ),
            "land_sea_mask": (("latitude", "longitude"), random.random(grid.shape).astype(np.float32)),
        },
        coords={
            "time": [newest - np.timedelta64(timedelta(hours=6)), newest],
            "level": np.asarray(TASK.pressure_levels, dtype=np.int32),
            "latitude": grid.latitude,
            "longitude": grid.longitude,
        },
    )


def load(settings: ModelSettings, device: object) -> PassThroughForecaster:
    """What ``ModelSettings.loader`` names; ``checkpoint`` is e.g. ``pass-through?seed=0&step_seconds=1``."""
    options = dict(pair.split("=") for pair in settings.checkpoint.partition("?")[2].split("&") if pair)
    return PassThroughForecaster(
        seed=int(options.get("seed", 0)),
        step_seconds=float(options.get("step_seconds", 0)),
        resolution=float(options.get("resolution", 30)),
        diary=Path(options["diary"]) if "diary" in options else None,
    )
