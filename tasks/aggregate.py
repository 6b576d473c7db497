"""From members to products: one pass over the forecast store, one lead time and one quantity at a time.

Memory is that of one field of one quantity (all levels) and a tile of all members, whatever the size of the
ensemble: each member's chunk is read once, and stacks beyond the budget lie in a scratch file.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from infra.errors import IncompleteCycleError
from infra.member_stack import MemberStack
from infra.product_files import DEFAULT_KEPT_BITS, KEPT_BITS, ProductField, ProductStore, describe
from model.diagnostics.ensemble_products import (
    as_published,
    mean_and_standard_deviation,
    most_representative_member,
    probability,
    quantiles,
    round_mantissa,
    squared_distances,
    wind_direction,
    wind_speed,
)
from model.grid import Grid
from model.times import aware_time
from tasks.climatology import ClimatologyAt
from tasks.product_plan import ProductPlan, ProductUnit, product_fields

_DIRECTION = "10m_wind_direction_mean"
DEFAULT_BUDGET = 1 << 30
"""Bytes of members' fields held in memory at once."""


@dataclass(frozen=True, kw_only=True)
class Aggregate:
    """What a pass over the members gave.

    Args:
        folder: where ``ensemble.zarr``, ``representative_member.zarr`` and ``points.nc`` lie.
        statistics: a row per product, level, quantile and lead time: minimum, maximum, mean, missing.
        members: a row per judged field, lead time and member: mean, distance to the ensemble mean,
            checksum of its values.
        representative_member: global number of the member nearest to the mean; None for a single forecast.
    """

    folder: Path
    statistics: pd.DataFrame
    members: pd.DataFrame
    representative_member: int | None


