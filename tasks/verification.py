"""Score a published cycle against the analyses that have arrived since."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from infra import layout
from infra.analyses import read_analysis
from infra.errors import InvalidFieldError, MissingDataError, StoreError, ValidationFailedError
from infra.forecast_store import open_forecast
from infra.initial_conditions import load_initial_condition
from infra.interpolation import Method
from infra.object_store import ObjectStore
from infra.publication import read_manifest
from infra.settings import Settings
from infra.sources import make_source
from infra.sources.source import FieldRequest, Source
from model.cycle import Cycle, parse_init_time
from model.diagnostics.ensemble_products import Event, as_published, available_quantities, wind_speed
from model.diagnostics.event_scores import event_statistics, total_events
from model.diagnostics.scores import ensemble_statistics, scores, total
from model.grid import Grid
from model.variables import VARIABLES
from tasks.climatology import ClimatologyAt, climatology_at, load_climatology
from tasks.ingest import fetch_analysis
from tasks.regrid import regrid_analysis

FIELDS, EVENTS, STATIONS = "statistics.nc", "events.nc", "stations.nc"

TruthAt = Callable[[datetime], xr.Dataset | None]
"""The analysis of a valid time on the model's grid, dims ([level,] latitude, longitude); None if it has not
arrived."""


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What became of verifying a cycle.

    Args:
        cycle: which.
        key: of the stored statistics.
        verified, missing: lead times that were scored, and those whose truth has not arrived.
    """

    cycle: Cycle
    key: str
    verified: tuple[timedelta, ...]
    missing: tuple[timedelta, ...]

    @property
    def complete(self) -> bool:
        """Whether every lead time was scored."""
        return not self.missing


@dataclass(frozen=True, kw_only=True)
class SkillRow:
    """One line of the skill table: a field at a lead time in a region. NaN where a score does not exist.

    Args:
        field: e.g. ``"z500"`` or ``"2m_temperature"``.
        lead: lead time.
        region: name of the region.
        units: of rmse, crps and spread.
        rmse, persistence_rmse, climatology_rmse: of the (ensemble-mean) forecast and of the two references.
        acc: anomaly correlation.
        crps: fair CRPS.
        spread_skill: spread over RMSE, 1 for a reliable ensemble.
    """

    field: str
    lead: timedelta
    region: str
    units: str
    rmse: float
    persistence_rmse: float
    climatology_rmse: float
    acc: float
    crps: float
    spread_skill: float

    @property
    def lead_days(self) -> float:
        """Lead time in days."""
        return self.lead / timedelta(days=1)


def verify_cycle(cycle: Cycle, settings: Settings, *, source: str | None = None) -> Verification:
    """Score a published cycle at every lead time whose truth has arrived, and store the statistics.

    Repeated later it scores what has arrived by then; the whole cycle is scored anew, so nothing counts twice.

    Args:
        cycle: a published cycle whose members are still stored.
        settings: store, model, source, climatology.
        source: name of the source of the truth; default the model's own.

    Raises:
        StoreError: the cycle is not published, or its members were removed.
        MissingDataError: no truth has arrived at all.
        ValidationFailedError: the source gives another kind of analysis than the model was trained on.
    """
    store = settings.store.open()
    model = settings.configured_model(cycle.model)
    named = settings.configured_source(source or model.source)
    if named.kind != model.trained_on:
        raise ValidationFailedError(
            f"{cycle}: truth must be of the kind the model was trained on, expected {model.trained_on!r}, "
            f"source {source or model.source!r} gives {named.kind!r}"
        )
    manifest = read_manifest(store, cycle)
    forecast = open_forecast(store, layout.forecast_store(cycle, manifest.run), members=manifest.members)
    forecast = forecast.isel(lead_time=slice(0, manifest.steps))
    truth = _arrived(
        store,
        make_source(source or model.source, named),
        forecast,
        method=model.regridding,
        cache=Path(settings.run.cache).expanduser() / "weights",
    )
    climatology = climatology_at(load_climatology(model.climatology)) if model.climatology else None
    return score_cycle(
        store,
        cycle,
        forecast,
        truth,
        persistence=_persistence(store, cycle),
        climatology=climatology,
        events=[Event(**event.model_dump()) for event in model.products.events],
    )


