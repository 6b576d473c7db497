"""Drives jcm: SPEEDY physics on dinosaur's dynamics, T31 with eight layers, over real terrain.

jcm brings the boundary data: terrain, and climatologies of sea surface temperature, sea ice, snow, soil
and land temperature, monthly means interpolated to days, the same every year. SPEEDY's insolation is a daily
mean, so the run has an annual cycle but no diurnal one. (Molteni 2003, "Atmospheric simulations using a GCM
with simplified physical parametrizations", Climate Dynamics 20; jcm's documentation.)

jcm is an optional dependency (``pip install foldcast[nature-run]``) and is imported only when a run starts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from infra.errors import FoldcastError
from infra.nature_run.analysis import INTERVAL_HOURS, Boundary, ModelOutput
from model.times import numpy_time

TIME_STEP = timedelta(minutes=30)
GLOBAL_MEAN_SURFACE_PRESSURE = 98_500.0
"""Pa; the Earth's (Trenberth and Smith 2005). jcm starts 17 hPa heavier, and mass is conserved."""

GAUSSIAN_GRID = "F24"
"""ecCodes' and MIR's name of the model's grid: regular Gaussian, 48 × 96 points."""

_REFERENCE_PRESSURE = 1.0e5


class SimulationError(FoldcastError):
    """The circulation model could not start, or its state is no longer finite."""


@dataclass(frozen=True, kw_only=True)
class SimulationSettings:
    """What decides a run, apart from the versions of jcm and jax.

    Args:
        seed: of the small surface pressure perturbation of the resting initial state.
        start: time-zone aware; where the spin-up begins.
    """

    seed: int
    start: datetime

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"seed: expected a number ≥ 0, got {self.seed}")
        if self.start.tzinfo is None:
            raise ValueError(f"start: expected a time-zone aware datetime, got {self.start!r}")

    def description(self) -> dict[str, str | int | float]:
        """Everything that decides the run's values, for its record."""
        return {
            "model": "jcm: SPEEDY physics, T31, 8 layers",
            "jcm": metadata.version("jcm"),
            "jax": jax.__version__,
            "seed": self.seed,
            "start": self.start.astimezone(UTC).isoformat(),
            "time_step_seconds": TIME_STEP.total_seconds(),
            "global_mean_surface_pressure": GLOBAL_MEAN_SURFACE_PRESSURE,
        }


@dataclass(kw_only=True)
class Simulation:
    """A running circulation model: ``advance`` moves it on, ``save`` and ``restore`` keep its whole state."""

    settings: SimulationSettings
    _model: Any = field(init=False, repr=False)
    _forcing: Any = field(init=False, repr=False)
    _terrain: Any = field(init=False, repr=False)
    _state: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        jcm = _import_jcm()
        folder = resources.files("jcm.data.bc.t30.clim")
        coordinates = jcm.get_speedy_coords()
        self._terrain = jcm.TerrainData.from_file(folder / "terrain.nc", coords=coordinates)
        self._forcing = jcm.ForcingData.from_file(
            folder / "forcing.nc", coords=coordinates, align_mode="wrap_year"
        )
        self._model = jcm.Model(
            coords=coordinates,
            terrain=self._terrain,
            time_step=TIME_STEP.total_seconds() / 60,
            start_time=self.settings.start.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S"),
        )
        initial = self._model.initial_state(random_seed=self.settings.seed)
        self._model.bootstrap_state(_with_mean_pressure(initial, coordinates, GLOBAL_MEAN_SURFACE_PRESSURE))
        self._state = self._model.run_state

    @property
    def time(self) -> datetime:
        """The model's clock, UTC."""
        since = self._state.time.delta
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=int(since.days), seconds=int(since.seconds))

    def boundary(self) -> Boundary:
        """Grid, orography, land-sea mask and sea surface temperature of the run."""
        horizontal = self._model.coords.horizontal
        orography = horizontal.to_nodal(self._model.dycore.primitive.orography)
        gravity = float(self._model.dycore.constants.grav)
        return Boundary(
            latitude=np.degrees(np.asarray(horizontal.latitudes, dtype=np.float64))[::-1].copy(),
            longitude=np.degrees(np.asarray(horizontal.longitudes, dtype=np.float64)).round(6),
            sigma=np.asarray(self._model.coords.vertical.centers, dtype=np.float64),
            geopotential_at_surface=_upright(
                self._model.dycore.physics_specs.dimensionalize(orography, _metre()).magnitude * gravity
            ),
            land_sea_mask=_upright(self._terrain.fmask),
            sea_surface_temperature=_upright(self._forcing.sea_surface_temperature.values),
        )

    def advance(self, intervals: int) -> ModelOutput:
        """Move on by so many intervals of six hours; the frames at their ends.

        Raises:
            SimulationError: the state is no longer finite; the simulation stays where it was.
        """
        begin = self.time
        state, frames = _integrate(self._state, self._forcing, model=self._model, intervals=intervals)
        values = {name: np.asarray(field) for name, field in frames.items()}
        broken = sorted(name for name, field in values.items() if not np.isfinite(field).all())
        if broken:
            raise SimulationError(
                f"nature run after {begin:%Y-%m-%dT%H}: expected finite fields, "
                f"got others in {', '.join(broken)}"
            )
        self._state = state
        hours = INTERVAL_HOURS * np.arange(1, intervals + 1)
        start = numpy_time(begin)
        return ModelOutput(
            time=start + hours.astype("timedelta64[h]"),
            **{name: _upright(field) for name, field in values.items()},
        )

    def save(self, path: Path) -> None:
        """Write the whole state, for ``restore``."""
        from jcm.checkpoint import save_checkpoint

        save_checkpoint(self._model, path, run_state=self._state)

    def restore(self, path: Path) -> None:
        """Go to a saved state of the same settings."""
        from jcm.checkpoint import load_checkpoint

        load_checkpoint(self._model, path)
        self._state = self._model.run_state


