"""How the members of an ensemble come to differ at the start, when the model itself is deterministic.

A member's perturbation is a function of its own key, its global number and the configuration: it is the same
whatever the size of the ensemble. Member 0 is the control and is never perturbed.

=================== ====================================================================================
``none``            all members start from the analysis (GenCast's members differ by their own noise)
``noise``           Gaussian noise correlated on the sphere, its standard deviation a share of that of the
                    change over one model step, by variable and level
``lagged``          differences between the analysis and earlier ones, added and subtracted in turn
``analyses``        deviations of a set of analyses (an ensemble of data assimilations) from their mean
``weights``         the analysis as it is; noise in the model's parameters instead
=================== ====================================================================================
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

import jax
import numpy as np
import xarray as xr

from model.errors import InvalidFieldError, UnknownOptionError
from model.grid import Grid
from model.rollout.correlated_noise import correlated_noise
from model.variables import STATICS, VARIABLES

Kind = Literal["none", "noise", "lagged", "analyses", "weights"]

CONTROL = 0
"""The member that starts from the analysis itself."""

# Folded into a member's key before any draw. A rollout splits the same key, which is folding in 0 and 1.
_PURPOSE = 0x50657274

_NOT_NEGATIVE = frozenset({"specific_humidity"})
_UNTOUCHED = frozenset(n for n, v in VARIABLES.items() if v.accumulation_hours is not None) | STATICS


@dataclass(frozen=True, kw_only=True)
class Perturbation:
    """What is configured under a model's ``perturbation`` and recorded in its run.

    Args:
        kind: see the module.
        amplitude: ``noise``: share of the standard deviation of one step's change; ``lagged`` and
            ``analyses``: factor on the differences; ``weights``: share of each parameter array's own root
            mean square.
        correlation_length_km: ``noise``: distance over which the correlation falls to exp(−½).
        vertical_length: ``noise``: distance in ln(pressure) over which levels decorrelate by 1/e; 0 makes
            them independent.
        variables: the variables perturbed; empty for all but accumulations and statics.
        lags_hours: ``lagged``: ages of the earlier analyses.
        sources: ``analyses``: names of the configured sources of the set.
    """

    kind: Kind = "none"
    amplitude: float = 0.1
    correlation_length_km: float = 1000.0
    vertical_length: float = 1.0
    variables: tuple[str, ...] = ()
    lags_hours: tuple[int, ...] = ()
    sources: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise UnknownOptionError(f"perturbation: expected one of {get_args(Kind)}, got {self.kind!r}")
        if not np.isfinite(self.amplitude) or self.amplitude < 0:
            raise ValueError(f"perturbation: amplitude: expected a number ≥ 0, got {self.amplitude}")
        if self.correlation_length_km <= 0 or self.vertical_length < 0:
            raise ValueError(
                "perturbation: expected correlation_length_km > 0 and vertical_length ≥ 0, got "
                f"{self.correlation_length_km} and {self.vertical_length}"
            )
        unknown = [name for name in self.variables if name not in VARIABLES or name in _UNTOUCHED]
        if unknown:
            raise ValueError(f"perturbation: variables: {unknown} are unknown or may not be perturbed")
        if self.kind == "lagged" and (not self.lags_hours or min(self.lags_hours) <= 0):
            raise ValueError(f"perturbation: lags_hours: expected positive hours, got {self.lags_hours}")
        if self.kind == "analyses" and len(self.sources) < 2:
            raise ValueError(f"perturbation: sources: expected at least two, got {self.sources}")

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Perturbation:
        """From the mapping in a configuration or a run's record; an empty one is ``none``.

        Raises:
            UnknownOptionError: a field or kind that does not exist.
            ValueError: a value out of range.
        """
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise UnknownOptionError(f"perturbation: unknown {', '.join(unknown)}; known: {sorted(known)}")
        lists = ("variables", "lags_hours", "sources")
        given: dict[str, Any] = {name: tuple(v) if name in lists else v for name, v in values.items()}
        return cls(**given)

    def to_json(self) -> dict[str, Any]:
        """Everything that decides a value, as JSON types; ``from_json`` gives it back."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}


def perturb(
    initial_condition: xr.Dataset,
    perturbation: Perturbation,
    *,
    key: np.ndarray,
    member: int,
    grid: Grid,
    diffs_stddev: xr.Dataset | None = None,
    analyses: Sequence[xr.Dataset] = (),
) -> xr.Dataset:
    """A member's initial condition.

    Args:
        initial_condition: the control's; dims (time=2, [level,] latitude, longitude), statics without time.
        perturbation: what to do.
        key: the member's first key, uint32 (2,).
        member: its global number.
        grid: of the fields.
        diffs_stddev: for ``noise``: the checkpoint's statistics of one step's change.
        analyses: for ``lagged``: the initial conditions of the earlier cycles in the order of ``lags_hours``;
            for ``analyses``: those of the set in the order of ``sources``. Their own times do not count.

    Returns:
        A new Dataset; both frames get the same noise, so that the change between them stays as analysed.
        Missing points stay missing, specific humidity does not become negative.

    Raises:
        InvalidFieldError: statistics or analyses that are needed are not given, or do not match.
    """
    if member == CONTROL or perturbation.kind in ("none", "weights") or perturbation.amplitude == 0:
        return initial_condition.copy()
    names = _perturbed_names(initial_condition, perturbation)
    if perturbation.kind == "noise":
        changes = _noise(initial_condition, names, perturbation, key, grid, diffs_stddev)
    else:
        changes = _differences(initial_condition, names, perturbation, member, analyses)
    return initial_condition.assign(
        {name: _added(initial_condition[name], change) for name, change in changes.items()}
    )