def score_cycle(
    store: ObjectStore,
    cycle: Cycle,
    forecast: xr.Dataset,
    truth: TruthAt,
    *,
    persistence: xr.Dataset | None,
    climatology: ClimatologyAt | None,
    events: Sequence[Event] = (),
) -> Verification:
    """Reduce a cycle to sufficient statistics, one lead time in memory at a time, and store them.

    Probabilities are scored for events on variables and wind speeds; those on totals since the start or on
    anomalies are passed over.
    """
    grid = Grid(resolution=180.0 / (forecast.sizes["latitude"] - 1))
    verified: list[timedelta] = []
    missing: list[timedelta] = []
    happened: list[xr.Dataset] = []

    def by_lead() -> Iterator[xr.Dataset]:
        for index, value in enumerate(forecast["lead_time"].values):
            lead = pd.Timedelta(value).to_pytimedelta()
            known = truth(cycle.init_time + lead)
            if known is None:
                missing.append(lead)
                continue
            verified.append(lead)
            at = _as_published(forecast.isel(lead_time=[index]))
            common = [name for name in at.data_vars if name in known]
            happened.extend(_event_statistics(at.isel(lead_time=0), known, events, grid, value))
            normal = None if climatology is None else climatology(cycle.init_time + lead)
            yield ensemble_statistics(
                at[common],
                _on_lead(known[common], value),
                grid=grid,
                persistence=persistence,
                climatology=None if normal is None else _on_lead(normal, value),
            )

    try:
        statistics = total(by_lead())
    except InvalidFieldError as error:
        if verified:
            raise
        raise MissingDataError(
            f"{cycle}: no truth has arrived for any of {len(missing)} lead times"
        ) from error
    statistics.attrs |= {"model": cycle.model, "init_time": cycle.identifier}
    if happened:
        store.write(layout.verification(cycle, EVENTS), statistics_bytes(total_events(happened)))
    key = layout.verification(cycle)
    store.write(key, statistics_bytes(statistics))
    return Verification(cycle=cycle, key=key, verified=tuple(verified), missing=tuple(missing))


def statistics_bytes(statistics: xr.Dataset) -> bytes:
    """Statistics as a NetCDF file."""
    buffer = io.BytesIO()
    statistics.to_netcdf(buffer, engine="h5netcdf", encoding={"lead_time": {"units": "hours"}})
    return buffer.getvalue()


def load_statistics(store: ObjectStore, cycle: Cycle, name: str = FIELDS) -> xr.Dataset:
    """A verified cycle's statistics: of its fields, or of its events.

    Raises:
        StoreError: the cycle was not verified.
    """
    data = io.BytesIO(store.read(layout.verification(cycle, name)))
    return xr.load_dataset(data, engine="h5netcdf", decode_timedelta=True)


def verified_cycles(store: ObjectStore, model: str, name: str = FIELDS) -> Iterator[Cycle]:
    """Cycles of a model that have statistics of that name, in order."""
    for folder in store.folders(layout.verification_prefix(model)):
        cycle = Cycle(model=model, init_time=parse_init_time(folder))
        if store.exists(layout.verification(cycle, name)):
            yield cycle