@partial(jax.jit, static_argnames=("model", "intervals"))
def _integrate(state: Any, forcing: Any, *, model: Any, intervals: int) -> tuple[Any, dict[str, jax.Array]]:
    """Integrate and keep what analyses need; arrays have dims (time, [layer,] longitude, latitude)."""

    def interval(state: Any, _: None) -> tuple[Any, dict[str, jax.Array]]:
        # Averages give the interval's precipitation; the fields are those of the state at its end.
        new, averages = model.run_from_state_with_carry(
            state.dynamics,
            forcing,
            save_interval=INTERVAL_HOURS / 24,
            total_time=INTERVAL_HOURS / 24,
            output_averages=True,
            initial_physics_state=state.physics,
            initial_time=state.time,
            initial_step=state.step,
        )
        fields = model.dycore.to_physics_state(new.dynamics)
        # jcm publishes near-surface wind but not near-surface temperature: that is in the carried slot.
        surface = new.physics["_surface_flux"]
        frame = {
            "surface_pressure": fields.normalized_surface_pressure * _REFERENCE_PRESSURE,
            "temperature": fields.temperature,
            "geopotential": fields.geopotential,
            "specific_humidity": fields.specific_humidity,
            "u_component_of_wind": fields.u_wind,
            "v_component_of_wind": fields.v_wind,
            "precipitation": averages.physics["surface_exchange"].precipitation[0],
            "near_surface_temperature": surface.t0,
            "near_surface_u": surface.u0,
            "near_surface_v": surface.v0,
        }
        return new, jax.tree.map(lambda array: array.astype(jnp.float32), frame)

    return jax.lax.scan(interval, state, None, length=intervals)


def _with_mean_pressure(state: Any, coordinates: Any, pressure: float) -> Any:
    """Scale surface pressure everywhere by one factor: on sigma levels that disturbs no balance."""
    horizontal = coordinates.horizontal
    nodal = jnp.exp(horizontal.to_nodal(state.log_surface_pressure)) * _REFERENCE_PRESSURE
    weights = np.cos(np.asarray(horizontal.latitudes))
    mean = float((np.asarray(nodal) * weights).mean() / weights.mean())
    shift = horizontal.to_modal(jnp.full(nodal.shape, np.log(pressure / mean), nodal.dtype))
    return state.replace(log_surface_pressure=state.log_surface_pressure + shift)


def _upright(array: Any) -> np.ndarray:
    """From jcm's (…, longitude, latitude south to north) to (…, latitude north to south, longitude)."""
    return np.swapaxes(np.asarray(array), -1, -2)[..., ::-1, :]


def _metre() -> Any:
    from dinosaur.scales import units

    return units.meter


@dataclass(frozen=True, kw_only=True)
class _Jcm:
    Model: Any
    TerrainData: Any
    ForcingData: Any
    get_speedy_coords: Any


def _import_jcm() -> _Jcm:
    try:
        from jcm.forcing import ForcingData
        from jcm.model import Model
        from jcm.physics.speedy.speedy_coords import get_speedy_coords
        from jcm.terrain import TerrainData
    except ImportError as error:
        raise SimulationError(
            f"the nature run needs jcm, which is not installed ({error}): pip install 'foldcast[nature-run]'"
        ) from error
    return _Jcm(
        Model=Model, TerrainData=TerrainData, ForcingData=ForcingData, get_speedy_coords=get_speedy_coords
    )
