"""Verification scores kept as sums that add up over any set of cycles.

A cycle is reduced once to *sufficient statistics*: area-weighted sums per field, lead time and region.
``add`` joins two such sets (associative and commutative, a monoid), so a season is scored without touching
its fields again, and ``scores`` turns any sum into RMSE, bias, ACC, CRPS, spread and so on.

Conventions are WeatherBench 2's (Rasp et al. 2024): area weights from cell bounds, tropics |φ| ≤ 20°,
extratropics 20–90°, squared errors averaged over cycles before the root is taken. The CRPS is the fair one
(Ferro 2014, eq. 8), the spread follows Fortin et al. (2014): unbiased variance times (M+1)/M, so that
spread equals RMSE for an ensemble whose members and truth are exchangeable.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from model.errors import InvalidFieldError
from model.grid import Grid

_SPATIAL = ("latitude", "longitude")


@dataclass(frozen=True, kw_only=True)
class Region:
    """A band of latitudes, both bounds included (degrees north)."""

    name: str
    south: float
    north: float

    def __post_init__(self) -> None:
        if not -90 <= self.south < self.north <= 90:
            raise ValueError(
                f"region {self.name}: expected −90 ≤ south < north ≤ 90, got {self.south}…{self.north}"
            )


REGIONS = (
    Region(name="global", south=-90, north=90),
    Region(name="tropics", south=-20, north=20),
    Region(name="northern-extratropics", south=20, north=90),
    Region(name="southern-extratropics", south=-90, north=-20),
)
"""WeatherBench's four regions; rows at exactly 20° belong to both neighbours."""


def field_name(variable: str, level: float | None = None) -> str:
    """A field's label: the variable, with its level in hPa if it has one, e.g. ``geopotential 500``."""
    return variable if level is None else f"{variable} {level:g}"


def region_weights(grid: Grid, regions: tuple[Region, ...] = REGIONS) -> np.ndarray:
    """Area weight of one cell per region and latitude, shape (region, latitude).

    A region's weights sum to 1 over all its cells.
    """
    rows = np.stack(
        [
            np.where(
                (grid.latitude >= region.south) & (grid.latitude <= region.north), grid.area_weights(), 0.0
            )
            for region in regions
        ]
    )
    return rows / rows.sum(axis=1, keepdims=True) / grid.shape[1]


def ensemble_statistics(
    forecast: xr.Dataset,
    truth: xr.Dataset,
    *,
    grid: Grid,
    persistence: xr.Dataset | None = None,
    climatology: xr.Dataset | None = None,
    regions: tuple[Region, ...] = REGIONS,
) -> xr.Dataset:
    """Sufficient statistics of one cycle.

    Cells where the truth is NaN (sea surface temperature over land) do not count; a forecast that is NaN
    where the truth is known makes its sums, and so its scores, NaN. A reference counts where it is known.

    Args:
        forecast: dims ([member], lead_time, [level], latitude, longitude); one variable and lead time is in
            memory at once if the arrays are lazy.
        truth: the same variables on the same lead times, without member.
        grid: where both lie.
        persistence: the initial state, dims ([level], latitude, longitude): the forecast "nothing changes".
        climatology: long-term mean at each valid time, dims as truth: the forecast "as usual", and the
            reference of the anomalies.
        regions: bands to average over.

    Returns:
        float64 sums with dims (field, lead_time, region), ``rank_weight`` also (rank). ``field`` is the label
        of ``field_name``. Attribute ``members`` holds the ensemble size.

    Raises:
        InvalidFieldError: forecast and truth do not match in grid, lead times or levels.
    """
    for name, dataset in (("forecast", forecast), ("truth", truth)):
        mismatch = grid.mismatch(dataset)
        if mismatch:
            raise InvalidFieldError(f"{name}: {mismatch}")
    if not np.array_equal(forecast["lead_time"].values, truth["lead_time"].values):
        raise InvalidFieldError(
            f"lead times: forecast has {forecast['lead_time'].values}, truth {truth['lead_time'].values}"
        )
    weights = region_weights(grid, regions)
    labels: list[str] = []
    rows: list[list[dict[str, np.ndarray]]] = []
    for variable in forecast.data_vars:
        if variable not in truth:
            raise InvalidFieldError(
                f"truth: {variable!r} is missing; it has {sorted(map(str, truth.data_vars))}"
            )
        by_lead = []
        for index in range(forecast.sizes["lead_time"]):
            at_lead = {"lead_time": index}
            known = _at(truth[variable], at_lead)
            references = [known] + [
                None if dataset is None else _reference(dataset, str(variable), at_lead, known)
                for dataset in (persistence, climatology)
            ]
            by_lead.append(
                list(_levels(_at(forecast[variable], at_lead), references, weights, str(variable)))
            )
        labels += [label for label, _ in by_lead[0]]
        rows += [[by_lead[lead][k][1] for lead in range(len(by_lead))] for k in range(len(by_lead[0]))]
    sums = {
        name: xr.DataArray(
            np.array([[statistics[name] for statistics in row] for row in rows]),
            dims=("field", "lead_time", "region") + (("rank",) if name == "rank_weight" else ()),
        )
        for name in rows[0][0]
    }
    return xr.Dataset(
        sums,
        coords={
            "field": labels,
            "lead_time": forecast["lead_time"].values,
            "region": [r.name for r in regions],
        },
        attrs={"members": forecast.sizes.get("member", 1)},
    )


