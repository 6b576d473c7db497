"""A network with its statistics on a device, stepped member by member: the forecaster of all published families.

One program advances a member (or ``members_per_program`` of them) by one model step: it splits the key, puts
fields into channels, normalises, runs the network, and turns its output into fields and the next input window. It
is compiled once; frames stay on the device from step to step, and the forcings of the next step are computed on
the host while the device works.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from time import perf_counter
from typing import Any

import jax
import numpy as np
import xarray as xr
from jax.sharding import SingleDeviceSharding

from model.channels import INPUT_FRAMES
from model.checkpoint_file import CheckpointFile
from model.errors import InvalidFieldError
from model.forcings import GivenForcings, forcing_fields
from model.grid import Grid
from model.initial_condition_checks import checked_frames, checked_statics
from model.networks import Network, Prepared, with_parameters
from model.normalization import NAN_CLEANED
from model.rollout.state import RolloutState
from model.step import Fields, ModelStep
from model.task import TaskConfig
from model.variables import COMPUTED_FORCINGS, VARIABLES

_Shapes = dict[str, jax.ShapeDtypeStruct]


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class _Weather:
    """What changes from step to step: arrays on the device, on their way there, or their shapes.

    Args:
        key: carried random key, uint32 (2,).
        frames: input window by variable, (2, [level,] latitude, longitude).
    """

    key: Any
    frames: dict[str, Any]


@dataclass(kw_only=True)
class NetworkForecaster:
    """A network with its statistics on a device: the ``Forecaster`` of all published families.

    Args:
        checkpoint: the params file's content but for the parameters, which the network holds.
        sha256: of the params file.
        grid, network, model_step, members_per_program, device, given: as ``load_forecaster`` resolved them.
        compile_seconds: what preparing and compiling took; None before the first step.
    """

    checkpoint: CheckpointFile
    sha256: str
    grid: Grid
    network: Network
    model_step: ModelStep
    members_per_program: int = 1
    device: Any = None
    given: GivenForcings | None = None
    compile_seconds: float | None = field(default=None, init=False)
    _prepared: Prepared = field(default=None, init=False, repr=False)
    _program: Any = field(default=None, init=False, repr=False)
    _program_takes: list[tuple[int, ...]] | None = field(default=None, init=False, repr=False)
    _statics: tuple[xr.Dataset, Fields] | None = field(default=None, init=False, repr=False)
    _carried: tuple[list[RolloutState], _Weather] | None = field(default=None, init=False, repr=False)
    _forcings: dict[datetime, dict[str, np.ndarray]] = field(default_factory=dict, init=False, repr=False)

    @property
    def family(self) -> str:
        """Of the model."""
        return self.checkpoint.family

    @property
    def task(self) -> TaskConfig:
        """What it takes and gives."""
        return self.checkpoint.task

    @property
    def description(self) -> str:
        """The publisher's words."""
        return self.checkpoint.description

    @property
    def options(self) -> dict[str, str]:
        """Precision, attention where there is any, members per program, device kind."""
        return {
            **self.network.options,
            "members_per_program": str(self.members_per_program),
            "device_kind": self.device.device_kind,
        }

    def initial_state(
        self, initial_condition: xr.Dataset, *, init_time: datetime, member: int, key: np.ndarray
    ) -> RolloutState:
        """A member before its first step.

        Args:
            initial_condition: dims (time=2, [level,] latitude, longitude); with the statics.
            init_time: start of the forecast, time-zone aware.
            member: global number.
            key: the member's first key, uint32 (2,).

        Raises:
            InvalidFieldError: whatever is wrong with the initial condition.
            ValueError: the key is no raw threefry key.
        """
        if np.shape(key) != (2,) or np.asarray(key).dtype != np.uint32:
            raise ValueError(
                f"key: expected uint32 of shape (2,), got {np.asarray(key).dtype} of shape {np.shape(key)}"
            )
        frames = checked_frames(initial_condition, self.task, self.grid, init_time=init_time)
        checked_statics(initial_condition, self.task, self.grid)
        return RolloutState(member=member, init_time=init_time, step=0, key=key, frames=frames)

    def advance(
        self, states: Sequence[RolloutState], statics: xr.Dataset
    ) -> list[tuple[RolloutState, xr.Dataset]]:
        """One step of each member; up to ``members_per_program`` of them at once.

        Args:
            states: of one init_time and step.
            statics: the static fields, as in the initial condition.

        Raises:
            InvalidFieldError: something is wrong with the statics.
            ValueError: states of different steps, or too many.
        """
        return self.dispatch(states, statics).result()

    def dispatch(self, states: Sequence[RolloutState], statics: xr.Dataset) -> PendingStep:
        """Begin a step and return while the device computes; as ``advance``."""
        states = list(states)
        if not 1 <= len(states) <= self.members_per_program:
            raise ValueError(f"states: expected 1 to {self.members_per_program}, got {len(states)}")
        first = states[0]
        if any((state.init_time, state.step) != (first.init_time, first.step) for state in states):
            raise ValueError("states: expected members at the same step of the same cycle")
        fixed = self._place_statics(statics)
        weather = self._place_weather(states)
        arguments = (fixed, weather, self._place_forcings(first))
        program, prepared = self._ready()
        weather, fields = program(prepared, *arguments)
        pending = PendingStep(forecaster=self, states=states, weather=weather, fields=fields)
        self._forcing(first.init_time + (first.step + 2) * self.task.step)
        return pending

    def __post_init__(self) -> None:
        self._published = self.network.checkpoint.params

    @property
    def parameters(self) -> Mapping[str, Mapping[str, Any]]:
        """The parameters of the file, by module and name, whichever are in use."""
        return self._published

    def use_parameters(self, parameters: Mapping[str, Mapping[str, Any]]) -> None:
        """Go on with other parameters of the same shapes.

        The compiled program stays as it is, unless what is prepared from them has other shapes.

        Raises:
            CheckpointFileError: their names or shapes are others.
        """
        if parameters is self.network.checkpoint.params:
            return
        self.network = with_parameters(self.network, parameters)
        self._prepared = None

    def compiled_memory(self) -> dict[str, int]:
        """Compile the step without weather or running anything, and say what it needs, in bytes.

        Returns:
            ``arguments`` (parameters, embeddings, weather), ``outputs`` and ``temporaries``.
        """
        analysis = self._compiled().memory_analysis()
        return {
            "arguments": analysis.argument_size_in_bytes,
            "outputs": analysis.output_size_in_bytes - analysis.alias_size_in_bytes,
            "temporaries": analysis.temp_size_in_bytes,
        }

    def _ready(self) -> tuple[Any, Prepared]:
        """The compiled step and what it needs besides the weather, made when first asked for."""
        if self._program is None or self._prepared is None:
            began = perf_counter()
            with jax.default_device(self.device):
                prepared = jax.device_put(self.network.prepare(), self.device)
            self._prepared = jax.block_until_ready(prepared)
            if _shapes(prepared) != self._program_takes:
                self._program = None
            program = self._compiled()
            self.compile_seconds = self.compile_seconds or perf_counter() - began
            return program, self._prepared
        return self._program, self._prepared

    def _compiled(self) -> Any:
        """The step as a program for this device, from the shapes of what it takes alone."""
        if self._program is None:
            step = self._step
            if self.members_per_program > 1:
                step = jax.vmap(step, in_axes=(None, None, 0, None))
            place = SingleDeviceSharding(self.device)
            shapes = jax.tree.map(
                lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=place), self._argument_shapes()
            )
            self._program = jax.jit(step, donate_argnums=(2,)).lower(*shapes).compile()
            self._program_takes = _shapes(shapes[0])
        return self._program

    def _argument_shapes(self) -> tuple[Prepared, _Shapes, _Weather, _Shapes]:
        """Shapes of what ``_step`` takes: prepared, statics, weather, forcings."""
        task, shape = self.task, self.grid.shape

        def window(name: str) -> jax.ShapeDtypeStruct:
            levels = (len(task.pressure_levels),) if VARIABLES[name].on_levels else ()
            return jax.ShapeDtypeStruct((INPUT_FRAMES, *levels, *shape), np.float32)

        weather = _Weather(
            key=jax.ShapeDtypeStruct((2,), np.uint32),
            frames={name: window(name) for name in task.time_inputs},
        )
        if self.members_per_program > 1:
            weather = jax.tree.map(
                lambda a: jax.ShapeDtypeStruct((self.members_per_program, *a.shape), a.dtype), weather
            )
        used = {*task.input_variables, *task.forcing_variables} & COMPUTED_FORCINGS
        forcings = {name: jax.ShapeDtypeStruct((INPUT_FRAMES + 1, *shape), np.float32) for name in used}
        statics = {name: jax.ShapeDtypeStruct(shape, np.float32) for name in task.statics}
        with jax.default_device(self.device):
            prepared = jax.eval_shape(self.network.prepare)
        return prepared, statics, weather, forcings

    def _step(
        self, prepared: Prepared, statics: Fields, weather: _Weather, forcings: Fields
    ) -> tuple[_Weather, Fields]:
        """One member, one step, as a pure function.

        Args:
            forcings: (3, latitude, longitude), at the two input frames and at the target time.
        """
        carried, key = jax.random.split(weather.key)
        features = self.model_step.features(statics, weather.frames, forcings)
        predicted = self.network.predict(prepared, key, features)
        fields = self.model_step.fields(predicted, weather.frames)
        return _Weather(key=carried, frames=self.model_step.next_frames(weather.frames, fields)), fields

    def _place_statics(self, statics: xr.Dataset) -> Fields:
        if self._statics is None or self._statics[0] is not statics:
            checked = checked_statics(statics, self.task, self.grid)
            self._statics = statics, jax.device_put(checked, self.device)
        return self._statics[1]

    def _place_weather(self, states: list[RolloutState]) -> _Weather:
        """The states on the device: those carried from the last step where they are the same ones."""
        carried, self._carried = self._carried, None
        if carried and len(carried[0]) == len(states) and all(a is b for a, b in zip(carried[0], states)):
            return carried[1]
        stacked = [
            _Weather(key=state.key, frames={str(n): f.values for n, f in state.frames.items()})
            for state in states
        ]
        if self.members_per_program == 1:
            return jax.device_put(stacked[0], self.device)
        stacked += [stacked[-1]] * (self.members_per_program - len(stacked))
        return jax.device_put(jax.tree.map(lambda *leaves: np.stack(leaves), *stacked), self.device)

    def _place_forcings(self, state: RolloutState) -> Fields:
        step = self.task.step
        valid_time = state.init_time + (state.step + 1) * step
        times = [valid_time - 2 * step, valid_time - step, valid_time]
        by_time = [self._forcing(moment) for moment in times]
        # Those of the first step stay for the next member, which then starts without waiting for them.
        first = {state.init_time + offset * step for offset in (-1, 0, 1)}
        for moment in [moment for moment in self._forcings if moment < times[1] and moment not in first]:
            del self._forcings[moment]
        stacked = {name: np.stack([fields[name] for fields in by_time]) for name in by_time[0]}
        return jax.device_put(stacked, self.device)

    def _forcing(self, moment: datetime) -> dict[str, np.ndarray]:
        if moment not in self._forcings:
            used = {*self.task.input_variables, *self.task.forcing_variables}
            names = sorted(used & COMPUTED_FORCINGS)
            self._forcings[moment] = forcing_fields(names, moment, self.grid, given=self.given)
        return self._forcings[moment]

    def _carry(self, states: list[RolloutState], weather: _Weather) -> None:
        self._carried = states, weather


