"""The settings of the embedded default: bundled models on bundled analyses, everything in one local folder."""

from __future__ import annotations

import shutil
from pathlib import Path

from infra.demo import bundled
from infra.settings import Settings

DETERMINISTIC = "graphcast-demo"
ENSEMBLE = "gencast-demo"
MEMBERS = 8
DAYS = 10

_POINTS = (
    {"name": "Reykjavik", "latitude": 64.1, "longitude": -21.9},
    {"name": "London", "latitude": 51.5, "longitude": 0.0},
    {"name": "New York", "latitude": 40.7, "longitude": -74.0},
    {"name": "Tokyo", "latitude": 35.7, "longitude": 139.7},
    {"name": "Cape Town", "latitude": -33.9, "longitude": 18.4},
)
_EVENTS = (
    {"quantity": "10m_wind_speed", "threshold": 10.0},
    {"quantity": "10m_wind_speed", "threshold": 15.0},
    {"quantity": "total_precipitation", "threshold": 0.01},
    {"quantity": "2m_temperature", "threshold": 273.15, "below": True},
)


def deliver_analyses(output: Path) -> Path:
    """Put the bundled GRIB2 analyses where a provider would publish them; returns that folder.

    Files appear under their name only when they are whole; those already there are left alone.
    """
    target = output / "provider"
    source = bundled("analyses")
    for path in sorted(source.rglob("*.grib2")):
        arrived = target / path.relative_to(source)
        if not arrived.exists():
            arrived.parent.mkdir(parents=True, exist_ok=True)
            unfinished = arrived.with_suffix(".part")
            shutil.copyfile(path, unfinished)
            unfinished.replace(arrived)
    return target


def demo_settings(output: Path) -> Settings:
    """Settings of the demo with everything it writes below ``output``."""
    shared = {
        "trained_on": "nature-run",
        "source": "nature-run",
        "init_hours": (0, 12),
        "climatology": str(bundled("climatology.nc")),
    }
    products = {
        "points": _POINTS,
        "events": _EVENTS,
        "quantiles": (0.1, 0.5, 0.9),
        "formats": ("zarr", "png"),
    }
    return Settings.model_validate(
        {
            "store": {"root": str(output / "store")},
            "run": {"cache": str(output / "cache")},
            "sources": {
                "nature-run": {
                    "type": "nature-run",
                    "kind": "nature-run",
                    "roots": (str(output / "provider"),),
                }
            },
            "models": {
                DETERMINISTIC: {
                    **shared,
                    "checkpoint": str(bundled("graphcast.npz")),
                    "statistics": str(bundled("graphcast_stats")),
                    "steps": DAYS * 4,
                    "checkpoint_every": 8,
                    "products": products,
                },
                ENSEMBLE: {
                    **shared,
                    "checkpoint": str(bundled("gencast.npz")),
                    "statistics": str(bundled("gencast_stats")),
                    "members": MEMBERS,
                    "steps": DAYS * 2,
                    "block_size": MEMBERS,
                    "products": products,
                },
            },
        }
    )
