"""What an initial condition must satisfy before a model runs on it.

A *check* is one rule on one column of the table of field statistics, for some of its rows; a *suite* is the
list of checks of a model family and a source kind. A check either blocks (the cycle does not run) or warns.
``infra.expectations`` evaluates a suite.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from infra.errors import UnknownOptionError

Severity = Literal["block", "warn"]

_WINDS = ("u_component_of_wind", "v_component_of_wind")
_SURFACE_WINDS = ("10m_u_component_of_wind", "10m_v_component_of_wind")
_PRECIPITATION = ("total_precipitation_6hr", "total_precipitation_12hr")
_SLOW = ("sea_surface_temperature", "geopotential_at_surface", "land_sea_mask")
_TROPOSPHERE = 300
"""hPa below which specific humidity's statistics are worth comparing; above, its variance is tiny."""

SOURCE_KINDS = ("hres", "era5", "gfs", "nature-run")


@dataclass(frozen=True, kw_only=True)
class Check:
    """One rule on a column of the table of field statistics.

    Args:
        name: short and stable, e.g. ``"physical range"``; several checks may share one.
        severity: whether a failure blocks the cycle or only warns.
        column: the column judged. Rows where it is empty are passed over.
        minimum, maximum: bounds, both included; None leaves that side open.
        not_below, not_above: names of columns that hold the bounds instead.
        equals: name of a column whose text must be the same, or a value that must be met.
        empty: the column must be empty.
        variables: only rows of these variables; empty for all.
        except_variables: not rows of these.
        levels: only rows with level within these hPa (0 is a single level); None for all.
        reason: what a failure means, in a sentence.
    """

    name: str
    severity: Severity
    column: str
    reason: str
    minimum: float | None = None
    maximum: float | None = None
    not_below: str | None = None
    not_above: str | None = None
    equals: str | bool | None = None
    empty: bool = False
    variables: tuple[str, ...] = ()
    except_variables: tuple[str, ...] = ()
    levels: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        rules = [
            self.minimum is not None or self.maximum is not None, self.not_below is not None,
            self.not_above is not None, self.equals is not None, self.empty,
        ]  # fmt: skip
        if sum(rules) != 1:
            raise ValueError(f"check {self.name!r}: expected exactly one rule, got {sum(rules)}")

    @property
    def expected(self) -> str:
        """The rule in words, for messages."""
        if self.empty:
            return "nothing"
        if self.equals is not None:
            return f"equal to {self.equals}"
        if self.not_below is not None:
            return f"at least {self.not_below}"
        if self.not_above is not None:
            return f"at most {self.not_above}"
        if self.minimum is None:
            return f"at most {self.maximum:g}"
        if self.maximum is None:
            return f"at least {self.minimum:g}"
        return f"{self.minimum:g} to {self.maximum:g}"


def suite_name(family: str, source_kind: str) -> str:
    """Name of a suite, e.g. ``graphcast-hres``."""
    return f"{family}-{source_kind}"


def build_suite(family: str, source_kind: str) -> tuple[Check, ...]:
    """The checks for initial conditions of a model family from a kind of analysis.

    Every limit is at least twice as far out as anything found in ERA5 and GFS fields, and well inside of what
    the fault it is for produces.

    Raises:
        UnknownOptionError: no such kind of analysis.
    """
    if source_kind not in SOURCE_KINDS:
        raise UnknownOptionError(f"source kind: expected one of {SOURCE_KINDS}, got {source_kind!r}")
    checks = [*_completeness(), *_values(), *_climate(), *_changes(), *_relations()]
    if family == "gencast":
        checks += _sea_surface()
    # The nature run's sun shines as its daily mean, and its orography is spectrally truncated.
    checks.append(_mountains("warn" if source_kind == "nature-run" else "block"))
    if source_kind != "nature-run":
        checks.append(_daily_cycle())
    return tuple(checks)


def _block(name: str, column: str, reason: str, **rule: Any) -> Check:
    return Check(name=name, severity="block", column=column, reason=reason, **rule)


def _warn(name: str, column: str, reason: str, **rule: Any) -> Check:
    return Check(name=name, severity="warn", column=column, reason=reason, **rule)


def _completeness() -> tuple[Check, ...]:
    # fmt: off
    return (
        _block("completeness", "present", "a variable, level or time is missing", equals=True),
        _block("grid", "grid_mismatch", "the fields do not lie on the model's grid", empty=True),
        _block("time", "time_mismatch", "the frames are not at the times the model starts from", empty=True),
        _block("units", "units", "the units attribute is not the canonical one", equals="expected_units"),
        _block("data kind", "source_kind", "the weights were trained on another kind of analysis",
               equals="trained_on"),
    )
    # fmt: on


def _values() -> tuple[Check, ...]:
    winds = (*_WINDS, *_SURFACE_WINDS, "vertical_velocity")
    # fmt: off
    return (
        _block("missing values", "missing_share", "the field has NaN",
               maximum=0.0, except_variables=("sea_surface_temperature",)),
        _block("infinite values", "infinite_share", "the field has infinities", maximum=0.0),
        _block("fill values", "fill_share", "the field has placeholders for missing values", maximum=2e-4),
        _block("zeros", "zero_share", "part of the field is blank", maximum=0.3, variables=winds),
        _block("physical range", "minimum", "below anything found on Earth: wrong units or damage",
               not_below="lower_limit"),
        _block("physical range", "maximum", "above anything found on Earth: wrong units or damage",
               not_above="upper_limit"),
    )
    # fmt: on


