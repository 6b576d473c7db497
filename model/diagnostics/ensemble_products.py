"""What is made of an ensemble's members: moments, quantiles, probabilities, derived quantities.

All functions work on arrays whose first dimension is the member, so a caller may hand over any tile of the
globe and never holds more. A cell where any member is NaN (sea surface temperature over land) is NaN
in every product.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from model.variables import VARIABLES

ANOMALY_SUFFIX = "_anomaly"


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """A field products are made of: a forecast variable or something computed from some.

    Args:
        name: its name in products.
        inputs: forecast variables it needs, in the order its rule takes them.
        units: CF units.
        rule: ``"variable"``, ``"wind-speed"`` (of u and v), ``"since-start"`` (sum of all steps so far) or
            ``"anomaly"`` (departure from the climatological mean).
        on_levels: whether it has a level dimension.
        standard_name: CF standard name, if there is one.
        accumulation_hours: hours of accumulation ending at valid time; None for instantaneous.
    """

    name: str
    inputs: tuple[str, ...]
    units: str
    rule: str = "variable"
    on_levels: bool = False
    standard_name: str | None = None
    accumulation_hours: int | None = None

    @property
    def long_name(self) -> str:
        """The name for people."""
        return self.name.replace("_", " ")


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something a user wants the probability of: a quantity above (or below) a threshold.

    Args:
        quantity: name of a ``Quantity``.
        threshold: in the quantity's units.
        level: hPa, for a quantity on levels.
        below: whether the event is falling below instead of exceeding.
    """

    quantity: str
    threshold: float
    level: int | None = None
    below: bool = False

    def __post_init__(self) -> None:
        if not np.isfinite(self.threshold):
            raise ValueError(f"event on {self.quantity}: expected a finite threshold, got {self.threshold}")

    @property
    def name(self) -> str:
        """Name of its probability field, e.g. ``probability_10m_wind_speed_above_15``."""
        threshold = f"{self.threshold:g}".replace("-", "minus_").replace("+", "")
        return f"probability_{field_name(self.quantity, self.level)}_{self.direction}_{threshold}"

    @property
    def direction(self) -> str:
        """``above`` or ``below``."""
        return "below" if self.below else "above"


def field_name(quantity: str, level: float | None) -> str:
    """A name in products: with the level if one is singled out, e.g. ``geopotential_500hPa``."""
    return quantity if level is None else f"{quantity}_{level:g}hPa"


def available_quantities(
    variables: Sequence[str], *, climatology: Collection[str] = ()
) -> dict[str, Quantity]:
    """Everything that can be made from a forecast with these variables, by name.

    Args:
        variables: the forecast's variables.
        climatology: the variables a climatology is at hand for; they have anomalies.
    """
    found = {}
    for name in variables:
        known = VARIABLES[name]
        found[name] = Quantity(
            name=name,
            inputs=(name,),
            units=known.units,
            on_levels=known.on_levels,
            standard_name=known.standard_name,
            accumulation_hours=known.accumulation_hours,
        )
        if name in climatology and known.accumulation_hours is None:
            anomaly = f"{name}{ANOMALY_SUFFIX}"
            found[anomaly] = Quantity(
                name=anomaly, inputs=(name,), units=known.units, rule="anomaly", on_levels=known.on_levels
            )
        if name.startswith("total_precipitation"):
            found["total_precipitation"] = Quantity(
                name="total_precipitation",
                inputs=(name,),
                units=known.units,
                rule="since-start",
                standard_name=known.standard_name,
            )
    for name, on_levels, prefix in (("10m_wind_speed", False, "10m_"), ("wind_speed", True, "")):
        components = (f"{prefix}u_component_of_wind", f"{prefix}v_component_of_wind")
        if all(component in variables for component in components):
            found[name] = Quantity(
                name=name,
                inputs=components,
                units="m s-1",
                rule="wind-speed",
                on_levels=on_levels,
                standard_name="wind_speed",
            )
    return found


def as_published(variable: str, values: np.ndarray) -> np.ndarray:
    """A variable's values as products, members' files and scores have them.

    Networks put some precipitation slightly below zero, which counts as zero; NaN stays NaN.
    """
    return np.maximum(values, 0.0) if variable.startswith("total_precipitation") else values