def _shapes(prepared: Prepared) -> list[tuple[int, ...]]:
    return [leaf.shape for leaf in jax.tree.leaves(prepared)]


@dataclass(kw_only=True)
class PendingStep:
    """A step that the device computes or has computed.

    Args:
        forecaster: that began it.
        states: before the step.
        weather, fields: after it, on the device.
    """

    forecaster: NetworkForecaster
    states: list[RolloutState]
    weather: _Weather
    fields: Fields

    def result(self) -> list[tuple[RolloutState, xr.Dataset]]:
        """Wait for the step: each member's state after it, and the fields at its time, on the host.

        Raises:
            InvalidFieldError: a member's fields are not finite where they must be.
        """
        forecaster = self.forecaster
        fields, keys = jax.device_get((self.fields, self.weather.key))
        if forecaster.members_per_program == 1:
            fields, keys = jax.tree.map(lambda leaf: leaf[None], (fields, keys))
        results = [
            (self._next_state(state, keys[i], {n: f[i] for n, f in fields.items()}), self._dataset(i, fields))
            for i, state in enumerate(self.states)
        ]
        forecaster._carry([state for state, _ in results], self.weather)
        return results

    def _next_state(
        self, state: RolloutState, key: np.ndarray, fields: dict[str, np.ndarray]
    ) -> RolloutState:
        for name, values in fields.items():
            wrong = ~np.isfinite(values)
            if name == NAN_CLEANED and name in state.frames:
                wrong &= ~np.isnan(state.frames[name].values).any(axis=0)
            if wrong.any():
                raise InvalidFieldError(
                    f"member {state.member}, step {state.step}: {name}: expected finite values, got NaN or infinity "
                    f"at {int(wrong.sum())} points"
                )
        frames = {
            name: (window.dims, np.concatenate([window.values[1:], fields[str(name)][None]]))
            for name, window in state.frames.items()
        }
        times = state.frames["time"].values + np.timedelta64(self.forecaster.task.step)
        coordinates = {**dict(state.frames.coords), "time": times}
        return replace(
            state,
            step=state.step + 1,
            key=np.asarray(key, dtype=np.uint32),
            frames=xr.Dataset(frames, coords=coordinates),
        )

    def _dataset(self, member: int, fields: dict[str, np.ndarray]) -> xr.Dataset:
        forecaster = self.forecaster
        variables = {
            name: (
                (*(("level",) if VARIABLES[name].on_levels else ()), "latitude", "longitude"),
                fields[name][member],
            )
            for name in forecaster.task.target_variables
        }
        coordinates = {"latitude": forecaster.grid.latitude, "longitude": forecaster.grid.longitude}
        if any(VARIABLES[name].on_levels for name in variables):
            coordinates["level"] = np.array(forecaster.task.pressure_levels, dtype=np.int32)
        return xr.Dataset(variables, coords=coordinates)