def add(first: xr.Dataset, second: xr.Dataset) -> xr.Dataset:
    """The statistics of both sets together; fields, lead times and regions only one of them has are kept.

    Each reference and the ensemble have a weight of their own, so a set without a climatology, or of a single
    member, counts for the scores it has. Ranks among different numbers of members cannot be added: the sum has no
    ``rank_weight`` then.
    """
    if first.attrs["members"] != second.attrs["members"]:
        first, second = (one.drop_vars("rank_weight", errors="ignore") for one in (first, second))
    names = dict.fromkeys([*first.data_vars, *second.data_vars])
    if first.sizes.get("rank", 0) != second.sizes.get("rank", 0):
        names.pop("rank_weight", None)
    attrs = {"members": max(first.attrs["members"], second.attrs["members"])}
    same = all(np.array_equal(first[c].values, second[c].values) for c in ("field", "lead_time", "region"))
    one, two = (first, second) if same else xr.align(first, second, join="outer", fill_value=0.0)
    sums = {
        name: one[name] + two[name] if name in one and name in two else (one if name in one else two)[name]
        for name in names
    }
    order = list(dict.fromkeys([*first["field"].values, *second["field"].values]))
    regions = list(dict.fromkeys([*first["region"].values, *second["region"].values]))
    return xr.Dataset(sums, attrs=attrs).sel(field=order, region=regions)


def total(statistics: Iterable[xr.Dataset]) -> xr.Dataset:
    """The statistics of all sets together, read one at a time.

    Raises:
        InvalidFieldError: there is none, or they do not match (see ``add``).
    """
    iterator = iter(statistics)
    result = next(iterator, None)
    if result is None:
        raise InvalidFieldError("statistics: expected at least one cycle, got none")
    for item in iterator:
        result = add(result, item)
    return result


def scores(statistics: xr.Dataset) -> xr.Dataset:
    """Scores from sums: dims (field, lead_time, region), ``rank_histogram`` also (rank).

    ``rmse``, ``bias`` and ``mae`` are of the ensemble mean, in the field's units; ``acc`` is the uncentred
    anomaly correlation of the pooled cells; ``crps`` is fair; ``spread_skill_ratio`` is 1 for a reliable
    ensemble; ``rank_histogram`` sums to 1. Those of an absent reference or of a single member are left out.
    """
    result: dict[str, xr.DataArray] = {}

    def mean(name: str, weight: str = "weight") -> xr.DataArray:
        known = statistics[weight]
        return statistics[name] / known.where(known > 0)

    result["rmse"] = xr.ufuncs.sqrt(mean("squared_error"))
    result["bias"] = mean("error")
    result["mae"] = mean("absolute_error")
    for reference in ("persistence", "climatology"):
        if f"{reference}_weight" in statistics:
            own = f"{reference}_weight"
            result[f"{reference}_rmse"] = xr.ufuncs.sqrt(mean(f"{reference}_squared_error", own))
            result[f"{reference}_mae"] = mean(f"{reference}_absolute_error", own)
    if "climatology_weight" in statistics:
        power = statistics["forecast_anomaly_squared"] * statistics["truth_anomaly_squared"]
        result["acc"] = statistics["anomaly_product"] / xr.ufuncs.sqrt(power.where(power > 0))
    if "ensemble_weight" in statistics:
        own = "ensemble_weight"
        result["crps"] = mean("member_absolute_error", own) - mean("member_difference", own) / 2
        result["spread"] = xr.ufuncs.sqrt(mean("spread_squared", own))
        result["spread_skill_ratio"] = result["spread"] / result["rmse"]
    if "rank_weight" in statistics:
        result["rank_histogram"] = mean("rank_weight", "ensemble_weight")
    return xr.Dataset(result, attrs=statistics.attrs)


def _at(array: xr.DataArray, indexer: dict[str, int]) -> xr.DataArray:
    """One lead time of an array in memory, or all of an array without lead times."""
    present = {name: index for name, index in indexer.items() if name in array.dims}
    return array.isel(present).load()


