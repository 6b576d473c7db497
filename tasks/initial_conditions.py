"""The model's two frames: fetched, decoded, regridded, put together and stored, unless they already are."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast

import xarray as xr
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from infra import layout
from infra.analyses import read_analysis
from infra.errors import MissingDataError
from infra.initial_conditions import (
    SEA_ICE_COVER,
    SEA_SURFACE_TEMPERATURE,
    SKIN_TEMPERATURE,
    Recipe,
    assemble,
    frame_times,
    skin_temperature_proxy,
    store_initial_condition,
    stored_recipe,
)
from infra.interpolation import Method
from infra.object_store import ObjectStore
from infra.settings import ModelSettings, Settings
from infra.sources import make_source
from infra.sources.source import FieldRequest, Source, source_fingerprint
from infra.statics import prepare_statics
from infra.version import code_version
from model.cycle import Cycle
from model.grid import Grid
from model.rollout.perturbations import Perturbation
from model.task import TaskConfig
from model.times import numpy_time
from tasks.ingest import fetch_analysis, is_transient
from tasks.model_identity import model_identity
from tasks.models import cache_folder
from tasks.regrid import regrid_analysis

_ERA5T_DELAY = timedelta(days=10)
"""ERA5T is published about five days behind; the sea changes slowly."""

_FRAMES = timedelta(days=2)
"""More than lies between any model's first frame, or the precipitation before it, and its init_time."""


@dataclass(frozen=True, kw_only=True)
class Ingredients:
    """What an initial condition of one model is made from.

    Args:
        task, grid: the model's.
        source: of the analyses.
        ocean: of the sea surface temperature, if it is another.
        recipe: how they are put together.
        store: holds raw, regridded and finished fields.
        cache: folder of interpolation weights.
    """

    task: TaskConfig
    grid: Grid
    source: Source
    ocean: Source | None
    recipe: Recipe
    store: ObjectStore
    cache: Path

    @property
    def atmosphere(self) -> tuple[str, ...]:
        """Inputs that come from the source as they are."""
        own = self.recipe.sea_surface_temperature == "source"
        return tuple(name for name in self.task.time_inputs if own or name != SEA_SURFACE_TEMPERATURE)

    @property
    def needs_other_ocean(self) -> bool:
        """Whether sea surface temperature is wanted, and not from the source itself."""
        return self.atmosphere != self.task.time_inputs

    def request(self, valid_time: datetime) -> FieldRequest:
        """What one frame takes from the source."""
        variables = self.atmosphere
        if SEA_SURFACE_TEMPERATURE in variables:
            variables += _mask_of(self.source)
        return FieldRequest(valid_time=valid_time, variables=variables, levels=self.task.pressure_levels)


def prepare_initial_condition(cycle: Cycle, settings: Settings) -> str:
    """A cycle's initial condition in the store; nothing is fetched twice.

    Where the model's perturbation needs other analyses, these are brought into the store as well.

    Returns:
        Its key; ``infra.initial_conditions.load_initial_condition`` reads it.

    Raises:
        MissingDataError: the source lacks something, or has not published it yet.
        TransientSourceError: a provider or the store failed in a way that may pass.
        InvalidFieldError: what came is damaged, of another time or on an unknown grid.
    """
    for other, source in other_analyses(cycle, settings):
        _prepare(other, settings, source)
    return _prepare(cycle, settings)


def other_analyses(cycle: Cycle, settings: Settings) -> tuple[tuple[Cycle, str], ...]:
    """The cycles and sources of the analyses a model's perturbation needs beside the control's, in order.

    Raises:
        UnknownOptionError, ValueError: the perturbation is not configured as it should be.
    """
    perturbation = Perturbation.from_json(settings.configured_model(cycle.model).perturbation)
    if perturbation.kind == "lagged":
        lags = (timedelta(hours=hours) for hours in perturbation.lags_hours)
        return tuple((Cycle(model=cycle.model, init_time=cycle.init_time - lag), "") for lag in lags)
    if perturbation.kind == "analyses":
        return tuple((cycle, source) for source in perturbation.sources)
    return ()


def analyses_reach(settings: Settings) -> timedelta:
    """How far before its init_time a cycle of any configured model may read analyses, generously."""
    lags = [hours for model in settings.models.values() for hours in model.perturbation.get("lags_hours", ())]
    return _ERA5T_DELAY + _FRAMES + timedelta(hours=max(lags, default=0))