def aggregate(
    forecast: xr.Dataset,
    folder: Path,
    *,
    plan: ProductPlan,
    climatology: ClimatologyAt | None = None,
    budget: int = DEFAULT_BUDGET,
    attrs: dict[str, Any] | None = None,
) -> Aggregate:
    """Make all products of a forecast in a local folder.

    Args:
        forecast: lazily opened, dims (member, lead_time, [level,] latitude, longitude), coordinate init_time.
        folder: receives the products.
        plan: which products.
        climatology: for anomalies.
        budget: bytes of members' fields to hold in memory.
        attrs: attributes of the product stores (title, model, run, …).

    Raises:
        IncompleteCycleError: a member's field is missing (all NaN).
        PublicationError: a product read back differently from what was written.
    """
    grid = Grid(resolution=180.0 / (forecast.sizes["latitude"] - 1))
    init_time = aware_time(forecast["init_time"].values)
    leads = tuple(pd.Timedelta(lead).to_pytimedelta() for lead in forecast["lead_time"].values)
    store = ProductStore(
        folder=folder / "ensemble.zarr",
        grid=grid,
        init_time=init_time,
        lead_times=leads,
        levels=tuple(int(level) for level in forecast["level"].values) if "level" in forecast.dims else (),
        quantiles=plan.quantiles if forecast.sizes["member"] > 1 else (),
        fields=tuple(product_fields(plan, members=forecast.sizes["member"])),
        attrs=attrs or {},
    )
    work = _Pass(forecast=forecast, plan=plan, store=store, grid=grid, climatology=climatology)
    shape = {unit.name: (max(len(unit.levels), 1), *grid.shape) for unit in plan.units}
    count = forecast.sizes["member"]
    with ExitStack() as scratch:
        running = {
            unit.name: scratch.enter_context(
                MemberStack(count, shape[unit.name], budget=budget // 4, folder=folder)
            )
            for unit in plan.units
            if unit.quantity.rule == "since-start"
        }
        for lead_index in range(len(leads)):
            means: dict[str, np.ndarray] = {}
            for unit in plan.units:
                with ExitStack() as local:
                    stack = running.get(unit.name) or local.enter_context(
                        MemberStack(count, shape[unit.name], budget=budget, folder=folder)
                    )
                    for position in range(count):
                        work.load(stack, unit, position, lead_index)
                    means |= work.reduce(stack, unit, lead_index)
            work.direction(means, lead_index)
    representative = work.representative()
    store.finish(members=forecast["member"].values.tolist(), **_named(representative))
    write_points(work.points, forecast, plan, folder / "points.nc", attrs or {})
    if representative is not None:
        _write_member(forecast, representative, folder / "representative_member.zarr", store, attrs or {})
    return Aggregate(
        folder=folder,
        statistics=pd.DataFrame(work.statistics),
        members=pd.DataFrame(work.members),
        representative_member=representative,
    )


@dataclass(frozen=True, kw_only=True)
class _Pass:
    """The running state of one pass: collected statistics, distances and point series."""

    forecast: xr.Dataset
    plan: ProductPlan
    store: ProductStore
    grid: Grid
    climatology: ClimatologyAt | None
    statistics: list[dict[str, Any]] = field(default_factory=list)
    members: list[dict[str, Any]] = field(default_factory=list)
    points: dict[str, np.ndarray] = field(default_factory=dict)
    distances: dict[tuple[str, int], np.ndarray] = field(default_factory=dict)

    def load(self, stack: MemberStack, unit: ProductUnit, position: int, lead_index: int) -> None:
        """Put one member's field of a quantity on the stack."""
        at = self.forecast.isel(member=position, lead_time=lead_index)
        inputs = []
        for name in unit.quantity.inputs:
            array = at[name]
            if unit.levels and unit.levels != tuple(array["level"].values.tolist()):
                array = array.sel(level=list(unit.levels))
            values = np.asarray(array.values, dtype=np.float32).reshape(-1, *self.grid.shape)
            if np.isnan(values).all():
                raise IncompleteCycleError(
                    f"member {int(at['member'])}, lead time {self.store.lead_times[lead_index]}, {name}: "
                    "expected a field, found only missing values"
                )
            inputs.append(as_published(name, values))
        rule = unit.quantity.rule
        if rule == "wind-speed":
            stack.put(position, wind_speed(*inputs))
        elif rule == "since-start":
            stack.put(position, stack.get(position) + inputs[0])
        elif rule == "anomaly":
            stack.put(position, inputs[0] - self._normal(unit, lead_index))
        else:
            stack.put(position, inputs[0])

    def _normal(self, unit: ProductUnit, lead_index: int) -> np.ndarray:
        if self.climatology is None:
            raise ValueError(f"{unit.name}: expected a climatology, got none")
        mean = self.climatology(self.store.init_time + self.store.lead_times[lead_index])
        normal = mean[unit.quantity.inputs[0]]
        if unit.levels:
            normal = normal.sel(level=list(unit.levels))
        return np.asarray(normal.values, dtype=np.float32).reshape(-1, *self.grid.shape)

    def reduce(self, stack: MemberStack, unit: ProductUnit, lead_index: int) -> dict[str, np.ndarray]:
        """Write a quantity's products of one lead time; returns the means by name."""
        count = self.forecast.sizes["member"]
        ensemble = count > 1
        out: dict[str, np.ndarray] = {}
        judged: dict[str, _Judged] = {}

        def place(name: str, shape: tuple[int, ...], index: tuple, values: np.ndarray) -> None:
            out.setdefault(name, np.empty(shape, dtype=np.float32))[index] = values

        for level_index, rows, tile in stack.tiles():
            level = unit.levels[level_index] if unit.levels else None
            name, column = unit.output(level)
            shape = (len(unit.levels), *self.grid.shape) if column else self.grid.shape
            where = (level_index, rows) if column else (rows,)
            if not ensemble:
                place(f"{name}_mean", shape, where, tile[0])
            else:
                mean, deviation = mean_and_standard_deviation(tile)
                place(f"{name}_mean", shape, where, mean)
                place(f"{name}_standard_deviation", shape, where, deviation)
            single = unit.single_name(level)
            if ensemble and single in unit.quantile_names:
                values = quantiles(tile, self.plan.quantiles)
                place(f"{single}_quantile", (len(values), *self.grid.shape), (slice(None), rows), values)
            if ensemble:
                for event in unit.events:
                    if event.level == level:
                        place(event.name, self.grid.shape, (rows,), probability(tile, event))
            if single in unit.point_names:
                self._pick(single, tile, rows, lead_index)
            if ensemble and single in self.plan.judged:
                judgement = judged.setdefault(single, _Judged(members=count))
                judgement.add(tile, mean, self.grid.area_weights()[rows])
        for single, judgement in judged.items():
            self.distances[single, lead_index] = judgement.distance
            numbers = self.forecast["member"].values.tolist()
            self.members.extend(
                {"field": single, "lead_hours": self._hours(lead_index), **row}
                for row in judgement.rows(numbers)
            )
        for name, values in out.items():
            self._write(name, lead_index, values)
        return {name: values for name, values in out.items() if name.endswith("_mean")}

    def direction(self, means: dict[str, np.ndarray], lead_index: int) -> None:
        """Write the direction of the mean 10 m wind, if there is one."""
        pair = [means.get(f"10m_{c}_component_of_wind_mean") for c in ("u", "v")]
        if pair[0] is not None and pair[1] is not None:
            self._write(_DIRECTION, lead_index, wind_direction(pair[0], pair[1]))

    def representative(self) -> int | None:
        """Global number of the member nearest to the mean over all judged fields and lead times."""
        if not self.distances:
            return None
        stacked = np.stack(list(self.distances.values()), axis=1)
        return int(self.forecast["member"].values[most_representative_member(stacked)])

    def _write(self, name: str, lead_index: int, values: np.ndarray) -> None:
        rounded = round_mantissa(values, self.store.kept_bits(name))
        if name == _DIRECTION:
            rounded = np.where(rounded >= 360.0, 0.0, rounded).astype(rounded.dtype)  # north again
        self.store.write(name, lead_index, rounded)
        dims = self.store.dims(name)
        weights = np.broadcast_to(self.grid.area_weights()[:, np.newaxis], self.grid.shape)
        for layer, field_values in enumerate(rounded.reshape(-1, *self.grid.shape)):
            known = np.isfinite(field_values)
            some = field_values[known]
            self.statistics.append(
                {
                    "product": name,
                    "level": self.store.levels[layer] if "level" in dims else 0,
                    "quantile": self.store.quantiles[layer] if "quantile" in dims else np.nan,
                    "lead_hours": self._hours(lead_index),
                    "minimum": float(some.min()) if some.size else np.nan,
                    "maximum": float(some.max()) if some.size else np.nan,
                    "mean": float(np.average(some, weights=weights[known])) if some.size else np.nan,
                    "missing": int(field_values.size - some.size),
                }
            )

    def _pick(self, name: str, tile: np.ndarray, rows: slice, lead_index: int) -> None:
        """Record the members' values at the plan's points that lie in these rows."""
        shape = (len(self.plan.points), len(tile), len(self.store.lead_times))
        series = self.points.setdefault(name, np.full(shape, np.nan, dtype=np.float32))
        for index, point in enumerate(self.plan.points):
            row, column = point.nearest(self.grid)
            if rows.start <= row < rows.stop:
                series[index, :, lead_index] = tile[:, row - rows.start, column]

    def _hours(self, lead_index: int) -> int:
        return self.store.lead_times[lead_index] // timedelta(hours=1)


class _Judged:
    """One field of all members at one lead time, gathered tile by tile: what tells members apart."""

    def __init__(self, *, members: int) -> None:
        self.mean = np.zeros(members)
        self.distance = np.zeros(members)
        self.checksum = [0] * members

    def add(self, tile: np.ndarray, mean: np.ndarray, weights: np.ndarray) -> None:
        """A tile (member, latitude, longitude), the members' mean there, its rows' area weights."""
        self.mean += (np.nan_to_num(tile).mean(axis=2, dtype=np.float64) * weights).sum(axis=1)
        self.distance += (squared_distances(tile, mean) * weights).sum(axis=1)
        self.checksum = [
            zlib.crc32(np.ascontiguousarray(tile[m]).data, crc) for m, crc in enumerate(self.checksum)
        ]

    def rows(self, numbers: list[int]) -> Iterable[dict[str, Any]]:
        """A row per member."""
        for number, mean, distance, checksum in zip(numbers, self.mean, self.distance, self.checksum):
            yield {"member": number, "mean": float(mean), "distance": float(distance), "checksum": checksum}


def write_points(
    series: dict[str, np.ndarray], forecast: xr.Dataset, plan: ProductPlan, path: Path, attrs: dict[str, Any]
) -> None:
    """The members' values at named points as one small NetCDF file, dims (point, member, lead_time)."""
    dims = ("point", "member", "lead_time")
    units = {unit.name: unit.quantity for unit in plan.units}
    variables = {}
    for name, values in series.items():
        quantity = units[plan.quantity_of[name]]
        variables[name] = (dims, values, describe(quantity.long_name, quantity.units))
    dataset = xr.Dataset(
        variables,
        coords={
            "point": ("point", [point.name for point in plan.points]),
            "point_latitude": (
                "point",
                [point.latitude for point in plan.points],
                {"units": "degrees_north"},
            ),
            "point_longitude": (
                "point",
                [point.longitude for point in plan.points],
                {"units": "degrees_east"},
            ),
            "member": forecast["member"].values,
            "lead_time": forecast["lead_time"].values,
            "init_time": forecast["init_time"].values,
        },
        attrs={"Conventions": "CF-1.12", **attrs},
    )
    dataset.to_netcdf(path, engine="h5netcdf", encoding={"lead_time": {"units": "hours"}})


def _named(representative: int | None) -> dict[str, int]:
    return {} if representative is None else {"representative_member": representative}


def _write_member(
    forecast: xr.Dataset, member: int, folder: Path, like: ProductStore, attrs: dict[str, Any]
) -> None:
    """All variables of one member, rounded as products are."""
    one = forecast.sel(member=member)
    fields = tuple(
        ProductField(
            name=str(name),
            dims=("level",) if "level" in array.dims else (),
            kept_bits=KEPT_BITS.get(str(name), DEFAULT_KEPT_BITS),
            attrs={k: v for k, v in array.attrs.items() if isinstance(v, str)}
            | {"long_name": str(name).replace("_", " "), "units": array.attrs.get("units", "1")},
        )
        for name, array in one.data_vars.items()
    )
    store = ProductStore(
        folder=folder,
        grid=like.grid,
        init_time=like.init_time,
        lead_times=like.lead_times,
        levels=like.levels,
        quantiles=(),
        fields=fields,
        attrs=attrs,
    )
    for lead_index in range(len(like.lead_times)):
        for product in fields:
            values = as_published(product.name, one[product.name].isel(lead_time=lead_index).values)
            store.write(product.name, lead_index, round_mantissa(values, product.kept_bits))
    store.finish(member=member)
