"""Which products are made of a forecast: settings resolved against the variables it has."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from infra.errors import UnknownOptionError
from infra.product_files import DEFAULT_KEPT_BITS, KEPT_BITS, ProductField, describe
from infra.settings import ProductSettings
from model.diagnostics.ensemble_products import (
    ANOMALY_SUFFIX,
    Event,
    Quantity,
    available_quantities,
    field_name,
)
from model.grid import Grid
from model.variables import STATICS, VARIABLES

SINGLED_OUT = (("geopotential", 500), ("temperature", 850))
"""Fields on levels that get quantiles, plumes and maps as the surface ones do."""

JUDGED = ("geopotential_500hPa", "temperature_850hPa", "mean_sea_level_pressure", "2m_temperature")
"""Fields by which members are compared; those a forecast has."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """A named place. Longitude may be −180…180 or 0…360."""

    name: str
    latitude: float
    longitude: float

    def nearest(self, grid: Grid) -> tuple[int, int]:
        """(row, column) of the nearest grid point."""
        row = int(np.argmin(np.abs(grid.latitude - self.latitude)))
        columns = grid.shape[1]
        return row, round((self.longitude % 360.0) / (360.0 / columns)) % columns


DEFAULT_POINTS = (
    Point(name="London", latitude=51.5, longitude=-0.1),
    Point(name="New York", latitude=40.7, longitude=-74.0),
    Point(name="Tokyo", latitude=35.7, longitude=139.7),
    Point(name="São Paulo", latitude=-23.6, longitude=-46.6),
    Point(name="Nairobi", latitude=-1.3, longitude=36.8),
    Point(name="Sydney", latitude=-33.9, longitude=151.2),
)
"""Where no points are configured."""


@dataclass(frozen=True, kw_only=True)
class ProductUnit:
    """One quantity and what is made of it in one reading of the members.

    Args:
        quantity: what.
        levels: hPa it is taken on; empty at the surface.
        column: whether its moments keep the level dimension, or are named level by level.
        quantile_names: fields (see ``field_name``) that get quantiles and point series.
        events: events on it.
    """

    quantity: Quantity
    levels: tuple[int, ...]
    column: bool
    quantile_names: tuple[str, ...]
    events: tuple[Event, ...]

    @property
    def name(self) -> str:
        """The quantity's name."""
        return self.quantity.name

    @property
    def point_names(self) -> tuple[str, ...]:
        """Fields recorded at points."""
        return self.quantile_names

    def single_name(self, level: int | None) -> str:
        """Name of one level's field."""
        return field_name(self.name, level)

    def output(self, level: int | None) -> tuple[str, bool]:
        """Name the moments of a level go under, and whether they keep the level dimension."""
        column = self.column and bool(self.levels)
        return (self.name if column else self.single_name(level)), column

    @property
    def outputs(self) -> tuple[tuple[str, int | None], ...]:
        """(name, singled-out level) of all moments."""
        if self.column or not self.levels:
            return ((self.name, None),)
        return tuple((self.single_name(level), level) for level in self.levels)

    @property
    def quantile_outputs(self) -> tuple[tuple[str, int | None], ...]:
        """(name, singled-out level) of all quantiles."""
        by_name: dict[str, int | None] = {self.single_name(level): level for level in self.levels or (None,)}
        return tuple((name, by_name[name]) for name in self.quantile_names)


@dataclass(frozen=True, kw_only=True)
class ProductPlan:
    """Everything that is to be made.

    Args:
        units: quantity by quantity.
        quantiles: ascending, within 0…1.
        points: named places.
        judged: fields members are compared by.
        not_available: names of events whose quantity this forecast cannot give.
    """

    units: tuple[ProductUnit, ...]
    quantiles: tuple[float, ...]
    points: tuple[Point, ...]
    judged: tuple[str, ...]
    not_available: tuple[str, ...] = ()

    @cached_property
    def quantity_of(self) -> dict[str, str]:
        """Quantity's name by the name of a field with quantiles."""
        return {name: unit.name for unit in self.units for name in unit.quantile_names}


