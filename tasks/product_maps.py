"""The pictures of a cycle: which maps and plumes are drawn, from the products just made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from infra.maps import Canvas, MapText, draw_map, draw_plume, draw_spaghetti, spread_style, style_of
from infra.pages import MapSeries, Plume
from infra.product_files import open_products
from infra.wording import counted
from model.diagnostics.ensemble_products import ANOMALY_SUFFIX, Event
from model.grid import Grid
from model.times import aware_time
from tasks.product_plan import ProductPlan

MAPPED = (
    ("2m_temperature", "2 m temperature"),
    ("mean_sea_level_pressure", "Mean sea level pressure"),
    ("10m_wind_speed", "10 m wind speed"),
    ("total_precipitation", "Precipitation since start"),
)
"""Quantities mapped, those a forecast has, with their titles."""

SPREAD = ("2m_temperature", "mean_sea_level_pressure")
SPAGHETTI_LEVELS = (516.0, 552.0, 576.0)
"""Contours of 500 hPa geopotential height in gpdam."""

PLUMES = ("2m_temperature", "10m_wind_speed", "total_precipitation")
MOST_LEADS = 6


def mapped_leads(hours: Sequence[int], *, most: int = MOST_LEADS) -> list[int]:
    """Positions of at most ``most`` lead times, equally far apart up to the last, whole days where there are any.

    Args:
        hours: all lead times.
        most: how many at most.
    """
    whole_days = [index for index, value in enumerate(hours) if value % 24 == 0]
    choice = whole_days or list(range(len(hours)))
    every = -(-len(choice) // most)
    return choice[::-1][::every][::-1]


def draw_pictures(
    folder: Path, forecast: xr.Dataset, plan: ProductPlan, *, model: str, land: np.ndarray | None
) -> tuple[list[MapSeries], list[Plume]]:
    """Draw all pictures of the products in a folder into its ``maps`` and ``points``.

    Args:
        folder: holds ``ensemble.zarr`` and ``points.nc``.
        forecast: the members, for the spaghetti.
        plan: what was made.
        model: shown on every picture.
        land: land fraction, dims (latitude, longitude), or None.
    """
    products = open_products(folder / "ensemble.zarr")
    canvas = Canvas(grid=Grid(resolution=180.0 / (products.sizes["latitude"] - 1)), land=land)
    (folder / "maps").mkdir(exist_ok=True)
    series: dict[str, dict[int, str]] = {}
    titles = _titles(products, plan)
    lead_hours = [int(lead / np.timedelta64(1, "h")) for lead in products["lead_time"].values]
    for index in mapped_leads(lead_hours):
        at = products.isel(lead_time=index)
        hours = lead_hours[index]

        def text(title: str, at: xr.Dataset = at) -> MapText:
            return MapText(
                title=title,
                model=model,
                init_time=aware_time(at["init_time"].values),
                valid_time=aware_time(at["valid_time"].values),
            )

        drawn = {
            name: _draw(canvas, at[name], title, text(title)) for name, title in titles.items() if name in at
        }
        if "geopotential" in forecast and 500 in forecast["level"].values and forecast.sizes["member"] > 1:
            title = "500 hPa geopotential height, all members"
            members = forecast["geopotential"].sel(level=500).isel(lead_time=index).values
            drawn["geopotential_500hPa_spaghetti"] = draw_spaghetti(
                canvas, members, style=style_of("geopotential"), levels=SPAGHETTI_LEVELS, text=text(title)
            )
            titles.setdefault("geopotential_500hPa_spaghetti", title)
        for name, picture in drawn.items():
            path = f"maps/{name}_{hours:04d}h.png"
            (folder / path).write_bytes(picture)
            series.setdefault(name, {})[hours] = path
    maps = [MapSeries(title=titles[name], images=images) for name, images in series.items()]
    return maps, _plumes(folder, plan, model)


def _titles(products: xr.Dataset, plan: ProductPlan) -> dict[str, str]:
    """Name of each mapped product and its title, in the order shown."""
    single = not any(str(name).endswith("_standard_deviation") for name in products)
    titles = {}
    for quantity, title in MAPPED:
        titles[f"{quantity}_mean"] = title if single else f"{title}, ensemble mean"
        if quantity in SPREAD:
            titles[f"{quantity}_standard_deviation"] = f"{title}, ensemble spread"
    for unit in plan.units:
        for event in unit.events:
            titles[event.name] = _event_title(event, unit.quantity.units)
    return titles


def _event_title(event: Event, units: str) -> str:
    """An event in the units people use, e.g. ``Probability of 2 m temperature below 0 °C``."""
    style = style_of(event.quantity, units)
    anomaly = event.quantity.endswith(ANOMALY_SUFFIX)
    threshold = event.threshold * style.scale if anomaly else float(style.shown(np.array(event.threshold)))
    shown_units = "K" if anomaly and style.units == "°C" else style.units
    named = dict(MAPPED).get(event.quantity, event.quantity.replace("_", " "))
    level = "" if event.level is None else f" at {event.level} hPa"
    return (
        f"Probability of {named[0].lower()}{named[1:]}{level} {event.direction} {threshold:g} {shown_units}"
    )


def _draw(canvas: Canvas, array: xr.DataArray, title: str, text: MapText) -> bytes:
    name, units = str(array.name), str(array.attrs["units"])
    values = array.values
    if name.startswith("probability_"):
        return draw_map(canvas, values, style=style_of("probability"), text=text)
    if name.endswith("_standard_deviation"):
        style = spread_style(name.removesuffix("_standard_deviation"), units)
        return draw_map(canvas, values, style=style, text=text)
    style = style_of(name.removesuffix("_mean"), units)
    if name.startswith("mean_sea_level_pressure") and style.levels:
        shown = style.shown(values)
        return draw_map(
            canvas, values, style=style, text=text, contours=shown, contour_levels=style.levels[::2]
        )
    return draw_map(canvas, values, style=style, text=text)


def _plumes(folder: Path, plan: ProductPlan, model: str) -> list[Plume]:
    (folder / "points").mkdir(exist_ok=True)
    plumes = []
    with xr.open_dataset(folder / "points.nc", engine="h5netcdf", decode_timedelta=True) as points:
        hours = (points["lead_time"].values / np.timedelta64(1, "h")).astype(float)
        init = aware_time(points["init_time"].values)
        size = counted(points.sizes["member"], "member")
        for number, point in enumerate(plan.points):
            for quantity, title in MAPPED:
                if quantity not in PLUMES or quantity not in points:
                    continue
                values = points[quantity].isel(point=number).values
                slug = "".join(c if c.isascii() and c.isalnum() else "-" for c in point.name.lower())
                path = f"points/{number:02d}-{slug}-{quantity}.png"
                (folder / path).write_bytes(
                    draw_plume(
                        hours,
                        values,
                        style=style_of(quantity, str(points[quantity].attrs["units"])),
                        title=f"{point.name}: {title}",
                        subtitle=f"{model}   ·   Init {init:%a %d %b %Y %H} UTC   ·   {size}",
                    )
                )
                plumes.append(Plume(place=point.name, title=title, image=path))
    return plumes