def skill_rows(
    store: ObjectStore,
    model: str,
    *,
    cycles: list[Cycle] | None = None,
    region: str = "global",
    name: str = FIELDS,
) -> list[SkillRow]:
    """The skill table of a model over some cycles, or over all that were verified.

    Args:
        store: where the statistics lie.
        model: whose.
        cycles: which; None: all.
        region: of the scores.
        name: statistics against analyses (``FIELDS``) or reports (``STATIONS``).

    Raises:
        InvalidFieldError: no cycle was verified.
    """
    chosen = cycles if cycles is not None else list(verified_cycles(store, model, name))
    result = scores(total(load_statistics(store, cycle, name) for cycle in chosen)).sel(region=region)
    rows = []
    for label in result["field"].values.tolist():
        variable, _, level = label.partition(" ")
        known = VARIABLES.get(variable) or VARIABLES["10m_u_component_of_wind"]  # else a wind speed
        for value in result["lead_time"].values:
            at = result.sel(field=label, lead_time=value)

            def score(name: str, at: xr.Dataset = at) -> float:
                return float(at[name]) if name in at else float("nan")

            rows.append(
                SkillRow(
                    field=f"{known.short_name}{level}" if level else variable,
                    lead=pd.Timedelta(value).to_pytimedelta(),
                    region=region,
                    units=known.units,
                    rmse=score("rmse"),
                    persistence_rmse=score("persistence_rmse"),
                    climatology_rmse=score("climatology_rmse"),
                    acc=score("acc"),
                    crps=score("crps"),
                    spread_skill=score("spread_skill_ratio"),
                )
            )
    return rows


def _event_statistics(
    forecast: xr.Dataset, truth: xr.Dataset, events: Sequence[Event], grid: Grid, lead: np.timedelta64
) -> Iterator[xr.Dataset]:
    """Statistics of the events that a forecast and its truth at one lead time tell about."""
    if forecast.sizes["member"] < 2:
        return
    names = [str(name) for name in forecast.data_vars if name in truth]
    available = available_quantities(names)
    fields = {}
    for event in events:
        quantity = available.get(event.quantity)
        if quantity is None or quantity.rule not in ("variable", "wind-speed"):
            continue
        if event.level is not None and event.level not in forecast["level"].values:
            continue
        both = []
        for dataset in (forecast, truth):
            inputs = [dataset[name] for name in quantity.inputs]
            if event.level is not None:
                inputs = [array.sel(level=event.level) for array in inputs]
            values = [array.transpose(..., "latitude", "longitude").values for array in inputs]
            both.append(wind_speed(*values) if quantity.rule == "wind-speed" else values[0])
        fields[event] = (both[0], both[1])
    if fields:
        yield event_statistics(fields, grid=grid, lead_time=lead)


def _arrived(
    store: ObjectStore, source: Source, forecast: xr.Dataset, *, method: Method, cache: Path
) -> TruthAt:
    """Truth from a source: fetched and regridded as inputs are, each time once."""
    grid = Grid(resolution=180.0 / (forecast.sizes["latitude"] - 1))
    offer = source.offers()
    names = tuple(
        str(name) for name in forecast.data_vars if str(name) in offer.direct or str(name) in offer.derived
    )
    levels = tuple(int(level) for level in forecast["level"].values) if "level" in forecast.dims else ()

    def truth(time: datetime) -> xr.Dataset | None:
        request = FieldRequest(valid_time=time, variables=names, levels=levels)
        try:
            raw = fetch_analysis(source, request, store)
        except MissingDataError:
            return None
        analysis = read_analysis(store, regrid_analysis(store, raw, grid, method=method, cache=cache))
        return analysis.isel(time=0, drop=True) if "time" in analysis.dims else analysis

    return truth


def _persistence(store: ObjectStore, cycle: Cycle) -> xr.Dataset | None:
    """The state the forecast started from."""
    try:
        condition = load_initial_condition(store, cycle)
    except StoreError:
        return None
    initial = condition.isel(time=-1, drop=True)
    return initial[[name for name in initial.data_vars if not VARIABLES[str(name)].static]]


def _as_published(fields: xr.Dataset) -> xr.Dataset:
    """What is scored is what was published."""
    rain = [str(name) for name in fields.data_vars if str(name).startswith("total_precipitation")]
    return fields.assign(
        {name: fields[name].copy(data=as_published(name, fields[name].values)) for name in rain}
    )


def _on_lead(dataset: xr.Dataset, lead: np.timedelta64) -> xr.Dataset:
    return dataset.expand_dims(lead_time=[lead])