def _prepare(cycle: Cycle, settings: Settings, source: str = "") -> str:
    ingredients = _ingredients(cycle, settings, source)
    if stored_recipe(ingredients.store, cycle, source) == ingredients.recipe.fingerprint:
        return layout.initial_condition(cycle, source)
    return build_initial_condition(cycle, ingredients, source)


def build_initial_condition(cycle: Cycle, ingredients: Ingredients, source: str = "") -> str:
    """Fetch, regrid, assemble and store; returns the key. ``source`` names one of a set of analyses."""
    times = frame_times(ingredients.task, cycle.init_time)
    statics = _statics(ingredients, cycle.init_time)
    frames = _at_once(lambda time: _frame(ingredients, time, statics), times)
    dataset = assemble(
        frames, statics, task=ingredients.task, grid=ingredients.grid, init_time=cycle.init_time
    )
    provenance = {
        "source": ingredients.source.name,
        "kind": ingredients.source.kind,
        "sea_surface_temperature": ingredients.recipe.sea_surface_temperature,
        "frames": {time.isoformat(): _origin(frame) for time, frame in zip(times, frames)},
        "statics": _origin(statics),
        "code_version": code_version(),
    }
    return store_initial_condition(
        ingredients.store, cycle, dataset, ingredients.recipe, provenance, source=source
    )


def _at_once(make: Callable[[datetime], xr.Dataset], times: Sequence[datetime]) -> list[xr.Dataset]:
    """One result for each time, each made in a thread of its own.

    All have ended when it returns or one's failure is raised. A timeout that strikes while it waits leaves a thread
    that hangs behind, where an executor would wait for it.
    """

    def run(time: datetime, result: Future[xr.Dataset]) -> None:
        try:
            result.set_result(make(time))
        except BaseException as error:
            result.set_exception(error)

    results: list[Future[xr.Dataset]] = [Future() for _ in times]
    for time, result in zip(times, results):
        threading.Thread(target=run, args=(time, result), name=f"frame {time}", daemon=True).start()
    for result in results:
        result.exception()  # waits
    return [result.result() for result in results]


def missing_inputs(cycle: Cycle, settings: Settings) -> tuple[str, ...]:
    """What the source still lacks for a cycle; empty if it can be prepared. Asks headers and indexes only.

    Raises:
        TransientSourceError: the source could not be asked.
    """
    wanted = ((cycle, ""), *other_analyses(cycle, settings))
    return tuple(piece for each, source in wanted for piece in _missing(each, settings, source))


def _missing(cycle: Cycle, settings: Settings, name: str) -> list[str]:
    ingredients = _ingredients(cycle, settings, name)
    if stored_recipe(ingredients.store, cycle, name) == ingredients.recipe.fingerprint:
        return []
    missing: list[str] = []
    for valid_time in frame_times(ingredients.task, cycle.init_time):
        availability = ingredients.source.available(ingredients.request(valid_time))
        missing += availability.missing
        if not availability.complete and not availability.missing:
            missing.append(f"{ingredients.source.name} at {valid_time:%Y%m%dT%HZ}")
    return missing


def _ingredients(cycle: Cycle, settings: Settings, source_name: str = "") -> Ingredients:
    model = settings.configured_model(cycle.model)
    identity = model_identity(model, cache=cache_folder(settings))
    name = source_name or model.source
    source = make_source(name, settings.configured_source(name))
    ocean = None
    if SEA_SURFACE_TEMPERATURE in identity.task.time_inputs and model.sea_surface_temperature == "era5t":
        name = _era5_source(settings, model)
        ocean = make_source(name, settings.configured_source(name))
    recipe = Recipe(
        variables=identity.task.time_inputs,
        statics=identity.task.statics,
        levels=identity.task.pressure_levels,
        step_hours=identity.task.step / timedelta(hours=1),
        resolution=identity.grid.resolution,
        source=source.name,
        kind=source.kind,
        sea_surface_temperature=model.sea_surface_temperature,
        regridding=model.regridding,
        source_configuration=source_fingerprint(source),
        ocean="" if ocean is None else f"{ocean.name} {source_fingerprint(ocean)}",
        code_version=code_version(),
    )
    return Ingredients(
        task=identity.task, grid=identity.grid, source=source, ocean=ocean, recipe=recipe,
        store=settings.store.open(), cache=cache_folder(settings) / "weights",
    )  # fmt: skip


def _era5_source(settings: Settings, model: ModelSettings) -> str:
    named = [name for name, source in settings.sources.items() if source.kind == "era5"]
    if not named:
        raise MissingDataError(
            "sea_surface_temperature = 'era5t' needs a configured source of kind 'era5'; "
            f"configured: {', '.join(sorted(settings.sources)) or 'none'}"
        )
    return model.source if model.source in named else named[0]


