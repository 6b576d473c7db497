"""The verdict on an initial condition: findings, a variable × time table, and how they are written down."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import pandas as pd


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One check that one field did not pass.

    Args:
        check: name of the check, e.g. ``"physical range"``.
        severity: ``"block"`` or ``"warn"``.
        expected, observed: in words.
        reason: what it means.
        variable, level, time: the field; level 0 and time ``"static"`` stand for none.
        column: the statistic that was judged.
    """

    check: str
    severity: Literal["block", "warn"]
    expected: str
    observed: str
    reason: str
    variable: str = ""
    level: int = 0
    time: str = ""
    column: str = ""

    def __str__(self) -> str:
        place = " ".join(
            part for part in (self.variable, f"{self.level} hPa" if self.level else "", self.time) if part
        )
        statistic = f" {self.column.replace('_', ' ')}" if self.column else ""
        return (
            f"{self.check}: {place or 'all fields'}:{statistic} expected {self.expected}, "
            f"got {self.observed} ({self.reason})"
        )


@dataclass(frozen=True, kw_only=True)
class ValidationReport:
    """The verdict on one initial condition; small enough to pass between tasks.

    Args:
        cycle: which, as text (``model/20260101T00Z``).
        uri: key of the initial condition judged.
        suite: name of the suite.
        findings: everything that failed, blocking first.
        matrix: variable × time: number of blocked and of warned levels, and of levels in all.
        docs_uri: key of the Data Docs' index page; empty if none were built.
        statistics_uri: key of the table of field statistics (CSV).
        basis: checksum of everything the verdict depends on; a rerun with the same one need not judge again.
    """

    cycle: str
    uri: str
    suite: str
    findings: tuple[Finding, ...]
    matrix: tuple[MatrixEntry, ...]
    docs_uri: str = ""
    statistics_uri: str = ""
    basis: str = ""

    @property
    def blocking(self) -> tuple[Finding, ...]:
        """Findings for which the cycle must not run."""
        return tuple(finding for finding in self.findings if finding.severity == "block")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """Findings somebody should look at."""
        return tuple(finding for finding in self.findings if finding.severity == "warn")

    @property
    def passed(self) -> bool:
        """Whether a model may run on it."""
        return not self.blocking

    def reason(self, *, limit: int = 5) -> str:
        """Why it is blocked, one line per check with how many fields fail it; at most ``limit`` lines."""
        groups: dict[str, list[Finding]] = {}
        for finding in self.blocking:
            groups.setdefault(finding.check, []).append(finding)
        lines = [
            f"{found[0]}" + (f" and {len(found) - 1} more" if len(found) > 1 else "")
            for found in groups.values()
        ]
        hidden = len(lines) - limit
        return "\n".join(lines[:limit] + ([f"… and {hidden} other checks"] if hidden > 0 else []))

    def to_json(self) -> str:
        """The report as JSON text."""
        body: dict[str, Any] = asdict(self)
        return json.dumps({"passed": self.passed, **body}, indent=1, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> ValidationReport:
        """The report that ``to_json`` wrote.

        Raises:
            ValueError, TypeError, KeyError: this is no such report, or one of another version.
        """
        body: dict[str, Any] = json.loads(text)
        body.pop("passed")
        findings = tuple(Finding(**finding) for finding in body.pop("findings"))
        matrix = tuple(MatrixEntry(**entry) for entry in body.pop("matrix"))
        return cls(findings=findings, matrix=matrix, **body)


@dataclass(frozen=True, kw_only=True)
class MatrixEntry:
    """How one variable fared at one time: levels blocked, warned of, and in all."""

    variable: str
    time: str
    blocked: int
    warned: int
    levels: int

    @property
    def mark(self) -> str:
        """✅ or ❌, with the number of levels concerned."""
        if self.blocked:
            return f"❌ {self.blocked}/{self.levels}" if self.levels > 1 else "❌"
        return f"✅ ({self.warned} warned)" if self.warned else "✅"


def matrix_of(table: pd.DataFrame, findings: Sequence[Finding]) -> tuple[MatrixEntry, ...]:
    """The variable × time matrix of a table of field statistics and what was found in it."""
    blocked: dict[tuple[str, str], set[int]] = {}
    warned: dict[tuple[str, str], set[int]] = {}
    for finding in findings:
        place = blocked if finding.severity == "block" else warned
        place.setdefault((finding.variable, finding.time), set()).add(finding.level)
    return tuple(
        MatrixEntry(
            variable=str(variable), time=str(time), levels=len(rows),
            blocked=len(blocked.get((str(variable), str(time)), ())),
            warned=len(warned.get((str(variable), str(time)), ())),
        )
        for (variable, time), rows in table.groupby(["variable", "time"], sort=False)
    )  # fmt: skip


def matrix_rows(report: ValidationReport) -> list[dict[str, str]]:
    """The matrix as rows of a table: one per variable, a column per time."""
    times = sorted({entry.time for entry in report.matrix})
    rows: dict[str, dict[str, str]] = {}
    for entry in report.matrix:
        row = rows.setdefault(entry.variable, {"variable": entry.variable, **dict.fromkeys(times, "")})
        row[entry.time] = entry.mark
    return list(rows.values())


def matrix_text(report: ValidationReport) -> str:
    """The matrix as plain text, with the verdict and the reasons below it."""
    rows = matrix_rows(report)
    header = list(rows[0]) if rows else ["variable"]
    widths = {name: max([len(name), *(len(row[name]) for row in rows)]) for name in header}
    lines = ["  ".join(name.ljust(widths[name]) for name in header).rstrip()]
    lines += ["  ".join(row[name].ljust(widths[name]) for name in header).rstrip() for row in rows]
    verdict = "may run" if report.passed else "must not run"
    lines.append(
        f"{report.cycle} {verdict}: {len(report.blocking)} blocking, {len(report.warnings)} warnings"
        f" ({report.suite})"
    )
    if not report.passed:
        lines.append(report.reason())
    return "\n".join(lines)