def _climate() -> tuple[Check, ...]:
    """Global mean and spread against the checkpoint's own statistics."""
    mean, spread = (
        "far from the mean of the data the weights know",
        "unlike the spread of the data the weights know",
    )
    most: dict[str, Any] = {"except_variables": ("specific_humidity", *_PRECIPITATION)}
    moisture: dict[str, Any] = {"variables": ("specific_humidity",), "levels": (_TROPOSPHERE, 2000)}
    high_moisture: dict[str, Any] = {"variables": ("specific_humidity",), "levels": (1, _TROPOSPHERE - 1)}
    precipitation: dict[str, Any] = {"variables": _PRECIPITATION}
    # fmt: off
    return (
        _block("global mean", "mean_score", mean, minimum=-2.0, maximum=2.0, **most),
        _block("global spread", "deviation_ratio", spread, minimum=0.2, maximum=4.0, **most),
        _block("global mean", "mean_score", mean, minimum=-2.0, maximum=2.0, **moisture),
        _block("global spread", "deviation_ratio", spread, minimum=0.2, maximum=4.0, **moisture),
        _warn("global mean", "mean_score", mean, minimum=-0.75, maximum=0.75, **most),
        _warn("global spread", "deviation_ratio", spread, minimum=0.45, maximum=1.75, **most),
        _warn("global mean", "mean_score", mean, minimum=-0.75, maximum=0.75, **moisture),
        _warn("global spread", "deviation_ratio", spread, minimum=0.45, maximum=1.75, **moisture),
        _block("global mean", "mean_score", mean, minimum=-2.0, maximum=2.0, **precipitation),
        _warn("global mean", "mean_score", mean, minimum=-8.0, maximum=8.0, **high_moisture),
    )
    # fmt: on


def _changes() -> tuple[Check, ...]:
    """From the first frame to the second."""
    change = "the change since the frame before is not that of one model step"
    most: dict[str, Any] = {"except_variables": (*_SLOW, *_PRECIPITATION, "specific_humidity")}
    moisture: dict[str, Any] = {"variables": ("specific_humidity",), "levels": (_TROPOSPHERE, 2000)}
    # fmt: off
    return (
        _block("repeated field", "repeats",
               "the field is the same, bit for bit, as at an earlier time: stale data",
               empty=True, except_variables=(*_SLOW, *_PRECIPITATION)),
        _block("step-to-step change", "change_ratio", change, minimum=0.05, maximum=5.0, **most),
        _block("step-to-step change", "change_ratio", change, minimum=0.05, maximum=5.0, **moisture),
        _warn("step-to-step change", "change_ratio", change, minimum=0.3, maximum=2.5, **most),
        _warn("step-to-step change", "change_ratio", change, minimum=0.3, maximum=2.5, **moisture),
        _block("missing values", "missing_changed_share",
               "missing points came or went between the frames", maximum=0.0),
    )
    # fmt: on


def _relations() -> tuple[Check, ...]:
    """Between fields."""
    troposphere = (100, 2000)
    # fmt: off
    return (
        _block("hydrostatic balance", "hydrostatic_deviation", "thickness and temperature disagree",
               not_above="hydrostatic_deviation_limit"),
        _block("hydrostatic balance", "hydrostatic_bias", "too thick for the temperature: units",
               not_above="hydrostatic_bias_upper_limit"),
        _block("hydrostatic balance", "hydrostatic_bias", "too thin for the temperature: units",
               not_below="hydrostatic_bias_lower_limit"),
        _block("hydrostatic balance", "thickness_correlation",
               "temperature and geopotential are not of the same weather", minimum=0.5, levels=troposphere),
        _block("pressure levels", "descending_share", "geopotential does not increase upwards", maximum=0.0),
        _block("geostrophic balance", "geostrophic_correlation",
               "the wind does not belong to the pressure field: swapped components, a wrong sign, "
               "reversed latitude or shifted longitude", minimum=0.4),
        _block("surface wind", "surface_wind_correlation",
               "the 10 m wind does not belong to the wind above it", minimum=0.4),
        _warn("zonal mean wind", "zonal_mean_strength",
              "a mean northward wind round the globe: swapped components?",
              maximum=5.0, variables=("v_component_of_wind",), levels=troposphere),
        _warn("seam", "meridian_seam", "a jump across a meridian: wrongly joined halves?", maximum=6.0),
        _block("geography", "landmark_agreement",
               "continents and oceans are not where they belong: shifted or reversed coordinates",
               minimum=0.9),
    )
    # fmt: on


def _sea_surface() -> tuple[Check, ...]:
    """Coarse coasts and lakes differ by a few per cent; half a turn or a reversal by more than twenty."""
    reason = "sea surface temperature is not missing over land and only there"
    return (
        _block("sea mask", "mask_mismatch_share", reason, maximum=0.08),
        _warn("sea mask", "mask_mismatch_share", reason, maximum=0.04),
    )


def _mountains(severity: Severity) -> Check:
    reason = "mountains are not colder than the lowlands around: shifted or reversed fields"
    return Check(
        name="geography", severity=severity, column="elevation_correlation", maximum=-0.2, reason=reason
    )


def _daily_cycle() -> Check:
    reason = "the land does not warm with the sun: another hour's fields, or shifted ones"
    return _warn("daily cycle", "diurnal_phase_error", reason, minimum=-4.0, maximum=4.0)