def _on_grid(ingredients: Ingredients, source: Source, request: FieldRequest) -> xr.Dataset:
    """A request's fields on the model's grid, by way of the store."""
    raw = fetch_analysis(source, request, ingredients.store)
    key = regrid_analysis(
        ingredients.store, raw, ingredients.grid, method=_method(ingredients), cache=ingredients.cache
    )
    return read_analysis(ingredients.store, key)


def _frame(ingredients: Ingredients, valid_time: datetime, statics: xr.Dataset) -> xr.Dataset:
    """All time-dependent inputs at one time."""
    frame = _on_grid(ingredients, ingredients.source, ingredients.request(valid_time))
    if not ingredients.needs_other_ocean:
        return frame
    if ingredients.ocean is not None:
        ocean = _recent_ocean(ingredients, ingredients.ocean, valid_time)
    else:
        ocean = _ocean_proxy(ingredients, valid_time, statics)
    frame = frame.assign({SEA_SURFACE_TEMPERATURE: ocean[SEA_SURFACE_TEMPERATURE]})
    return frame.assign_attrs(sea_surface_temperature_origin=json.dumps(_origin(ocean)))


def _recent_ocean(ingredients: Ingredients, ocean: Source, valid_time: datetime) -> xr.Dataset:
    """Sea surface temperature of the latest day on or before valid_time that the ocean's source has."""
    variables = (SEA_SURFACE_TEMPERATURE, *_mask_of(ocean))
    day = valid_time
    while day >= valid_time - _ERA5T_DELAY:
        request = FieldRequest(valid_time=day, variables=variables)
        if ocean.available(request).complete:
            found = _on_grid(ingredients, ocean, request)
            return found.assign_coords(time=[numpy_time(valid_time)]).assign_attrs(taken_from=day.isoformat())
        day -= timedelta(days=1)
    raise MissingDataError(
        f"{ocean.name}: no sea surface temperature between {day + timedelta(days=1):%Y%m%dT%HZ} and "
        f"{valid_time:%Y%m%dT%HZ}"
    )


def _ocean_proxy(ingredients: Ingredients, valid_time: datetime, statics: xr.Dataset) -> xr.Dataset:
    """Sea surface temperature from the source's skin temperature."""
    offers = ingredients.source.offers()
    ice = (SEA_ICE_COVER,) if SEA_ICE_COVER in offers.direct else ()
    variables = (SKIN_TEMPERATURE, *ice, *_mask_of(ingredients.source))
    request = FieldRequest(valid_time=valid_time, variables=variables)
    surface = _on_grid(ingredients, ingredients.source, request)
    proxy = skin_temperature_proxy(
        surface[SKIN_TEMPERATURE], statics["land_sea_mask"], surface[SEA_ICE_COVER] if ice else None
    )
    return proxy.to_dataset().assign_attrs(surface.attrs)


def _statics(ingredients: Ingredients, valid_time: datetime) -> xr.Dataset:
    """Orography and land-sea mask on the model's grid; empty for a model that takes neither."""
    if not ingredients.task.statics:
        return xr.Dataset()
    return prepare_statics(
        ingredients.source,
        ingredients.store,
        ingredients.grid,
        FieldRequest(valid_time=valid_time, variables=ingredients.task.statics),
        method=_method(ingredients),
        cache=ingredients.cache,
    )


def _method(ingredients: Ingredients) -> Method:
    return cast(Method, ingredients.recipe.regridding)


def _mask_of(source: Source) -> tuple[str, ...]:
    """The land-sea mask on the source's own grid, if it has one: it keeps land values out of the sea."""
    return ("land_sea_mask",) if "land_sea_mask" in source.offers().direct else ()


def _origin(fields: xr.Dataset) -> Mapping[str, Any]:
    """Where fields came from, out of their attrs."""
    plain = ("source", "kind", "regridding", "code_version", "taken_from")
    encoded = ("urls", "messages", "stored_as", "sea_surface_temperature_origin")
    return {
        name: json.loads(value) if name in encoded else value
        for name, value in fields.attrs.items()
        if name in (*plain, *encoded)
    }


prepare_initial_condition_task = task(
    name="prepare initial condition",
    retries=4,
    retry_delay_seconds=exponential_backoff(backoff_factor=15),
    retry_jitter_factor=0.5,
    retry_condition_fn=is_transient,
    timeout_seconds=3600,
    persist_result=False,
    cache_policy=NO_CACHE,
)(prepare_initial_condition)
