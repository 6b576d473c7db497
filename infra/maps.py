"""Maps and plumes as PNG, drawn with matplotlib alone.

Maps are in the Equal Earth projection (Šavrič, Patterson and Jenny 2018), so areas compare; coastlines are
the 0.5 contour of the model's own land-sea mask, so nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from io import BytesIO
from typing import Any, Literal

import numpy as np

from model.grid import Grid

Extend = Literal["neither", "min", "max", "both"]

INK = "#1f2933"
MUTED = "#6b7785"
_COAST = "#2b2b2b"
_MOST_POINTS = 361
_A1, _A2, _A3, _A4 = 1.340264, -0.081106, 0.000893, 0.003796
_DRAWN_DPI = 110


@dataclass(frozen=True, kw_only=True)
class MapStyle:
    """How a quantity is coloured.

    Args:
        units: as shown.
        scale, offset: shown value = stored value × scale + offset.
        colours: a matplotlib colour map.
        levels: bounds of the colour classes in shown units, ascending; None spreads ten over the data.
        extend: which ends are open: ``"neither"``, ``"min"``, ``"max"`` or ``"both"``; a closed end is left
            blank (precipitation, probabilities).
    """

    units: str
    scale: float = 1.0
    offset: float = 0.0
    colours: str = "viridis"
    levels: tuple[float, ...] | None = None
    extend: Extend = "both"

    def shown(self, values: np.ndarray) -> np.ndarray:
        """Stored values in shown units."""
        return np.asarray(values, dtype=np.float64) * self.scale + self.offset


def _steps(start: float, stop: float, step: float) -> tuple[float, ...]:
    return tuple(np.round(np.arange(start, stop + step / 2, step), 6).tolist())


STYLES: dict[str, MapStyle] = {
    "2m_temperature": MapStyle(units="°C", offset=-273.15, colours="RdYlBu_r", levels=_steps(-40, 40, 5)),
    "temperature": MapStyle(units="°C", offset=-273.15, colours="RdYlBu_r", levels=_steps(-40, 30, 5)),
    "sea_surface_temperature": MapStyle(
        units="°C", offset=-273.15, colours="turbo", levels=_steps(-2, 32, 2)
    ),
    "mean_sea_level_pressure": MapStyle(
        units="hPa", scale=0.01, colours="PuOr_r", levels=_steps(964, 1052, 4)
    ),
    "geopotential": MapStyle(units="gpdam", scale=0.1 / 9.80665, colours="Spectral_r"),
    "10m_wind_speed": MapStyle(
        units="m/s", colours="YlGnBu", levels=(0, 2, 4, 6, 8, 10, 12, 15, 18, 21, 25), extend="max"
    ),
    "wind_speed": MapStyle(units="m/s", colours="YlGnBu", levels=_steps(0, 60, 5), extend="max"),
    "total_precipitation": MapStyle(
        units="mm",
        scale=1000.0,
        colours="GnBu",
        levels=(0.5, 1, 2, 5, 10, 20, 30, 50, 75, 100, 150),
        extend="max",
    ),
    "specific_humidity": MapStyle(units="g/kg", scale=1000.0, colours="BrBG", extend="max"),
    "probability": MapStyle(units="%", scale=100.0, colours="PuRd", levels=_steps(5, 95, 10), extend="max"),
}
"""By quantity; a longer name takes the style of its beginning (``total_precipitation_6hr``)."""


def style_of(quantity: str, units: str = "") -> MapStyle:
    """The style of a quantity, or a plain one in its own units."""
    for name in sorted(STYLES, key=len, reverse=True):
        if quantity == name or quantity.startswith(f"{name}_"):
            return STYLES[name]
    return MapStyle(units=units)


def spread_style(quantity: str, units: str = "") -> MapStyle:
    """A style for standard deviations: same units, no offset, from zero up."""
    base = style_of(quantity, units)
    shown = "K" if base.units == "°C" else base.units
    return MapStyle(units=shown, scale=base.scale, colours="magma_r", extend="max")


@dataclass(frozen=True, kw_only=True)
class MapText:
    """What is written around a map.

    Args:
        title: what is shown.
        model: which model.
        init_time, valid_time: UTC.
    """

    title: str
    model: str
    init_time: datetime
    valid_time: datetime

    @property
    def times(self) -> str:
        """The line below the title."""
        hours = (self.valid_time - self.init_time).total_seconds() / 3600
        return (
            f"Init {self.init_time:%a %d %b %Y %H} UTC   ·   Valid {self.valid_time:%a %d %b %Y %H} UTC "
            f"(+{hours:g} h)"
        )


@dataclass(frozen=True, kw_only=True)
class Canvas:
    """The globe maps are drawn on: a grid thinned to at most one degree, and its coastlines.

    Args:
        grid: of the fields.
        land: land fraction, dims (latitude, longitude); None draws no coastlines.
        centre: longitude in the middle of the map, degrees east.
    """

    grid: Grid
    land: np.ndarray | None = None
    centre: float = 0.0
    _cache: dict = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def stride(self) -> int:
        """Every which grid point is drawn."""
        return max(1, -(-(self.grid.shape[0] - 1) // (_MOST_POINTS - 1)))

    def arranged(self, values: np.ndarray) -> np.ndarray:
        """A field thinned and rolled so that longitudes ascend from west to east of the map."""
        thinned = values[:: self.stride, :: self.stride]
        return np.roll(thinned, self._shift, axis=1)

    @property
    def _shift(self) -> int:
        longitude = self.grid.longitude[:: self.stride].astype(np.float64)
        relative = (longitude - self.centre + 180.0) % 360.0
        return -int(np.argmin(relative))

    def positions(self) -> tuple[np.ndarray, np.ndarray]:
        """Map coordinates (x, y) of the drawn points, wrapped by one column in the east."""
        if "positions" not in self._cache:
            longitude = self.grid.longitude[:: self.stride].astype(np.float64)
            relative = np.roll((longitude - self.centre + 180.0) % 360.0 - 180.0, self._shift)
            relative = np.append(relative, relative[0] + 360.0)
            latitude = self.grid.latitude[:: self.stride].astype(np.float64)
            self._cache["positions"] = equal_earth(relative[np.newaxis], latitude[:, np.newaxis])
        return self._cache["positions"]


def equal_earth(longitude: np.ndarray, latitude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Equal Earth coordinates of degrees on a unit sphere (Šavrič et al. 2018, eqs. 7–10)."""
    theta = np.arcsin(np.sqrt(3) / 2 * np.sin(np.deg2rad(latitude)))
    squared = theta**2
    sixth = squared**3
    slope = _A1 + 3 * _A2 * squared + sixth * (7 * _A3 + 9 * _A4 * squared)
    x = 2 * np.sqrt(3) / 3 * np.deg2rad(longitude) * np.cos(theta) / slope
    y = theta * (_A1 + _A2 * squared + sixth * (_A3 + _A4 * squared))
    return np.broadcast_arrays(x, y + 0 * x)[0], np.broadcast_to(y, x.shape)