def wind_speed(eastward: np.ndarray, northward: np.ndarray) -> np.ndarray:
    """Speed from components, in their units."""
    return np.hypot(eastward, northward)


def wind_direction(eastward: np.ndarray, northward: np.ndarray) -> np.ndarray:
    """Direction the wind blows from, degrees clockwise from north, 0 ≤ direction < 360."""
    direction = np.rad2deg(np.arctan2(-eastward, -northward)) % 360.0
    return np.where(direction >= 360.0, 0.0, direction)


def mean_and_standard_deviation(members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and unbiased standard deviation (divisor M−1) over members (member, …), float64.

    Raises:
        ValueError: there are fewer than two members.
    """
    if len(members) < 2:
        raise ValueError(f"expected at least two members, got {len(members)}")
    mean = members.mean(axis=0, dtype=np.float64)
    return mean, members.std(axis=0, ddof=1, dtype=np.float64)


def quantiles(members: np.ndarray, probabilities: Sequence[float]) -> np.ndarray:
    """Quantiles over members (member, …), linear between order statistics; shape (quantile, …), float64.

    Hyndman and Fan's (1996) definition 7, as ``numpy.quantile`` has it; ordered for ascending probabilities.
    """
    ordered = np.sort(members, axis=0)  # NaN last, so the mask is the last row's
    result = np.empty((len(probabilities), *members.shape[1:]))
    for index, probability in enumerate(probabilities):
        position = probability * (len(members) - 1)
        below = int(np.floor(position))
        above = min(below + 1, len(members) - 1)
        share = position - below
        result[index] = ordered[below] + share * (ordered[above].astype(np.float64) - ordered[below])
    result[:, np.isnan(ordered[-1])] = np.nan
    return result


def probability(members: np.ndarray, event: Event) -> np.ndarray:
    """Share of members (member, …) in which the event happens, float64 within 0…1, NaN if any member is."""
    happens = members < event.threshold if event.below else members > event.threshold
    return np.where(np.isnan(members).any(axis=0), np.nan, happens.mean(axis=0))


def squared_distances(members: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """(xₘ − mean)² per member and row of latitude, averaged over longitude: shape (member, latitude).

    Args:
        members: dims (member, latitude, longitude).
        mean: dims (latitude, longitude).
    """
    squared = (members - mean) ** 2
    known = np.isfinite(squared)
    return np.where(known, squared, 0.0).sum(axis=-1) / np.maximum(known.sum(axis=-1), 1)


def most_representative_member(distances: np.ndarray) -> int:
    """Position of the member nearest to the ensemble mean over all fields and lead times.

    Each squared distance is first divided by its mean over members, so that fields
    of different units and lead times of different spread count alike. No clustering: the result is a real,
    physically consistent member (as opposed to the mean), and it does not depend on any other choice.

    Args:
        distances: area-mean squared distances to the ensemble mean, dims (member, …).
    """
    flat = distances.reshape(len(distances), -1)
    scale = flat.mean(axis=0)
    return int(np.argmin((flat[:, scale > 0] / scale[scale > 0]).sum(axis=1)))


def round_mantissa(values: np.ndarray, bits: int) -> np.ndarray:
    """Float32 values with only ``bits`` explicit mantissa bits kept, to nearest, ties to even.

    The rest of the mantissa is zero and compresses away. The relative error is at most 2^−(bits+1)
    (Klöwer et al. 2021). NaN and infinities stay. Monotone: ordered values stay ordered.
    """
    if not 1 <= bits <= 23:
        raise ValueError(f"bits: expected 1…23, got {bits}")
    values = np.ascontiguousarray(values, dtype=np.float32)
    if bits == 23:
        return values
    raw = values.view(np.uint32)
    drop = 23 - bits
    half = np.uint32((1 << (drop - 1)) - 1)
    odd = (raw >> np.uint32(drop)) & np.uint32(1)
    rounded = (raw + half + odd) & np.uint32(0xFFFFFFFF << drop & 0xFFFFFFFF)
    return np.where(np.isfinite(values), rounded.view(np.float32), values)
