"""What an initial condition must satisfy before a model runs on it.

A *check* is one rule on one column of the table of field statistics, for some of its rows; a *suite* is the
list of checks of a model family and a source kind. A check either blocks (the cycle does not run) or warns.
``infra.expectations`` evaluates a suite.
"""

from __future__ import annotations

from collections.abc import Iterable
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
    checks += _sun_and_mountains("warn" if source_kind == "nature-run" else "block")
    if source_kind != "nature-run":
        checks.append(_DAILY_CYCLE)
    return tuple(checks)


def _completeness() -> Iterable[Check]:
    yield Check(
        name="completeness",
        severity="block",
        column="present",
        equals=True,
        reason="a variable, level or time is missing",
    )
    yield Check(
        name="grid",
        severity="block",
        column="grid_mismatch",
        empty=True,
        reason="the fields do not lie on the model's grid",
    )
    yield Check(
        name="time",
        severity="block",
        column="time_mismatch",
        empty=True,
        reason="the frames are not at the times the model starts from",
    )
    yield Check(
        name="units",
        severity="block",
        column="units",
        equals="expected_units",
        reason="the units attribute is not the canonical one",
    )
    yield Check(
        name="data kind",
        severity="block",
        column="source_kind",
        equals="trained_on",
        reason="the weights were trained on another kind of analysis",
    )


def _values() -> Iterable[Check]:
    yield Check(
        name="missing values",
        severity="block",
        column="missing_share",
        maximum=0.0,
        except_variables=("sea_surface_temperature",),
        reason="the field has NaN",
    )
    yield Check(
        name="infinite values",
        severity="block",
        column="infinite_share",
        maximum=0.0,
        reason="the field has infinities",
    )
    yield Check(
        name="fill values",
        severity="block",
        column="fill_share",
        maximum=2e-4,
        reason="the field has placeholders for missing values",
    )
    yield Check(
        name="zeros",
        severity="block",
        column="zero_share",
        maximum=0.3,
        variables=(*_WINDS, *_SURFACE_WINDS, "vertical_velocity"),
        reason="part of the field is blank",
    )
    yield Check(
        name="physical range",
        severity="block",
        column="minimum",
        not_below="lower_limit",
        reason="below anything found on Earth: wrong units or damage",
    )
    yield Check(
        name="physical range",
        severity="block",
        column="maximum",
        not_above="upper_limit",
        reason="above anything found on Earth: wrong units or damage",
    )


def _climate() -> Iterable[Check]:
    """Global mean and spread against the checkpoint's own statistics."""
    upper_air_moisture = "specific_humidity"
    for severity, score, low, high in (("block", 2.0, 0.2, 4.0), ("warn", 0.75, 0.45, 1.75)):
        for variables, excluded, levels in (
            ((), (upper_air_moisture, *_PRECIPITATION), None),
            ((upper_air_moisture,), (), (_TROPOSPHERE, 2000)),
        ):
            where: dict[str, Any] = {
                "variables": variables, "except_variables": excluded, "levels": levels, "severity": severity
            }  # fmt: skip
            yield Check(
                name="global mean",
                column="mean_score",
                minimum=-score,
                maximum=score,
                reason="far from the mean of the data the weights know",
                **where,
            )
            yield Check(
                name="global spread",
                column="deviation_ratio",
                minimum=low,
                maximum=high,
                reason="unlike the spread of the data the weights know",
                **where,
            )
    yield Check(
        name="global mean",
        severity="block",
        column="mean_score",
        minimum=-2.0,
        maximum=2.0,
        variables=_PRECIPITATION,
        reason="far from the mean of the data the weights know",
    )
    yield Check(
        name="global mean",
        severity="warn",
        column="mean_score",
        minimum=-8.0,
        maximum=8.0,
        variables=(upper_air_moisture,),
        levels=(1, _TROPOSPHERE - 1),
        reason="far from the mean of the data the weights know",
    )


