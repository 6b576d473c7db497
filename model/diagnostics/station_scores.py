"""Forecasts at stations: interpolated to the place, brought to its height, scored by the same sums as fields.

Every station counts once in each region it lies in, so a season's scores weigh reports, not area.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from model.diagnostics.scores import REGIONS, Region, weighted_statistics
from model.errors import InvalidFieldError
from model.grid import Grid
from model.stations import Stations

STANDARD_GRAVITY = 9.80665
"""m s⁻², by which ECMWF and DeepMind divide geopotential."""

STANDARD_LAPSE_RATE = 0.0065
"""K m⁻¹, the standard atmosphere's below 11 km (ISO 2533)."""


def bilinear(field: np.ndarray, grid: Grid, stations: Stations) -> np.ndarray:
    """A field at stations, linear in latitude and in longitude between the four points around.

    Args:
        field: dims (…, latitude, longitude); a NaN neighbour of weight above zero makes NaN.
        grid: where it lies; the last longitude's neighbour is the first.
        stations: where it is wanted.

    Returns:
        float64, dims (…, station).
    """
    rows, columns = grid.shape
    row = (stations.latitude.astype(np.float64) + 90.0) / grid.resolution
    column = np.mod(stations.longitude.astype(np.float64), 360.0) / grid.resolution
    south = np.clip(np.floor(row).astype(int), 0, rows - 2)
    west = np.floor(column).astype(int)
    up, right = row - south, column - west
    result = np.zeros((*field.shape[:-2], len(stations.names)))
    for shift, share in ((0, 1 - up), (1, up)):
        for step, part in ((0, 1 - right), (1, right)):
            values = field[..., south + shift, (west + step) % columns].astype(np.float64)
            result += np.where(share * part > 0, values, 0.0) * (share * part)
    return result


def height_correction(stations: Stations, model_height: np.ndarray, *, lapse_rate: float) -> np.ndarray:
    """What is added to a model's 2 m temperature at stations: −Γ (station height − model height), K.

    Args:
        stations: with their heights; an unknown one is not corrected for.
        model_height: height of the model's surface at the stations, m.
        lapse_rate: Γ, K m⁻¹; positive for temperature that falls with height.
    """
    difference = stations.height - model_height
    return -lapse_rate * np.where(np.isfinite(difference), difference, 0.0)


def station_statistics(
    fields: Mapping[str, tuple[np.ndarray, np.ndarray]],
    stations: Stations,
    *,
    lead_time: np.timedelta64,
    persistence: Mapping[str, np.ndarray] | None = None,
    climatology: Mapping[str, np.ndarray] | None = None,
    gross_limits: Mapping[str, float] | None = None,
    regions: tuple[Region, ...] = REGIONS,
) -> xr.Dataset:
    """Sufficient statistics of one lead time at stations, to be added up and scored as those of fields.

    Args:
        fields: by variable, the members at the stations (member, station) and the reports (station,), NaN where
            there is none.
        stations: where.
        lead_time: of the fields.
        persistence, climatology: reference forecasts (station,) by variable; what is absent has no scores.
        gross_limits: by variable, the departure of a report from the ensemble mean beyond which it is taken for
            an error of the report and left out.
        regions: bands of latitude to sum over.

    Returns:
        As ``model.diagnostics.scores.ensemble_statistics``: float64 sums, dims (field, lead_time, region), and
        ``rejected``, the number of reports left out. ``weight`` is the number of reports scored.

    Raises:
        InvalidFieldError: there is no field, or ensembles differ in size.
    """
    sizes = {len(members) for members, _ in fields.values()}
    if len(sizes) != 1:
        raise InvalidFieldError(f"stations: expected ensembles of one size, got sizes {sorted(sizes)}")
    weights = np.stack(
        [(stations.latitude >= r.south) & (stations.latitude <= r.north) for r in regions]
    ).astype(np.float64)
    rows = []
    for name, (members, reports) in fields.items():
        limit = (gross_limits or {}).get(name, np.inf)
        with np.errstate(invalid="ignore"):
            gross = np.abs(reports - members.mean(axis=0)) > limit
        accepted = np.where(gross, np.nan, reports.astype(np.float64))
        persisted, usual = (
            None if known is None else known.get(name, np.full(len(reports), np.nan))[:, np.newaxis]
            for known in (persistence, climatology)
        )
        sums = weighted_statistics(
            members.astype(np.float64)[..., np.newaxis], accepted[:, np.newaxis], persisted, usual, weights
        )
        rows.append({**sums, "rejected": weights @ gross.astype(np.float64)})
    dims = ("field", "lead_time", "region")
    return xr.Dataset(
        {
            name: (
                dims + (("rank",) if name == "rank_weight" else ()),
                np.stack([row[name] for row in rows])[:, np.newaxis],
            )
            for name in rows[0]
        },
        coords={
            "field": list(fields),
            "lead_time": [lead_time],
            "region": [region.name for region in regions],
        },
        attrs={"members": sizes.pop()},
    )
