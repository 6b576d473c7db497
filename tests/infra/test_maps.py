"""Pictures are PNG files of the right size that show the field; the projection is equal-area."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from io import BytesIO

import numpy as np
import pytest
import xarray as xr
from matplotlib.image import imread

from infra.maps import (
    Canvas,
    MapText,
    draw_map,
    draw_plume,
    draw_spaghetti,
    equal_earth,
    spread_style,
    style_of,
)
from infra.score_plots import (
    draw_brier,
    draw_curves,
    draw_rank_histograms,
    draw_reliability,
    draw_score_card,
)
from model.grid import Grid

GRID = Grid(resolution=10.0)
LAND = (np.abs(GRID.latitude[:, np.newaxis]) < 40) * (GRID.longitude[np.newaxis] < 90) * 1.0
CANVAS = Canvas(grid=GRID, land=LAND)
INIT = datetime(2026, 1, 15, tzinfo=UTC)
TEXT = MapText(title="A title", model="m", init_time=INIT, valid_time=INIT + timedelta(hours=36))
LEADS = np.arange(1, 5).astype("timedelta64[D]").astype("timedelta64[ns]")


def pixels(png: bytes) -> np.ndarray:
    image = imread(BytesIO(png), format="png")
    assert image.ndim == 3
    return image[..., :3]


def test_the_projection_keeps_areas() -> None:
    """Cells of one degree: projected area over area on the sphere is the same at every latitude."""
    ratios = []
    for latitude in (-75.0, -40.0, 0.0, 20.0, 60.0, 85.0):
        corners = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
        corners += np.array([30.0, latitude])
        x, y = equal_earth(corners[:, 0], corners[:, 1])
        area = 0.5 * abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))
        on_sphere = np.deg2rad(1) * (np.sin(np.deg2rad(latitude + 1)) - np.sin(np.deg2rad(latitude)))
        ratios.append(area / on_sphere)
    np.testing.assert_allclose(ratios, 1.0, rtol=2e-4)


def test_a_map_shows_the_field_where_it_is() -> None:
    """Warm east of Greenwich, cold west of it: red right of the middle, blue left."""
    field = np.where((GRID.longitude > 0) & (GRID.longitude < 180), 303.0, 243.0) * np.ones(GRID.shape)
    image = pixels(draw_map(CANVAS, field, style=style_of("2m_temperature"), text=TEXT))
    height, width = image.shape[:2]
    assert (width, height) == (924, 550)
    row = image[int(height * 0.42)]
    west, east = row[int(width * 0.25)], row[int(width * 0.62)]
    assert east[0] > east[2]
    assert west[2] > west[0]


def test_the_same_field_gives_the_same_bytes() -> None:
    field = 280 + 20 * np.cos(np.deg2rad(GRID.latitude))[:, np.newaxis] * np.ones(GRID.shape)
    draw = lambda: draw_map(CANVAS, field, style=style_of("temperature"), text=TEXT)  # noqa: E731
    assert draw() == draw()


def test_missing_and_constant_fields_can_be_drawn() -> None:
    holes = np.full(GRID.shape, 290.0)
    holes[5:9] = np.nan
    pixels(draw_map(CANVAS, holes, style=style_of("sea_surface_temperature"), text=TEXT))
    pixels(draw_map(CANVAS, np.zeros(GRID.shape), style=spread_style("2m_temperature"), text=TEXT))
    pixels(draw_map(Canvas(grid=GRID), np.zeros(GRID.shape), style=style_of("probability"), text=TEXT))


def test_spaghetti_and_plumes() -> None:
    rng = np.random.default_rng(0)
    members = (
        54000
        + 3000 * np.cos(2 * np.deg2rad(GRID.latitude))[:, np.newaxis]
        + rng.normal(0, 100, (3, *GRID.shape))
    )
    pixels(draw_spaghetti(CANVAS, members, style=style_of("geopotential"), levels=(540, 552), text=TEXT))
    series = 280 + rng.normal(size=(3, 4)).cumsum(axis=1)
    for shown in (series, series[:1]):
        image = draw_plume(
            np.arange(1, 5) * 24.0, shown, style=style_of("2m_temperature"), title="London", subtitle="m"
        )
        assert pixels(image).shape[1] == 792


def test_styles_convert_units() -> None:
    assert style_of("2m_temperature").shown(np.array(273.15)) == pytest.approx(0.0)
    assert style_of("total_precipitation_6hr").shown(np.array(0.002)) == pytest.approx(2.0)
    assert style_of("geopotential").shown(np.array(9.80665 * 5520)) == pytest.approx(552.0)
    assert style_of("temperature_850hPa").units == "°C"
    assert spread_style("2m_temperature").units == "K"
    assert style_of("vertical_velocity", "Pa s-1").units == "Pa s-1"


def test_score_plots() -> None:
    dims = ("field", "lead_time", "region")
    coords = {"field": ["geopotential 500", "2m_temperature"], "lead_time": LEADS, "region": ["global"]}
    growing = np.arange(1.0, 9.0).reshape(2, 4, 1)
    scores = xr.Dataset(
        {
            "rmse": (dims, growing),
            "spread": (dims, growing * 0.8),
            "persistence_rmse": (dims, growing * 2),
            "rank_histogram": ((*dims, "rank"), np.full((2, 4, 1, 5), 0.2)),
        },
        coords=coords,
    )
    fields = ["geopotential 500", "2m_temperature"]
    pixels(draw_curves(scores, fields=fields, region="global", title="m"))
    pixels(draw_rank_histograms(scores, fields=fields, region="global", title="m"))
    events = xr.Dataset(
        {
            name: (("event", "lead_time", "region"), np.full((2, 4, 1), value))
            for name, value in {
                "brier": 0.1,
                "brier_skill": 0.4,
                "uncertainty": 0.2,
                "resolution": 0.12,
                "reliability": 0.02,
            }.items()
        }
        | {
            name: (("event", "lead_time", "region", "probability"), np.full((2, 4, 1, 5), 0.2))
            for name in ("observed_frequency", "forecast_share")
        },
        coords={
            "event": ["probability_10m_wind_speed_above_10", "probability_total_precipitation_above_0.005"],
            "lead_time": LEADS,
            "region": ["global"],
            "probability": np.arange(5) / 4,
        },
    )
    names = events["event"].values.tolist()
    pixels(draw_reliability(events, events=names, region="global", title="m"))
    pixels(draw_brier(events, events=names, region="global", title="m"))
    change = (scores["rmse"].isel(region=0) - 4) / 100
    pixels(draw_score_card(change, significant=change > 0, title="a against b", first="a", second="b"))
