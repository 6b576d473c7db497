"""The verdict as text, table and JSON."""

from __future__ import annotations

import json

import pandas as pd

from infra.validation_report import Finding, ValidationReport, matrix_of, matrix_rows, matrix_text

TABLE = pd.DataFrame(
    [
        {"variable": name, "level": level, "time": time}
        for name, levels in (("temperature", (500, 850)), ("2m_temperature", (0,)))
        for time in ("2026-01-01T18Z", "2026-01-02T00Z")
        for level in levels
    ]
)
COLD = Finding(
    check="physical range", severity="block", variable="temperature", level=850, time="2026-01-02T00Z",
    column="minimum", expected="at least lower_limit (140)", observed="-48.2", reason="wrong units",
)  # fmt: skip
ODD = Finding(
    check="global mean", severity="warn", variable="2m_temperature", time="2026-01-01T18Z",
    column="mean_score", expected="-0.75 to 0.75", observed="0.9", reason="far off",
)  # fmt: skip


def report(*findings: Finding) -> ValidationReport:
    return ValidationReport(
        cycle="demo/20260102T00Z", uri="ic", suite="graphcast-era5", findings=findings,
        matrix=matrix_of(TABLE, findings),
    )  # fmt: skip


def test_a_warning_does_not_block() -> None:
    assert report().passed
    assert report(ODD).passed
    assert report(ODD).warnings == (ODD,)
    assert not report(ODD, COLD).passed
    assert report(ODD, COLD).blocking == (COLD,)


def test_the_matrix_marks_each_variable_and_time() -> None:
    assert matrix_rows(report(COLD, ODD)) == [
        {"variable": "temperature", "2026-01-01T18Z": "✅", "2026-01-02T00Z": "❌ 1/2"},
        {"variable": "2m_temperature", "2026-01-01T18Z": "✅ (1 warned)", "2026-01-02T00Z": "✅"},
    ]


def test_the_text_holds_the_matrix_the_verdict_and_the_reasons() -> None:
    lines = matrix_text(report(COLD, ODD)).splitlines()
    assert lines[0].split() == ["variable", "2026-01-01T18Z", "2026-01-02T00Z"]
    assert lines[1].split()[0] == "temperature"
    assert lines[-2] == "demo/20260102T00Z must not run: 1 blocking, 1 warnings (graphcast-era5)"
    assert lines[-1] == (
        "physical range: temperature 850 hPa 2026-01-02T00Z: minimum expected at least lower_limit (140), "
        "got -48.2 (wrong units)"
    )
    assert matrix_text(report()).splitlines()[-1].startswith("demo/20260102T00Z may run: 0 blocking")


def test_the_reason_has_a_line_per_check_and_counts_the_rest() -> None:
    other = {"severity": "block", "expected": "a", "observed": "b", "reason": "c"}
    many = [COLD, COLD, *(Finding(check=f"check {n}", **other) for n in range(6))]
    lines = report(*many).reason(limit=3).splitlines()
    assert len(lines) == 4
    assert lines[0].endswith("and 1 more")
    assert lines[-1] == "… and 4 other checks"


def test_json_carries_the_verdict_and_every_finding() -> None:
    body = json.loads(report(COLD).to_json())
    assert body["passed"] is False
    assert body["findings"][0]["variable"] == "temperature"
    assert body["matrix"][0] == {
        "variable": "temperature", "time": "2026-01-01T18Z", "blocked": 0, "warned": 0, "levels": 2
    }  # fmt: skip


def test_a_report_comes_back_from_json() -> None:
    written = report(COLD, ODD)
    assert ValidationReport.from_json(written.to_json()) == written
