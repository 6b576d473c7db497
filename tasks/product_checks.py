"""What a cycle's products are judged by, and the page that shows them and the verdict."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from infra import layout
from infra.expectations import run_suite
from infra.pages import CheckRow, CyclePage, MapSeries, Plume
from infra.product_suites import (
    DRY_AIR_FROM,
    member_suite,
    member_table,
    product_suite,
    product_table,
)
from infra.resources import size_text
from infra.validation_report import Finding
from infra.validation_suites import Check
from model.cycle import Cycle
from model.diagnostics.dry_mass import vapour_pressure_of_columns

_DATA = {
    "ensemble.zarr": "Zarr v3: mean, spread, quantiles, probabilities (open with xarray.open_zarr)",
    "representative_member.zarr": "Zarr v3: all variables of the most representative member",
    "points.nc": "NetCDF: every member at the named points",
    "netcdf": "NetCDF: the same as ensemble.zarr, one file per lead time",
    "grib2": "GRIB2: one file per lead time",
    "checks/product_statistics.csv": "what the checks judged",
    "checks/member_statistics.csv": "what the members were judged by",
}


def judge_products(folder: Path, *, members: int) -> tuple[Finding, ...]:
    """Judge products by their statistics; the findings and Data Docs are written beside them.

    Args:
        folder: the products, with ``checks/product_statistics.csv`` and ``checks/member_statistics.csv``.
        members: size of the ensemble.

    Returns:
        What failed, blocking findings first.
    """
    checks = folder / "checks"
    statistics = with_dry_air(pd.read_csv(checks / "product_statistics.csv"))
    suite = product_suite(statistics["product"].unique().tolist(), members=members)
    findings = list(_judge(product_table(statistics), suite, "products", checks / "docs"))
    if members > 1:
        table = member_table(pd.read_csv(checks / "member_statistics.csv"))
        findings += _judge(table, member_suite(), "members", checks / "docs")
    findings.sort(key=lambda finding: finding.severity != "block")
    (checks / "findings.json").write_text(
        json.dumps([asdict(finding) for finding in findings], indent=1, ensure_ascii=False)
    )
    return tuple(findings)


def with_dry_air(statistics: pd.DataFrame) -> pd.DataFrame:
    """The statistics and, at each lead time where humidity is on enough levels, the pressure of the dry air.

    Global means of the ensemble's mean are enough: the weight of the vapour is linear in humidity.
    """
    humidity = statistics[statistics["product"] == "specific_humidity_mean"]
    dry_air = np.full(len(statistics), np.nan)
    for place in np.flatnonzero(statistics["product"] == DRY_AIR_FROM):
        row = statistics.iloc[place]
        column = humidity[humidity["lead_hours"] == row["lead_hours"]]
        vapour = vapour_pressure_of_columns(column["level"].tolist(), column["mean"].to_numpy(), row["mean"])
        if vapour is not None:
            dry_air[place] = row["mean"] - vapour
    return statistics.assign(dry_air=dry_air)


def write_page(
    folder: Path,
    *,
    cycle: Cycle,
    prefix: str,
    members: int,
    steps: int,
    step_hours: int,
    representative_member: int | None,
    pictures: dict[str, Any],
    findings: Sequence[Finding],
    simulated: bool = False,
) -> None:
    """Write the page of a cycle whose products lie in a folder.

    Args:
        folder: the products.
        cycle, members, steps, step_hours, representative_member: what the page says of them.
        prefix: of the keys they will have.
        pictures: ``maps`` and ``plumes`` as ``tasks.product_maps`` describes them.
        findings: the verdict.
        simulated: whether the weather is a nature run's.
    """
    has_docs = (folder / "checks" / "docs" / "index.html").is_file()
    page = CyclePage(
        model=cycle.model,
        init_time=cycle.init_time,
        members=members,
        steps=steps,
        step_hours=step_hours,
        representative_member=representative_member,
        maps=[
            MapSeries(title=m["title"], images={int(lead): path for lead, path in m["images"].items()})
            for m in pictures["maps"]
        ],
        plumes=[Plume(**plume) for plume in pictures["plumes"]],
        checks=_rows(findings, members),
        files=_data(folder),
        documents=[("checks/docs/index.html", "Full report of the checks")] if has_docs else [],
        index="../" * prefix.count("/") + layout.catalog("index.html"),
        simulated=simulated,
    )
    (folder / "index.html").write_text(page.to_html(), encoding="utf-8")


def _rows(findings: Sequence[Finding], members: int) -> list[CheckRow]:
    suites = [*product_suite(["2m_temperature_mean"], members=members)]
    if members > 1:
        suites += member_suite()
    rows = []
    names = [check.name for check in suites] + [finding.check for finding in findings]
    for name in dict.fromkeys(names):
        own = [finding for finding in findings if finding.check == name]
        blocked = any(finding.severity == "block" for finding in own)
        state = "blocked" if blocked else "warning" if own else "passed"
        more = f" and {len(own) - 1} more" if len(own) > 1 else ""
        rows.append(CheckRow(name=name, state=state, detail=f"{own[0]}{more}" if own else ""))
    return rows


def _judge(table: pd.DataFrame, suite: list[Check], name: str, docs: Path | None) -> tuple[Finding, ...]:
    return run_suite(table, suite, name=name, docs_folder=docs)


def _data(folder: Path) -> list[tuple[str, str, str]]:
    rows = []
    for name, title in _DATA.items():
        parts = [folder / name, *(folder / name).rglob("*")]
        size = sum(part.stat().st_size for part in parts if part.is_file())
        if size:
            rows.append((name, size_text(size), title))
    return rows