def _changes() -> Iterable[Check]:
    yield Check(
        name="repeated field",
        severity="block",
        column="repeats",
        empty=True,
        except_variables=(*_SLOW, *_PRECIPITATION),
        reason="the field is the same, bit for bit, as at an earlier time: stale data",
    )
    bands: tuple[tuple[Severity, float, float], ...] = (("block", 0.05, 5.0), ("warn", 0.3, 2.5))
    for severity, low, high in bands:
        for variables, excluded, levels in (
            ((), (*_SLOW, *_PRECIPITATION, "specific_humidity"), None),
            (("specific_humidity",), (), (_TROPOSPHERE, 2000)),
        ):
            yield Check(
                name="step-to-step change",
                severity=severity,
                column="change_ratio",
                minimum=low,
                maximum=high,
                variables=variables,
                except_variables=excluded,
                levels=levels,
                reason="the change since the frame before is not that of one model step",
            )
    yield Check(
        name="missing values",
        severity="block",
        column="missing_changed_share",
        maximum=0.0,
        reason="missing points came or went between the frames",
    )


def _relations() -> Iterable[Check]:
    """Between fields."""
    yield Check(
        name="hydrostatic balance",
        severity="block",
        column="hydrostatic_deviation",
        not_above="hydrostatic_deviation_limit",
        reason="thickness and temperature disagree",
    )
    yield Check(
        name="hydrostatic balance",
        severity="block",
        column="hydrostatic_bias",
        not_above="hydrostatic_bias_upper_limit",
        reason="too thick for the temperature: units",
    )
    yield Check(
        name="hydrostatic balance",
        severity="block",
        column="hydrostatic_bias",
        not_below="hydrostatic_bias_lower_limit",
        reason="too thin for the temperature: units",
    )
    yield Check(
        name="hydrostatic balance",
        severity="block",
        column="thickness_correlation",
        minimum=0.5,
        levels=(100, 2000),
        reason="temperature and geopotential are not of the same weather",
    )
    yield Check(
        name="pressure levels",
        severity="block",
        column="descending_share",
        maximum=0.0,
        reason="geopotential does not increase upwards",
    )
    yield Check(
        name="geostrophic balance",
        severity="block",
        column="geostrophic_correlation",
        minimum=0.4,
        reason="the wind does not belong to the pressure field: swapped components, a wrong sign, "
        "reversed latitude or shifted longitude",
    )
    yield Check(
        name="surface wind",
        severity="block",
        column="surface_wind_correlation",
        minimum=0.4,
        reason="the 10 m wind does not belong to the wind above it",
    )
    yield Check(
        name="zonal mean wind",
        severity="warn",
        column="zonal_mean_strength",
        maximum=5.0,
        variables=("v_component_of_wind",),
        levels=(100, 2000),
        reason="a mean northward wind round the globe: swapped components?",
    )
    yield Check(
        name="seam",
        severity="warn",
        column="meridian_seam",
        maximum=6.0,
        reason="a jump across a meridian: wrongly joined halves?",
    )
    yield Check(
        name="geography",
        severity="block",
        column="landmark_agreement",
        minimum=0.9,
        reason="continents and oceans are not where they belong: shifted or reversed coordinates",
    )


def _sea_surface() -> Iterable[Check]:
    # Coarse coasts and lakes differ by a few per cent; half a turn or a reversal by more than twenty.
    yield Check(
        name="sea mask",
        severity="block",
        column="mask_mismatch_share",
        maximum=0.08,
        reason="sea surface temperature is not missing over land and only there",
    )
    yield Check(
        name="sea mask",
        severity="warn",
        column="mask_mismatch_share",
        maximum=0.04,
        reason="sea surface temperature is not missing over land and only there",
    )


def _sun_and_mountains(severity: Severity) -> Iterable[Check]:
    yield Check(
        name="geography",
        severity=severity,
        column="elevation_correlation",
        maximum=-0.2,
        reason="mountains are not colder than the lowlands around: shifted or reversed fields",
    )


_DAILY_CYCLE = Check(
    name="daily cycle", severity="warn", column="diurnal_phase_error", minimum=-4.0, maximum=4.0,
    reason="the land does not warm with the sun: another hour's fields, or shifted ones",
)  # fmt: skip
