"""Suites: what they hold for which family and kind of analysis."""

from __future__ import annotations

import pytest

from infra.errors import UnknownOptionError
from infra.validation_suites import SOURCE_KINDS, Check, build_suite, suite_name


def names(family: str, kind: str, severity: str | None = None) -> set[str]:
    return {check.name for check in build_suite(family, kind) if severity in (None, check.severity)}


@pytest.mark.parametrize("kind", SOURCE_KINDS)
@pytest.mark.parametrize("family", ["graphcast", "gencast"])
def test_every_suite_judges_everything_that_must_be_caught(family: str, kind: str) -> None:
    assert names(family, kind, "block") >= {
        "completeness", "grid", "time", "data kind", "missing values", "fill values", "physical range",
        "global mean", "hydrostatic balance", "pressure levels", "step-to-step change", "repeated field",
        "geostrophic balance",
    }  # fmt: skip
    assert ("sea mask" in names(family, kind)) == (family == "gencast")


def test_the_nature_run_has_no_daily_cycle_to_judge() -> None:
    assert "daily cycle" in names("graphcast", "hres")
    assert "daily cycle" not in names("graphcast", "nature-run")


def test_an_unknown_kind_is_refused_by_name() -> None:
    with pytest.raises(UnknownOptionError, match=r"expected one of .*'hres'.*got 'icon'"):
        build_suite("graphcast", "icon")


def test_suites_are_named_after_family_and_kind() -> None:
    assert suite_name("gencast", "era5") == "gencast-era5"


def test_a_check_has_exactly_one_rule() -> None:
    with pytest.raises(ValueError, match="exactly one rule, got 0"):
        Check(name="x", severity="warn", column="mean", reason="")
    with pytest.raises(ValueError, match="exactly one rule, got 2"):
        Check(name="x", severity="warn", column="mean", reason="", empty=True, minimum=0.0)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"minimum": 1.0, "maximum": 2.5}, "1 to 2.5"),
        ({"minimum": 1.0}, "at least 1"),
        ({"maximum": 0.0}, "at most 0"),
        ({"not_below": "lower_limit"}, "at least lower_limit"),
        ({"not_above": "upper_limit"}, "at most upper_limit"),
        ({"equals": "trained_on"}, "equal to trained_on"),
        ({"empty": True}, "nothing"),
    ],
)
def test_a_rule_says_what_it_expects(rule: dict, words: str) -> None:
    assert Check(name="x", severity="warn", column="mean", reason="", **rule).expected == words
