"""A model's two frames: put together from analyses, stored once with provenance, read whole or not at all.

What an initial condition is made of and how is its *recipe*; its fingerprint is stored with the fields, so
that a rerun or a backfill finds what is there and a change of configuration does not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import xarray as xr

from infra import layout
from infra.analyses import drop_analysis, drop_raw, has_analysis, read_analysis, write_analysis
from infra.errors import InvalidFieldError, StoreError
from infra.object_store import ObjectStore
from model.cycle import Cycle
from model.grid import Grid
from model.task import TaskConfig
from model.times import numpy_time
from model.variables import VARIABLES

SEA_SURFACE_TEMPERATURE = "sea_surface_temperature"
SKIN_TEMPERATURE = "skin_temperature"
SEA_ICE_COVER = "sea_ice_cover"

TEMPERATURE_UNDER_ICE = 269.9
"""K, where the proxy finds sea ice (NOAA's initial conditions for the same models)."""

FREEZING_SEA_WATER = 271.35
"""K; a colder skin over sea is ice, where no ice cover is given."""

_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides the values of an initial condition, but the data themselves.

    Args:
        variables: time-dependent inputs.
        statics: inputs without time.
        levels: hPa.
        step_hours: between the frames.
        resolution: of the grid, degrees.
        source: name of the source.
        kind: which analyses it gives.
        sea_surface_temperature: ``source``, ``era5t`` or ``skin-temperature``.
        regridding: method.
        source_configuration, ocean: fingerprints of the source's configuration, and of the source of the sea
            surface temperature if that is another.
        code_version: of Foldcast.
    """

    variables: tuple[str, ...]
    statics: tuple[str, ...]
    levels: tuple[int, ...]
    step_hours: float
    resolution: float
    source: str
    kind: str
    sea_surface_temperature: str = "source"
    regridding: str = "auto"
    source_configuration: str = ""
    ocean: str = ""
    code_version: str = ""

    @property
    def fingerprint(self) -> str:
        """16 hex digits that change with the recipe."""
        text = json.dumps([_FORMAT, asdict(self)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def frame_times(task: TaskConfig, init_time: datetime) -> tuple[datetime, datetime]:
    """Valid times of the two frames: one model step before init_time, and init_time, UTC."""
    init_time = init_time.astimezone(UTC)
    return init_time - task.step, init_time


def assemble(
    frames: Sequence[xr.Dataset],
    statics: xr.Dataset,
    *,
    task: TaskConfig,
    grid: Grid,
    init_time: datetime,
) -> xr.Dataset:
    """Join two frames and the statics to an initial condition.

    Args:
        frames: by valid time, dims ([time=1,] [level,] latitude, longitude), all time inputs of the task.
        statics: the task's statics, no time.
        task: what the model takes.
        grid: where everything lies.
        init_time: the second frame's valid time.

    Returns:
        float32, dims (time=2, [level,] latitude, longitude), statics without time; units in attrs. Sea
        surface temperature without a single missing value loses those over land (land fraction above ½).

    Raises:
        InvalidFieldError: a field is absent, on another grid, or not of the frame's time.
    """
    where = f"initial condition of {init_time:%Y%m%dT%HZ}"
    times = [numpy_time(time) for time in frame_times(task, init_time)]
    if len(frames) != 2:
        raise InvalidFieldError(f"{where}: expected 2 frames, got {len(frames)}")
    single = [_at(frame, time, where) for frame, time in zip(frames, times)]
    for part, names in (*((frame, task.time_inputs) for frame in single), (statics, task.statics)):
        absent = [name for name in names if name not in part]
        if absent:
            raise InvalidFieldError(f"{where}: missing {', '.join(absent)}")
        mismatch = grid.mismatch(part) if names else None
        if mismatch:
            raise InvalidFieldError(f"{where}: {mismatch}")
    plain = [_on_grid(part[list(task.time_inputs)], task, grid) for part in single]
    axis = xr.IndexVariable("time", np.array(times))
    joined = xr.concat(plain, dim=axis, coords="minimal", compat="override")
    fixed = _on_grid(statics[list(task.statics)], task, grid)
    joined = joined.assign({name: fixed[name] for name in fixed.data_vars})
    if SEA_SURFACE_TEMPERATURE in joined and "land_sea_mask" in joined:
        field = joined[SEA_SURFACE_TEMPERATURE]
        if not field.isnull().any():
            joined[SEA_SURFACE_TEMPERATURE] = field.where(joined["land_sea_mask"] <= 0.5)
    for name in joined.data_vars:
        order = [dim for dim in ("time", "level") if dim in joined[name].dims]
        joined[name] = joined[name].transpose(*order, "latitude", "longitude").astype(np.float32)
        joined[name].attrs = {"units": VARIABLES[str(name)].units}
    joined.attrs = {}
    return joined


def _at(frame: xr.Dataset, time: np.datetime64, where: str) -> xr.Dataset:
    if "time" not in frame.coords:
        raise InvalidFieldError(f"{where}: expected frames with a time coordinate, got none")
    got = np.atleast_1d(frame["time"].values)
    if got.size != 1 or got[0].astype("M8[ns]") != time:
        raise InvalidFieldError(
            f"{where}: expected a frame of valid time {time.astype('M8[h]')}, got "
            f"{', '.join(str(each.astype('M8[h]')) for each in got) or 'none'}: stale or another cycle's data"
        )
    return frame.isel(time=0, drop=True) if "time" in frame.dims else frame.drop_vars("time")


def _on_grid(part: xr.Dataset, task: TaskConfig, grid: Grid) -> xr.Dataset:
    if "level" in part.dims:
        absent = [level for level in task.pressure_levels if level not in part["level"].values]
        if absent:
            raise InvalidFieldError(f"expected levels {task.pressure_levels} hPa, missing {absent}")
        part = part.sel(level=list(task.pressure_levels))
        part = part.assign_coords(level=np.array(task.pressure_levels, dtype=np.int32))
    part = part.assign_coords(latitude=grid.latitude, longitude=grid.longitude)
    extra = [name for name in part.coords if name not in ("level", "latitude", "longitude")]
    return part.drop_vars(extra)


def skin_temperature_proxy(
    skin: xr.DataArray, land_sea_mask: xr.DataArray, sea_ice_cover: xr.DataArray | None = None
) -> xr.DataArray:
    """Sea surface temperature from skin temperature, where no better is to be had.

    Args:
        skin: skin temperature in K.
        land_sea_mask: land fraction; above ½ the result is missing.
        sea_ice_cover: fraction; above ½ it is ice. Without it, skin colder than freezing sea water is ice.

    Returns:
        K; 269.9 under sea ice, never colder, NaN over land.
    """
    ice = skin < FREEZING_SEA_WATER if sea_ice_cover is None else sea_ice_cover.fillna(0.0) > 0.5
    water = np.maximum(skin, TEMPERATURE_UNDER_ICE)
    proxy = xr.where(ice, TEMPERATURE_UNDER_ICE, water).where(land_sea_mask <= 0.5)
    return proxy.transpose(*skin.dims).astype(np.float32).rename(SEA_SURFACE_TEMPERATURE)


def store_initial_condition(
    store: ObjectStore,
    cycle: Cycle,
    dataset: xr.Dataset,
    recipe: Recipe,
    provenance: Mapping[str, Any],
    *,
    source: str = "",
) -> str:
    """Store an initial condition, its mark of completeness last; returns its key.

    Args:
        store: where.
        cycle: whose.
        dataset: from ``assemble``.
        recipe: how it was made.
        provenance: JSON: sources, URLs, sha256 of raw messages, code version; kept in attrs.
        source: name of the source, for one of a set of analyses beside the control's.
    """
    key = layout.initial_condition(cycle, source)
    dataset = dataset.assign_attrs(
        cycle=str(cycle), recipe=recipe.fingerprint, provenance=json.dumps(provenance, sort_keys=True)
    )
    write_analysis(store, key, dataset)
    return key


def stored_recipe(store: ObjectStore, cycle: Cycle, source: str = "") -> str | None:
    """Fingerprint of the recipe of a cycle's stored initial condition; None if there is no whole one."""
    if not has_analysis(store, layout.initial_condition(cycle, source)):
        return None
    return str(initial_condition_attributes(store, cycle, source).get("recipe", ""))


def initial_condition_attributes(store: ObjectStore, cycle: Cycle, source: str = "") -> dict[str, Any]:
    """The attributes of a cycle's stored initial condition (cycle, recipe, provenance); no field is read.

    Raises:
        StoreError: there is none, or it was never completed.
    """
    key = layout.initial_condition(cycle, source)
    _require(store, cycle, key)
    with xr.open_zarr(store.zarr(key, read_only=True), consolidated=False, chunks=None) as opened:
        return dict(opened.attrs)


def load_initial_condition(store: ObjectStore, cycle: Cycle, source: str = "") -> xr.Dataset:
    """A cycle's initial condition (or that of one source of a set), in memory, compared with its checksum.

    Raises:
        StoreError: there is none, it was never completed, or it is not what was written.
    """
    key = layout.initial_condition(cycle, source)
    _require(store, cycle, key)
    return read_analysis(store, key)


def _require(store: ObjectStore, cycle: Cycle, key: str) -> None:
    if not has_analysis(store, key):
        raise StoreError(f"{cycle}: no complete initial condition at {store.url(key)}")


def quarantine_initial_condition(
    store: ObjectStore, cycle: Cycle, *, reason: str, report: str, source: str = ""
) -> str:
    """Take a rejected initial condition out of use, with the reason beside it; returns the reason's key.

    The mark of completeness goes first: from then on nothing reads it. The fields are kept for a look. What they
    were made of, raw and regridded, is removed, so that the next attempt fetches anew.
    """
    key = layout.initial_condition(cycle, source)
    inputs = _inputs(initial_condition_attributes(store, cycle, source))
    store.delete(f"{key}.json")
    folder = f"initial-condition{'-' if source else ''}{source}"
    written = layout.quarantine(cycle, f"{folder}/reason.txt")
    store.write(written, f"{cycle}: initial condition rejected\n{reason}\n".encode())
    store.write(layout.quarantine(cycle, f"{folder}/report.json"), report.encode())
    for name in store.list(f"{key}/"):
        inner = name.removeprefix(f"{key}/")
        store.write(layout.quarantine(cycle, f"{folder}/fields.zarr/{inner}"), store.read(name))
    store.delete(f"{key}/")
    for stored in inputs:
        drop_analysis(store, stored["fields"])
        if "raw" in stored:
            drop_raw(store, stored["raw"])
    return written


def _inputs(attributes: Mapping[str, Any]) -> list[dict[str, str]]:
    """Keys of everything an initial condition was made of, out of its provenance."""
    provenance = json.loads(attributes.get("provenance", "{}"))
    found, waiting = [], [*provenance.get("frames", {}).values(), provenance.get("statics", {})]
    for origin in waiting:
        if "stored_as" in origin:
            found.append(dict(origin["stored_as"]))
        if "sea_surface_temperature_origin" in origin:
            waiting.append(origin["sea_surface_temperature_origin"])
    return found
