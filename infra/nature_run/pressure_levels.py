"""From sigma levels to pressure levels, mean sea level pressure included.

Between full levels, temperature, wind and humidity are linear in ln p, and geopotential follows from the
hydrostatic relation dΦ = −R_d T_v d(ln p) with T_v linear in ln p: linear interpolation of Φ plus its exact
curvature, so that the model's own Φ at the full levels is kept.

*Below the lowest full level*, and so below the ground, temperature follows a constant lapse rate of
6.5 K km⁻¹, T = T_N (p/p_N)^(R_d Γ/g₀), and geopotential the barometric formula with it; wind and specific
humidity keep their value of the lowest level. Mean sea level pressure is that barometric formula carried
from the ground to Φ = 0. *Above the top full level* the atmosphere is isothermal, geopotential hydrostatic,
wind and humidity constant. (Rules of this kind are usual in post-processing; compare ECMWF, "IFS
documentation, Part VI", chapter on interpolation to pressure levels. The IFS adds exceptions over cold or
high ground, which are left out here.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model.variables import STANDARD_GRAVITY

GAS_CONSTANT_DRY_AIR = 287.04
"""R_d in J kg⁻¹ K⁻¹."""

LAPSE_RATE = 0.0065
"""Γ in K m⁻¹, the standard atmosphere's tropospheric lapse rate."""

VIRTUAL_TEMPERATURE_FACTOR = 0.608
"""R_v / R_d − 1."""

_LAPSE_EXPONENT = GAS_CONSTANT_DRY_AIR * LAPSE_RATE / STANDARD_GRAVITY


@dataclass(frozen=True, kw_only=True)
class SigmaFields:
    """An atmosphere on sigma full levels, top first; any trailing horizontal shape.

    Args:
        sigma: p / p_s of the full levels, ascending, shape (layer,).
        surface_pressure: Pa, shape (*horizontal).
        surface_geopotential: m² s⁻², shape (*horizontal).
        temperature: K, shape (layer, *horizontal); likewise ``geopotential`` in m² s⁻²,
            ``specific_humidity`` in kg kg⁻¹ and the wind components in m s⁻¹.
    """

    sigma: np.ndarray
    surface_pressure: np.ndarray
    surface_geopotential: np.ndarray
    temperature: np.ndarray
    geopotential: np.ndarray
    specific_humidity: np.ndarray
    u_component_of_wind: np.ndarray
    v_component_of_wind: np.ndarray

    def __post_init__(self) -> None:
        sigma = np.asarray(self.sigma)
        if sigma.ndim != 1 or sigma.size < 2 or np.any(np.diff(sigma) <= 0) or sigma[0] <= 0 or sigma[-1] > 1:
            raise ValueError(f"sigma: expected at least two ascending values in (0, 1], got {sigma}")
        horizontal = np.shape(self.surface_pressure)
        if np.shape(self.surface_geopotential) != horizontal:
            got = np.shape(self.surface_geopotential)
            raise ValueError(f"surface_geopotential: expected shape {horizontal}, got {got}")
        for name in _LEVEL_FIELDS:
            shape = np.shape(getattr(self, name))
            if shape != (sigma.size, *horizontal):
                raise ValueError(f"{name}: expected shape {(sigma.size, *horizontal)}, got {shape}")


_LEVEL_FIELDS = (
    "temperature",
    "geopotential",
    "specific_humidity",
    "u_component_of_wind",
    "v_component_of_wind",
)


def to_pressure_levels(fields: SigmaFields, levels: tuple[int, ...]) -> dict[str, np.ndarray]:
    """The five upper-air fields on pressure levels, by ERA5 long name.

    Args:
        fields: the atmosphere on sigma levels.
        levels: hPa, in the order wanted.

    Returns:
        float64 arrays of shape (level, *horizontal), in the units of the input.
    """
    log_full = np.log(np.asarray(fields.sigma, dtype=np.float64)).reshape(
        (-1,) + (1,) * np.ndim(fields.surface_pressure)
    ) + np.log(np.asarray(fields.surface_pressure, dtype=np.float64))
    source = {name: np.asarray(getattr(fields, name), dtype=np.float64) for name in _LEVEL_FIELDS}
    virtual = source["temperature"] * (1 + VIRTUAL_TEMPERATURE_FACTOR * source["specific_humidity"])
    result = {name: np.empty((len(levels), *log_full.shape[1:])) for name in _LEVEL_FIELDS}
    for index, level in enumerate(levels):
        for name, field in _at_pressure(100.0 * level, log_full, source, virtual).items():
            result[name][index] = field
    return result


def _at_pressure(
    pressure: float, log_full: np.ndarray, source: dict[str, np.ndarray], virtual: np.ndarray
) -> dict[str, np.ndarray]:
    layers = log_full.shape[0]
    target = np.log(pressure)
    upper = np.clip((log_full < target).sum(axis=0) - 1, 0, layers - 2)

    def take(field: np.ndarray, layer: np.ndarray) -> np.ndarray:
        return np.take_along_axis(field, layer[np.newaxis], axis=0)[0]

    above, below = take(log_full, upper), take(log_full, upper + 1)
    weight = np.clip((target - above) / (below - above), 0.0, 1.0)
    fields = {
        name: (1 - weight) * take(field, upper) + weight * take(field, upper + 1)
        for name, field in source.items()
    }
    gradient = (take(virtual, upper + 1) - take(virtual, upper)) / (below - above)
    curvature = 0.5 * GAS_CONSTANT_DRY_AIR * gradient * weight * (1 - weight) * (below - above) ** 2
    fields["geopotential"] += curvature

    beyond_top = np.maximum(log_full[0] - target, 0.0)
    fields["geopotential"] += GAS_CONSTANT_DRY_AIR * virtual[0] * beyond_top
    beyond_bottom = np.maximum(target - log_full[-1], 0.0)
    growth = np.exp(_LAPSE_EXPONENT * beyond_bottom)
    fields["temperature"] *= growth
    fields["geopotential"] -= GAS_CONSTANT_DRY_AIR / _LAPSE_EXPONENT * virtual[-1] * (growth - 1)
    return fields


def mean_sea_level_pressure(fields: SigmaFields) -> np.ndarray:
    """Surface pressure reduced to Φ = 0 at the constant lapse rate, in Pa, shape (*horizontal).

    With T_s the virtual temperature at the ground, p_msl = p_s (1 + Γ Φ_s / (g₀ T_s))^(g₀ / (R_d Γ)).
    """
    lowest = np.asarray(fields.temperature[-1], dtype=np.float64) * (
        1 + VIRTUAL_TEMPERATURE_FACTOR * np.asarray(fields.specific_humidity[-1], dtype=np.float64)
    )
    at_ground = lowest * float(fields.sigma[-1]) ** (-_LAPSE_EXPONENT)
    height = np.asarray(fields.surface_geopotential, dtype=np.float64) / STANDARD_GRAVITY
    rise = LAPSE_RATE * height / at_ground
    return np.asarray(fields.surface_pressure, dtype=np.float64) * (1 + rise) ** (1 / _LAPSE_EXPONENT)
