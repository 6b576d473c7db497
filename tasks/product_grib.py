"""Products and members as GRIB2 files, one of each per lead time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from infra.errors import PublicationError
from infra.grib_products import GRIB_PARAMETERS, GribField, Kind, write_grib
from infra.settings import ProductSettings
from model.diagnostics.ensemble_products import as_published
from model.grid import Grid
from model.times import aware_time
from model.variables import VARIABLES
from tasks.product_plan import ProductPlan, ProductUnit

_MOST = 254
_MOMENTS: tuple[tuple[str, Kind], ...] = (("mean", "mean"), ("standard_deviation", "spread"))


def refuse_uncodable(settings: ProductSettings, members: Sequence[int]) -> None:
    """Say, before anything is computed, what GRIB2 products cannot hold.

    Raises:
        PublicationError: GRIB2 is wanted and a quantile is no whole per cent, or a member's number or their
            count takes more than one octet (255 means missing).
    """
    if "grib2" not in settings.formats:
        return
    broken = [q for q in settings.quantiles if abs(100 * q - round(100 * q)) > 1e-9]
    if broken:
        raise PublicationError(f"GRIB2 products: percentiles are whole per cent, got quantiles {broken}")
    if max(members) > _MOST or len(members) > _MOST:
        raise PublicationError(
            f"GRIB2 products: expected members numbered 0…{_MOST}, got {len(members)} up to {max(members)}"
        )


def write_grib_products(
    folder: Path, products: xr.Dataset, forecast: xr.Dataset, plan: ProductPlan
) -> list[str]:
    """Write ``ensemble_0024h.grib2`` and ``members_0024h.grib2`` and so on into a folder.

    One field is in memory at a time. Every message is read back and compared.

    Args:
        folder: receives the files.
        products: as ``open_products`` gives them.
        forecast: the members.
        plan: what the products are.

    Returns:
        Names of quantities that GRIB2 files do not hold, because no parameter of theirs is defined here
        (anomalies).

    Raises:
        PublicationError: a message reads back differently.
    """
    grid = Grid(resolution=180.0 / (products.sizes["latitude"] - 1))
    for index, lead in enumerate(products["lead_time"].values):
        hours = int(lead / np.timedelta64(1, "h"))
        at = products.isel(lead_time=index)
        write_grib(
            folder / f"ensemble_{hours:04d}h.grib2",
            _derived(at, plan, members=forecast.sizes["member"], hours=hours),
            grid,
        )
        write_grib(
            folder / f"members_{hours:04d}h.grib2",
            _members(forecast.isel(lead_time=index), hours=hours),
            grid,
        )
    return sorted({unit.name for unit in plan.units if _coded_as(unit.name) is None})


def _derived(
    at: xr.Dataset, plan: ProductPlan, *, members: int, hours: int
) -> Iterator[tuple[GribField, np.ndarray]]:
    """All products of one lead time with their descriptions."""
    init_time = aware_time(at["init_time"].values)
    for unit in plan.units:
        quantity = _coded_as(unit.name)
        if quantity is None:
            continue
        start = _start(unit, hours)

        def field(
            kind: Kind,
            level: int | None,
            *,
            quantity: str = quantity,
            start: int | None = start,
            **more: Any,
        ) -> GribField:
            return GribField(
                quantity=quantity, kind=kind, members=members, init_time=init_time, hours=hours,
                start_hours=start, level=level, **more,
            )  # fmt: skip

        for suffix, kind in _MOMENTS:
            for name, level in unit.outputs:
                product = f"{name}_{suffix}"
                if product not in at:
                    continue
                if "level" in at[product].dims:
                    for each in unit.levels:
                        yield field(kind, each), at[product].sel(level=each).values
                else:
                    yield field(kind, level), at[product].values
        for name, level in unit.quantile_outputs:
            if f"{name}_quantile" in at:
                for number, quantile in enumerate(plan.quantiles):
                    values = at[f"{name}_quantile"].isel(quantile=number).values
                    yield field("percentile", level, percentile=round(100 * quantile)), values
        for event in unit.events:
            if event.name in at:
                threshold = event.threshold * GRIB_PARAMETERS[quantity].factor
                described = field("probability", event.level, threshold=threshold, below=event.below)
                yield described, at[event.name].values


def _members(at: xr.Dataset, *, hours: int) -> Iterator[tuple[GribField, np.ndarray]]:
    """All members' fields of one lead time with their descriptions."""
    init_time = aware_time(at["init_time"].values)
    for position, member in enumerate(at["member"].values.tolist()):
        one = at.isel(member=position)
        for name, array in one.data_vars.items():
            quantity = _coded_as(str(name))
            if quantity is None:
                continue
            accumulated = VARIABLES[str(name)].accumulation_hours
            start = None if accumulated is None else hours - accumulated
            known = as_published(str(name), array.values)
            column = known if "level" in array.dims else known[np.newaxis]
            levels = array["level"].values.tolist() if "level" in array.dims else [None]
            for level, values in zip(levels, column):
                described = GribField(
                    quantity=quantity, kind="member", members=at.sizes["member"], member=member,
                    init_time=init_time, hours=hours, start_hours=start, level=level,
                )  # fmt: skip
                yield described, values


def _coded_as(name: str) -> str | None:
    """The key of a quantity in ``GRIB_PARAMETERS``; None if it has none."""
    if name in GRIB_PARAMETERS:
        return name
    return "total_precipitation" if name.startswith("total_precipitation_") else None


def _start(unit: ProductUnit, hours: int) -> int | None:
    if unit.quantity.rule == "since-start":
        return 0
    accumulated = unit.quantity.accumulation_hours
    return None if accumulated is None else hours - accumulated