def draw_map(
    canvas: Canvas,
    values: np.ndarray,
    *,
    style: MapStyle,
    text: MapText,
    contours: np.ndarray | None = None,
    contour_levels: Sequence[float] = (),
) -> bytes:
    """A filled map as PNG.

    Args:
        canvas: the globe.
        values: field in stored units, dims (latitude, longitude).
        style: colours and units.
        text: title and times.
        contours: a second field drawn as lines, in the lines' own units.
        contour_levels: their levels.
    """
    from matplotlib import colormaps
    from matplotlib.colors import BoundaryNorm

    figure, axes = _figure(text)
    shown = _wrapped(canvas, style.shown(values))
    levels, extend = _levels(style, shown)
    x, y = canvas.positions()
    classes = BoundaryNorm(levels, colormaps[style.colours].N, extend=extend)
    filled = axes.contourf(x, y, shown, levels=levels, cmap=style.colours, norm=classes, extend=extend)
    _coastlines(axes, canvas)
    if contours is not None:
        lines = axes.contour(
            x, y, _wrapped(canvas, contours), levels=list(contour_levels), colors=INK, linewidths=0.7
        )
        axes.clabel(lines, fontsize=6, fmt="%g")
    bar = figure.colorbar(filled, cax=figure.add_axes((0.08, 0.075, 0.78, 0.026)), orientation="horizontal")
    bar.outline.set_visible(False)
    bar.set_ticks(levels if len(levels) <= 13 else levels[::2])
    bar.ax.tick_params(labelsize=8, length=0, colors=INK)
    bar.ax.xaxis.set_major_formatter("{x:g}")
    figure.text(0.9, 0.088, style.units, fontsize=9, color=INK, va="center")
    return _png(figure)


def draw_spaghetti(
    canvas: Canvas, members: np.ndarray, *, style: MapStyle, levels: Sequence[float], text: MapText
) -> bytes:
    """One contour line per member and level, the mean's on top, as PNG.

    Args:
        canvas: the globe.
        members: dims (member, latitude, longitude), stored units.
        style: gives units.
        levels: contour levels in shown units.
        text: title and times.
    """
    from matplotlib import colormaps

    figure, axes = _figure(text)
    x, y = canvas.positions()
    _coastlines(axes, canvas)
    palette = colormaps["turbo"](np.linspace(0.05, 0.95, len(levels)))
    for member in members:
        shown = _wrapped(canvas, style.shown(member))
        axes.contour(x, y, shown, levels=list(levels), colors=palette, linewidths=0.5, alpha=0.7)
    mean = _wrapped(canvas, style.shown(members.mean(axis=0)))
    lines = axes.contour(x, y, mean, levels=list(levels), colors=palette, linewidths=1.6)
    axes.clabel(lines, fontsize=7, fmt=f"%g {style.units}")
    return _png(figure)


