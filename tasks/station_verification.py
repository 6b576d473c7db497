"""Score a published cycle against station observations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache

import numpy as np
import pandas as pd
import xarray as xr

from infra import layout
from infra.errors import MissingDataError, StoreError, ValidationFailedError
from infra.forecast_store import open_forecast
from infra.initial_conditions import load_initial_condition
from infra.object_store import ObjectStore
from infra.observations import read_observations, reports_at
from infra.publication import read_manifest
from infra.settings import Settings, StationSettings
from model.cycle import Cycle
from model.diagnostics.ensemble_products import wind_speed
from model.diagnostics.scores import total
from model.diagnostics.station_scores import (
    STANDARD_GRAVITY,
    bilinear,
    height_correction,
    station_statistics,
)
from model.grid import Grid
from model.stations import Stations
from tasks.climatology import ClimatologyAt, climatology_at, load_climatology
from tasks.verification import STATIONS, Verification, statistics_bytes

WIND_SPEED = "10m_wind_speed"
_WIND = ("10m_u_component_of_wind", "10m_v_component_of_wind")
_CORRECTED = "2m_temperature"

ReportsAt = Callable[[datetime], pd.DataFrame | None]
"""The table that holds the reports of a valid time; None if it has not arrived."""


def verify_cycle_at_stations(cycle: Cycle, settings: Settings) -> Verification:
    """Score a published cycle at every lead time whose reports have arrived, and store the statistics.

    Args:
        cycle: a published cycle whose members are still stored.
        settings: store, model with ``stations``.

    Raises:
        ValidationFailedError: the model has no stations configured.
        StoreError: the cycle is not published, or its members were removed.
        MissingDataError: no reports have arrived at all.
        InvalidFieldError: the observations are not such.
    """
    store = settings.store.open()
    model = settings.configured_model(cycle.model)
    if model.stations is None:
        raise ValidationFailedError(f"{cycle}: model {cycle.model} has no station observations configured")
    manifest = read_manifest(store, cycle)
    forecast = open_forecast(store, layout.forecast_store(cycle, manifest.run), members=manifest.members)
    try:
        initial = load_initial_condition(store, cycle)
    except StoreError:
        initial = None
    return score_at_stations(
        store,
        cycle,
        forecast.isel(lead_time=slice(0, manifest.steps)),
        _table_reader(model.stations.observations),
        model.stations,
        initial=initial,
        climatology=climatology_at(load_climatology(model.climatology)) if model.climatology else None,
    )


def score_at_stations(
    store: ObjectStore,
    cycle: Cycle,
    forecast: xr.Dataset,
    reports: ReportsAt,
    options: StationSettings,
    *,
    initial: xr.Dataset | None,
    climatology: ClimatologyAt | None,
) -> Verification:
    """Reduce a cycle to sufficient statistics at stations, one variable and lead time in memory at a time.

    Args:
        store: receives the statistics.
        cycle: which.
        forecast: its members.
        reports: the observations.
        options: lapse rate and limits.
        initial: the initial condition: persistence, and the height of the model's surface; without it no
            temperature is corrected.
        climatology: of the model, for anomalies.

    Raises:
        MissingDataError: no reports have arrived.
    """
    grid = Grid(resolution=180.0 / (forecast.sizes["latitude"] - 1))
    verified: list[timedelta] = []
    missing: list[timedelta] = []
    parts = []
    for index, value in enumerate(forecast["lead_time"].values):
        lead = pd.Timedelta(value).to_pytimedelta()
        table = reports(cycle.init_time + lead)
        stations, observed = (None, {}) if table is None else reports_at(table, cycle.init_time + lead)
        at = forecast.isel(lead_time=index)
        known = [name for name in observed if _offered(at, name)]
        if stations is None or not known:
            missing.append(lead)
            continue
        added = _correction(initial, grid, stations, options.lapse_rate)
        normal = None if climatology is None else climatology(cycle.init_time + lead)
        state = None if initial is None else initial.isel(time=-1, drop=True)
        parts.append(
            station_statistics(
                {name: (_members(at, name, grid, stations, added), observed[name]) for name in known},
                stations,
                lead_time=value,
                persistence=_reference(state, known, grid, stations, added),
                climatology=_reference(normal, known, grid, stations, added),
                gross_limits=options.gross_limits,
            )
        )
        verified.append(lead)
    if not parts:
        raise MissingDataError(f"{cycle}: no reports have arrived for any of {len(missing)} lead times")
    statistics = total(parts)
    statistics.attrs |= {"model": cycle.model, "init_time": cycle.identifier}
    key = layout.verification(cycle, STATIONS)
    store.write(key, statistics_bytes(statistics))
    return Verification(cycle=cycle, key=key, verified=tuple(verified), missing=tuple(missing))


def _table_reader(path: str) -> ReportsAt:
    """Reads files by valid time (``strftime`` codes in the path), each once though it may hold many."""

    @lru_cache(maxsize=2)
    def read(place: str) -> pd.DataFrame | None:
        try:
            return read_observations(place)
        except MissingDataError:
            return None

    return lambda time: read(time.astimezone(UTC).strftime(path))


def _offered(fields: xr.Dataset, name: str) -> bool:
    if name == WIND_SPEED:
        return all(part in fields for part in _WIND)
    return name in fields and "level" not in fields[name].dims


def _members(at: xr.Dataset, name: str, grid: Grid, stations: Stations, added: np.ndarray) -> np.ndarray:
    """Members of a variable at the stations, dims (member, station)."""
    values = _at_stations(at, name, grid, stations, added)
    return values if values.ndim == 2 else values[np.newaxis]


def _at_stations(
    fields: xr.Dataset, name: str, grid: Grid, stations: Stations, added: np.ndarray
) -> np.ndarray:
    if name == WIND_SPEED:
        return wind_speed(*(_at_stations(fields, part, grid, stations, added) for part in _WIND))
    values = bilinear(fields[name].transpose(..., "latitude", "longitude").values, grid, stations)
    return values + added if name == _CORRECTED else values


def _reference(
    fields: xr.Dataset | None, names: list[str], grid: Grid, stations: Stations, added: np.ndarray
) -> Mapping[str, np.ndarray] | None:
    if fields is None:
        return None
    return {
        name: _at_stations(fields, name, grid, stations, added) for name in names if _offered(fields, name)
    }


def _correction(initial: xr.Dataset | None, grid: Grid, stations: Stations, lapse_rate: float) -> np.ndarray:
    if initial is None or lapse_rate == 0 or "geopotential_at_surface" not in initial:
        return np.zeros(len(stations.names))
    surface = initial["geopotential_at_surface"].transpose("latitude", "longitude").values
    height = bilinear(surface, grid, stations) / STANDARD_GRAVITY
    return height_correction(stations, height, lapse_rate=lapse_rate)