def perturb_parameters(
    parameters: Mapping[str, Mapping[str, np.ndarray]],
    perturbation: Perturbation,
    *,
    key: np.ndarray,
    member: int,
) -> dict[str, dict[str, np.ndarray]]:
    """A member's network parameters: each array plus noise of ``amplitude`` times its root mean square.

    Args:
        parameters: arrays by module path and name.
        perturbation: of kind ``weights``; any other leaves them as they are.
        key, member: the member's.
    """
    noisy = perturbation.kind == "weights" and member != CONTROL
    own = _own_key(key)
    result: dict[str, dict[str, np.ndarray]] = {}
    for i, module in enumerate(sorted(parameters)):
        result[module] = {}
        for j, name in enumerate(sorted(parameters[module])):
            array = np.asarray(parameters[module][name])
            if noisy and array.size:
                size = perturbation.amplitude * float(np.sqrt(np.mean(np.square(array, dtype=np.float64))))
                drawn = _normal(_fold(_fold(own, i), j), array.shape)
                array = (array + size * drawn).astype(array.dtype)
            result[module][name] = array
    return result


def _perturbed_names(initial_condition: xr.Dataset, perturbation: Perturbation) -> list[str]:
    """In an order that does not depend on the Dataset's."""
    moving = [str(name) for name in initial_condition.data_vars if "time" in initial_condition[name].dims]
    allowed = set(perturbation.variables) or set(moving) - _UNTOUCHED
    return sorted(set(moving) & allowed)


def _noise(
    initial_condition: xr.Dataset,
    names: Sequence[str],
    perturbation: Perturbation,
    key: np.ndarray,
    grid: Grid,
    diffs_stddev: xr.Dataset | None,
) -> dict[str, np.ndarray]:
    if diffs_stddev is None:
        raise InvalidFieldError("perturbation by noise needs the statistics of one step's change; got none")
    absent = [name for name in names if name not in diffs_stddev]
    if absent:
        raise InvalidFieldError(f"perturbation by noise: no diffs_stddev of {', '.join(absent)}")
    own = _own_key(key)
    changes = {}
    for name in names:
        on_levels = "level" in initial_condition[name].dims
        levels = initial_condition["level"].values if on_levels else np.zeros(0)
        scale = diffs_stddev[name].sel(level=levels) if on_levels else diffs_stddev[name]
        drawn = correlated_noise(
            _fold(own, zlib.crc32(name.encode())),
            grid,
            length_km=perturbation.correlation_length_km,
            vertical_correlations=_vertical_correlations(levels, perturbation.vertical_length),
        )
        size = perturbation.amplitude * np.atleast_1d(scale.values.astype(np.float64))
        changed = (size[:, None, None] * drawn).astype(np.float32)
        changes[name] = changed if on_levels else changed[0]
    return changes


def _vertical_correlations(levels: np.ndarray, length: float) -> tuple[float, ...]:
    if levels.size < 2:
        return ()
    distances = np.abs(np.diff(np.log(levels.astype(np.float64))))
    return tuple(float(np.exp(-d / length)) if length > 0 else 0.0 for d in distances)


def _differences(
    initial_condition: xr.Dataset,
    names: Sequence[str],
    perturbation: Perturbation,
    member: int,
    analyses: Sequence[xr.Dataset],
) -> dict[str, np.ndarray]:
    lagged = perturbation.kind == "lagged"
    wanted = len(perturbation.lags_hours if lagged else perturbation.sources)
    if len(analyses) != wanted:
        raise InvalidFieldError(
            f"perturbation {perturbation.kind}: expected {wanted} analyses, got {len(analyses)}"
        )
    for analysis in analyses:
        for name in names:
            if name not in analysis or analysis[name].shape != initial_condition[name].shape:
                shape = analysis[name].shape if name in analysis else None
                raise InvalidFieldError(
                    f"perturbation {perturbation.kind}: {name}: expected shape "
                    f"{initial_condition[name].shape} in every analysis, got {shape}"
                )
    number = member - 1
    changes = {}
    base: np.ndarray
    for name in names:
        if lagged:
            other, base = analyses[(number // 2) % wanted][name].values, initial_condition[name].values
            factor = perturbation.amplitude * (1 if number % 2 == 0 else -1)
        else:
            other = analyses[number % wanted][name].values
            base = np.asarray(np.mean([each[name].values for each in analyses], axis=0, dtype=np.float64))
            factor = perturbation.amplitude
        changes[name] = (factor * (other.astype(np.float64) - base)).astype(np.float32)
    return changes


def _added(field: xr.DataArray, change: np.ndarray) -> xr.DataArray:
    """A field (time, …) plus a change for each frame, or for both; where the change is missing, as it was."""
    before = field.values
    after = before + np.where(np.isfinite(change), change, np.float32(0))
    if field.name in _NOT_NEGATIVE:
        after = np.maximum(after, np.minimum(before, 0))
    return field.copy(data=after.astype(before.dtype))


def _own_key(key: np.ndarray) -> np.ndarray:
    return _fold(np.asarray(key, dtype=np.uint32), _PURPOSE)


def _fold(key: np.ndarray, number: int) -> np.ndarray:
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        return np.asarray(jax.random.fold_in(key, number), dtype=np.uint32)


def _normal(key: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        return np.asarray(jax.random.normal(key, shape), dtype=np.float64)