def draw_plume(
    lead_hours: np.ndarray,
    members: np.ndarray,
    *,
    style: MapStyle,
    title: str,
    subtitle: str,
    representative: int | None = None,
) -> bytes:
    """All members' values at a point against lead time, with the 10–90 and 25–75 % ranges, as PNG.

    Args:
        lead_hours: ascending, shape (lead_time,).
        members: dims (member, lead_time), stored units.
        style: gives units.
        title, subtitle: two lines above.
        representative: position of the member drawn in bold.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 3.2), dpi=_DRAWN_DPI, layout="constrained")
    axes = figure.subplots()
    shown = style.shown(members)
    days = np.asarray(lead_hours) / 24.0
    if len(shown) > 1:
        for low, high, alpha in ((10, 90, 0.18), (25, 75, 0.3)):
            lower, upper = np.nanpercentile(shown, [low, high], axis=0)
            axes.fill_between(
                days, lower, upper, color="#2f6db3", alpha=alpha, linewidth=0, label=f"{low}–{high} %"
            )
        axes.plot(days, shown.T, color="#2f6db3", linewidth=0.5, alpha=0.5)
    axes.plot(
        days, np.nanmean(shown, axis=0), color=INK, linewidth=1.8, label="mean" if len(shown) > 1 else None
    )
    if representative is not None:
        axes.plot(
            days, shown[representative], color="#d9480f", linewidth=1.4, label="most representative member"
        )
    axes.set_xlabel("days after init", fontsize=8, color=MUTED)
    axes.set_ylabel(style.units, fontsize=8, color=MUTED)
    axes.tick_params(labelsize=8, colors=MUTED, length=0)
    axes.grid(color="#e4e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", color=INK, pad=18)
    axes.text(0, 1.03, subtitle, transform=axes.transAxes, fontsize=8, color=MUTED)
    if len(shown) > 1:
        axes.legend(fontsize=7, frameon=False, ncols=4, loc="upper right", bbox_to_anchor=(1, 1.16))
    axes.margins(x=0.01)
    return _png(figure)


def _figure(text: MapText) -> tuple[Any, Any]:
    """A figure with the globe's outline and graticule, and what is written above."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 5.0), dpi=_DRAWN_DPI)
    axes = figure.add_axes((0.015, 0.125, 0.97, 0.75))
    axes.set_aspect("equal")
    axes.axis("off")
    axes.margins(0.005)
    meridian, parallel = np.linspace(-90, 90, 91), np.linspace(-180, 180, 3)
    for side in (-180.0, 180.0):
        axes.plot(*equal_earth(np.full_like(meridian, side), meridian), color=MUTED, linewidth=0.7, zorder=5)
    for pole in (-90.0, 90.0):
        axes.plot(*equal_earth(parallel, np.full_like(parallel, pole)), color=MUTED, linewidth=0.7, zorder=5)
    thin: dict[str, Any] = {"color": MUTED, "linewidth": 0.35, "alpha": 0.5, "zorder": 3}
    for latitude in (-60.0, -30.0, 0.0, 30.0, 60.0):
        axes.plot(*equal_earth(parallel, np.full_like(parallel, latitude)), **thin)
    for longitude in (-120.0, -60.0, 0.0, 60.0, 120.0):
        axes.plot(*equal_earth(np.full_like(meridian, longitude), meridian), **thin)
    figure.text(0.02, 0.945, text.title, fontsize=13, fontweight="bold", color=INK)
    figure.text(0.02, 0.9, text.times, fontsize=9, color=MUTED)
    figure.text(0.98, 0.9, text.model, fontsize=9, color=MUTED, ha="right")
    return figure, axes


def _wrapped(canvas: Canvas, values: np.ndarray) -> np.ndarray:
    arranged = canvas.arranged(values)
    return np.concatenate([arranged, arranged[:, :1]], axis=1)


def _coastlines(axes: Any, canvas: Canvas) -> None:
    if canvas.land is None or not (np.nanmin(canvas.land) < 0.5 < np.nanmax(canvas.land)):
        return
    x, y = canvas.positions()
    axes.contour(x, y, _wrapped(canvas, canvas.land), levels=[0.5], colors=_COAST, linewidths=0.6, zorder=4)


def _levels(style: MapStyle, shown: np.ndarray) -> tuple[list[float], Extend]:
    """Bounds of the colour classes and which ends are open."""
    from matplotlib.ticker import MaxNLocator

    if style.levels is not None:
        return list(style.levels), style.extend
    known = shown[np.isfinite(shown)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    if style.extend == "max":
        low = 0.0
    if not high > low:
        high = low + 1.0
    bounds = MaxNLocator(nbins=12, steps=[1, 2, 2.5, 4, 5, 10]).tick_values(low, high)
    return [float(bound) for bound in bounds], "neither"


def _png(figure: Any) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None}, facecolor="white")
    return buffer.getvalue()
