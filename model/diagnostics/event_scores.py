"""Verification of probabilities: Brier score, its parts, and the reliability diagram, from sums that add up.

With M members a probability is one of 0/M … M/M, so how often each was forecast, and how often the event then
happened, is all there is to know: ``forecast_weight`` and ``observed_weight`` per probability, area-weighted. Sets
of ensembles of different size add up too: the sum has the probabilities of both.
The Brier score's decomposition into reliability, resolution and uncertainty is Murphy's (1973), exact for
these bins.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import xarray as xr

from model.diagnostics.ensemble_products import Event
from model.diagnostics.scores import REGIONS, Region, region_weights
from model.errors import InvalidFieldError
from model.grid import Grid


def event_statistics(
    fields: Mapping[Event, tuple[np.ndarray, np.ndarray]],
    *,
    grid: Grid,
    lead_time: np.timedelta64,
    regions: tuple[Region, ...] = REGIONS,
) -> xr.Dataset:
    """Sufficient statistics of some events at one lead time.

    Args:
        fields: by event, the quantity's members (member, latitude, longitude) and its truth (latitude,
            longitude). Cells where either is NaN do not count.
        grid: where they lie.
        lead_time: of the fields.
        regions: bands to sum over.

    Returns:
        float64 sums with dims (event, lead_time, region, probability), probabilities 0/M…M/M.

    Raises:
        InvalidFieldError: there is no event, or ensembles differ in size.
    """
    sizes = {len(members) for members, _ in fields.values()}
    if len(sizes) != 1:
        raise InvalidFieldError(f"events: expected ensembles of one size, got sizes {sorted(sizes)}")
    bins = sizes.pop() + 1
    weights = region_weights(grid, regions)
    forecast, observed = [], []
    for event, (members, truth) in fields.items():
        known = np.isfinite(truth) & np.isfinite(members).all(axis=0)
        count = _happens(members, event).sum(axis=0)
        row = np.broadcast_to(np.arange(grid.shape[0])[:, np.newaxis], grid.shape)
        position = (row * bins + count)[known]
        shape = (grid.shape[0], bins)
        size = grid.shape[0] * bins
        happened = _happens(truth, event)[known].astype(np.float64)
        forecast.append(weights @ np.bincount(position, minlength=size).reshape(shape))
        observed.append(weights @ np.bincount(position, weights=happened, minlength=size).reshape(shape))
    dims = ("event", "lead_time", "region", "probability")
    return xr.Dataset(
        {
            "forecast_weight": (dims, np.stack(forecast)[:, np.newaxis]),
            "observed_weight": (dims, np.stack(observed)[:, np.newaxis]),
        },
        coords={
            "event": [event.name for event in fields],
            "lead_time": [lead_time],
            "region": [region.name for region in regions],
            "probability": np.arange(bins) / (bins - 1),
        },
    )


def total_events(statistics: Iterable[xr.Dataset]) -> xr.Dataset:
    """The sums of all sets together; events, lead times and regions that only some have are kept.

    Raises:
        InvalidFieldError: there is none.
    """
    result: xr.Dataset | None = None
    for item in statistics:
        if result is None:
            result = item
            continue
        one, two = xr.align(result, item, join="outer", fill_value=0.0)
        result = xr.Dataset({name: one[name] + two[name] for name in one.data_vars})
    if result is None:
        raise InvalidFieldError("events: expected at least one set of statistics, got none")
    return result


def event_scores(statistics: xr.Dataset) -> xr.Dataset:
    """Scores from sums: dims (event, lead_time, region).

    ``brier`` = ``reliability`` − ``resolution`` + ``uncertainty``; ``brier_skill`` is against the sample's own
    frequency. ``observed_frequency`` and ``forecast_share`` per ``probability`` are the reliability diagram.
    """
    forecast, observed = statistics["forecast_weight"], statistics["observed_weight"]
    probability = statistics["probability"]
    weight = forecast.sum("probability").where(lambda total: total > 0)
    base = observed.sum("probability") / weight
    frequency = observed / forecast.where(forecast > 0)
    reliability = (forecast * (probability - frequency.fillna(0)) ** 2).sum("probability") / weight
    resolution = (forecast * (frequency.fillna(0) - base) ** 2).sum("probability") / weight
    uncertainty = base * (1 - base)
    brier = (forecast * probability**2 - 2 * observed * probability + observed).sum("probability") / weight
    return xr.Dataset(
        {
            "brier": brier,
            "reliability": reliability,
            "resolution": resolution,
            "uncertainty": uncertainty,
            "brier_skill": 1 - brier / uncertainty.where(uncertainty > 0),
            "observed_frequency": frequency,
            "forecast_share": forecast / weight,
        },
    )


def _happens(values: np.ndarray, event: Event) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return values < event.threshold if event.below else values > event.threshold