def plan_products(
    settings: ProductSettings,
    variables: Sequence[str],
    levels: Sequence[int],
    *,
    climatology: Collection[str] = (),
) -> ProductPlan:
    """Resolve settings against what a forecast has.

    Args:
        settings: quantiles, events, points.
        variables: the forecast's variables.
        levels: its levels in hPa.
        climatology: the variables whose climatological mean is known.

    Raises:
        UnknownOptionError: an event's quantity does not exist at all, or it lacks or needs no level.
    """
    available = available_quantities(variables, climatology=climatology)
    every = available_quantities([n for n in VARIABLES if n not in STATICS], climatology=VARIABLES)
    events: list[Event] = []
    missing: list[Event] = []
    for configured in settings.events:
        event = Event(**configured.model_dump())
        if event.quantity not in every:
            raise UnknownOptionError(
                f"event quantity: expected one of {', '.join(sorted(every))}, got {event.quantity!r}"
            )
        if every[event.quantity].on_levels != (event.level is not None):
            need = "a level" if every[event.quantity].on_levels else "no level"
            raise UnknownOptionError(f"event on {event.quantity}: expected {need}, got {event.level}")
        possible = event.quantity in available and (event.level is None or event.level in levels)
        (events if possible else missing).append(event)

    units = []
    for quantity in available.values():
        own = tuple(event for event in events if event.quantity == quantity.name)
        anomaly = quantity.rule == "anomaly"
        if not quantity.on_levels:
            if anomaly and not own and quantity.name != f"2m_temperature{ANOMALY_SUFFIX}":
                continue
            units.append(
                ProductUnit(
                    quantity=quantity, levels=(), column=False, quantile_names=(quantity.name,), events=own
                )
            )
            continue
        base = quantity.name.removesuffix(ANOMALY_SUFFIX)
        singled = {level for name, level in SINGLED_OUT if name == base and level in levels}
        column = quantity.rule == "variable"
        wanted = (
            tuple(levels)
            if column
            else tuple(
                sorted({event.level for event in own if event.level} | (singled if anomaly else set()))
            )
        )
        if wanted:
            units.append(
                ProductUnit(
                    quantity=quantity,
                    levels=wanted,
                    column=column,
                    quantile_names=tuple(field_name(quantity.name, level) for level in sorted(singled)),
                    events=own,
                )
            )
    points = tuple(Point(**point.model_dump()) for point in settings.points) or DEFAULT_POINTS
    named = {name for unit in units for name in unit.quantile_names}
    return ProductPlan(
        units=tuple(units),
        quantiles=tuple(settings.quantiles),
        points=points,
        judged=tuple(name for name in JUDGED if name in named),
        not_available=tuple(event.name for event in missing),
    )


def product_fields(plan: ProductPlan, *, members: int) -> Iterator[ProductField]:
    """The arrays a plan makes of an ensemble; a single forecast has no spread, quantiles or probabilities."""
    for unit in plan.units:
        yield from _moments(unit, single=members < 2)
        if members > 1:
            yield from _quantiles(unit)
            yield from (_probability(unit, event) for event in unit.events)
    names = {unit.name for unit in plan.units}
    if {"10m_u_component_of_wind", "10m_v_component_of_wind"} <= names:
        yield ProductField(
            name="10m_wind_direction_mean",
            attrs=describe(
                "10 m wind direction of the ensemble-mean wind", "degree", standard_name="wind_from_direction"
            ),
        )


def _moments(unit: ProductUnit, *, single: bool) -> Iterator[ProductField]:
    quantity = unit.quantity
    for name, level in unit.outputs:
        dims = ("level",) if level is None and unit.levels else ()
        mean = "" if single else ", ensemble mean"
        yield ProductField(
            name=f"{name}_mean",
            dims=dims,
            kept_bits=KEPT_BITS.get(quantity.name, DEFAULT_KEPT_BITS),
            attrs=_attributes(unit, level, mean, [] if single else ["realization: mean"]),
        )
        if not single:
            yield ProductField(
                name=f"{name}_standard_deviation",
                dims=dims,
                attrs=_attributes(
                    unit, level, ", ensemble standard deviation", ["realization: standard_deviation"]
                ),
            )


def _quantiles(unit: ProductUnit) -> Iterator[ProductField]:
    for name, level in unit.quantile_outputs:
        yield ProductField(
            name=f"{name}_quantile",
            dims=("quantile",),
            kept_bits=KEPT_BITS.get(unit.quantity.name, DEFAULT_KEPT_BITS),
            attrs=_attributes(unit, level, ", ensemble quantiles", []),
        )


def _probability(unit: ProductUnit, event: Event) -> ProductField:
    at = "" if event.level is None else f" at {event.level} hPa"
    title = f"probability of {unit.quantity.long_name}{at} {event.direction} {event.threshold:g}"
    return ProductField(
        name=event.name,
        attrs={"threshold": event.threshold, "threshold_units": unit.quantity.units}
        | describe(f"{title} {unit.quantity.units}", "1"),
    )


def _attributes(unit: ProductUnit, level: int | None, suffix: str, methods: list[str]) -> dict:
    quantity = unit.quantity
    if quantity.accumulation_hours:
        methods = [f"lead_time: sum (interval: {quantity.accumulation_hours} hours)", *methods]
    elif quantity.rule == "since-start":
        methods = ["lead_time: sum (comment: since the start of the forecast)", *methods]
    at = "" if level is None else f" at {level} hPa"
    attrs = describe(
        f"{quantity.long_name}{at}{suffix}",
        quantity.units,
        standard_name=quantity.standard_name,
        methods=methods,
    )
    return attrs if level is None else {**attrs, "pressure_level": level}