def _reference(
    dataset: xr.Dataset, variable: str, indexer: dict[str, int], like: xr.DataArray
) -> xr.DataArray:
    """A reference forecast's field; NaN if it has no such variable."""
    return _at(dataset[variable], indexer) if variable in dataset else xr.full_like(like, np.nan, dtype=float)


def _levels(
    forecast: xr.DataArray,
    references: list[xr.DataArray | None],
    weights: np.ndarray,
    variable: str,
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Label and statistics of each level of one variable at one lead time."""
    levels = forecast["level"].values.tolist() if "level" in forecast.dims else [None]
    for level in levels:
        arrays: list[Any] = []
        for array in (forecast, *references):
            if array is None:
                arrays.append(None)
                continue
            at_level = array if level is None else array.sel(level=level)
            leading = ("member",) if "member" in at_level.dims else ()
            arrays.append(at_level.transpose(*leading, *_SPATIAL).values.astype(np.float64))
        members, truth, persistence, climatology = arrays
        if members.ndim == 2:
            members = members[np.newaxis]
        yield (
            field_name(variable, level),
            weighted_statistics(members, truth, persistence, climatology, weights),
        )


def weighted_statistics(
    members: np.ndarray,
    truth: np.ndarray,
    persistence: np.ndarray | None,
    climatology: np.ndarray | None,
    weights: np.ndarray,
) -> dict[str, np.ndarray]:
    """Weighted sums per region of one field.

    Args:
        members: dims (member, latitude, longitude), or places in their stead as (member, place, 1).
        truth, persistence, climatology: the same without member; NaN truth does not count.
        weights: of a cell, dims (region, latitude).
    """
    known = np.isfinite(truth)

    def weigh(values: np.ndarray, where: np.ndarray = known) -> np.ndarray:
        return weights @ np.where(where, values, 0.0).sum(axis=-1)

    mean = members.mean(axis=0)
    error = mean - truth
    sums = {
        "weight": weigh(np.ones_like(truth)),
        "error": weigh(error),
        "absolute_error": weigh(np.abs(error)),
        "squared_error": weigh(error**2),
    }
    for name, reference in (("persistence", persistence), ("climatology", climatology)):
        if reference is not None:
            both = known & np.isfinite(reference)
            sums[f"{name}_weight"] = weigh(np.ones_like(truth), both)
            sums[f"{name}_absolute_error"] = weigh(np.abs(reference - truth), both)
            sums[f"{name}_squared_error"] = weigh((reference - truth) ** 2, both)
    if climatology is not None:
        both = known & np.isfinite(climatology)
        sums["anomaly_product"] = weigh((mean - climatology) * (truth - climatology), both)
        sums["forecast_anomaly_squared"] = weigh((mean - climatology) ** 2, both)
        sums["truth_anomaly_squared"] = weigh((truth - climatology) ** 2, both)
    size = len(members)
    if size > 1:
        sums["ensemble_weight"] = sums["weight"]
        sums["spread_squared"] = weigh(members.var(axis=0, ddof=1)) * (size + 1) / size
        sums["member_absolute_error"] = weigh(np.abs(members - truth).mean(axis=0))
        sums["member_difference"] = weigh(mean_member_difference(members))
        sums["rank_weight"] = weights @ rank_counts(members, truth)
    return sums


def mean_member_difference(members: np.ndarray) -> np.ndarray:
    """Mean of |xᵢ − xⱼ| over all pairs i ≠ j, for members (member, …): the fair CRPS's second term, doubled.

    By sorting, since the sum over pairs is that of (2i − M + 1) x₍ᵢ₎ over the order statistics.
    """
    count = len(members)
    ordered = np.sort(members, axis=0)
    factors = (2.0 * np.arange(count) - count + 1).reshape(-1, *[1] * (members.ndim - 1))
    return 2 * (factors * ordered).sum(axis=0) / (count * (count - 1))


def rank_counts(members: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """How often the truth has each rank among the members, shape (latitude, rank), ranks 0…M.

    A truth equal to t members lies with equal shares in the t+1 ranks it could have (dry cells).
    """
    count = len(members)
    known = np.isfinite(truth)
    row = np.broadcast_to(np.arange(truth.shape[0])[:, np.newaxis], truth.shape)[known]
    below = (members < truth).sum(axis=0)[known]
    tied = (members == truth).sum(axis=0)[known]
    counts = np.zeros(truth.shape[0] * (count + 1))
    for shift in range(int(tied.max(initial=0)) + 1):
        some = tied >= shift
        position = row[some] * (count + 1) + below[some] + shift
        counts += np.bincount(position, weights=1 / (tied[some] + 1), minlength=counts.size)
    return counts.reshape(truth.shape[0], count + 1)
