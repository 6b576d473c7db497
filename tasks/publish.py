"""Judge a cycle's products and make them visible, or quarantine them with the reason."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from infra import layout
from infra.catalog import update_catalog
from infra.errors import PublicationError
from infra.events import raise_event
from infra.expectations import run_suite
from infra.object_store import ObjectStore
from infra.pages import CheckRow, CyclePage, MapSeries, Plume, size_in_words
from infra.product_suites import member_suite, member_table, product_suite, product_table
from infra.publication import (
    FileRecord,
    Manifest,
    make_visible,
    quarantine,
    upload_folder,
    verify_sizes,
)
from infra.settings import Settings
from infra.validation_report import Finding
from infra.validation_suites import Check
from model.cycle import Cycle
from tasks.products import ProductSet, newest_product_set

_DATA = {
    "ensemble.zarr": "Zarr v3: mean, spread, quantiles, probabilities (open with xarray.open_zarr)",
    "representative_member.zarr": "Zarr v3: all variables of the most representative member",
    "points.nc": "NetCDF: every member at the named points",
    "netcdf": "NetCDF: the same as ensemble.zarr, one file per lead time",
    "grib2": "GRIB2: one file per lead time",
    "checks/product_statistics.csv": "what the checks judged",
    "checks/member_statistics.csv": "what the members were judged by",
}


def check_products(
    store: ObjectStore, products: ProductSet, *, docs: Path | None = None
) -> tuple[Finding, ...]:
    """Judge an attempt's products by their statistics.

    Args:
        store: where they lie.
        products: the attempt.
        docs: folder that receives the Data Docs; None builds none.

    Returns:
        What failed, blocking findings first.
    """
    statistics = _table(store, products, "product_statistics.csv")
    table = product_table(statistics)
    names = statistics["product"].unique().tolist()
    suite = product_suite(names, members=len(products.members))
    findings = list(_judge(table, suite, "products", docs))
    if len(products.members) > 1:
        members = member_table(_table(store, products, "member_statistics.csv"))
        findings += _judge(members, member_suite(), "members", docs)
    return tuple(sorted(findings, key=lambda finding: finding.severity != "block"))


def publish_cycle(cycle: Cycle, settings: Settings, run: str, *, replace: bool = False) -> str:
    """Publish a run's newest products: judged, verified, then visible all at once.

    Args:
        cycle: the cycle.
        settings: store and model.
        run: short name of the run whose products were made.
        replace: take the place of what is published of this cycle.

    Returns:
        Key of the cycle's manifest.

    Raises:
        PublicationError: the products failed a blocking check (they are quarantined and an event is raised),
            or are not what was written.
        StoreError: there are no products of that run.
    """
    store = settings.store.open()
    products = newest_product_set(store, cycle, run)
    with tempfile.TemporaryDirectory(prefix="publish-") as scratch:
        folder = Path(scratch)
        findings = check_products(store, products, docs=folder / "checks" / "docs")
        blocking = [finding for finding in findings if finding.severity == "block"]
        (folder / "checks").mkdir(exist_ok=True)
        (folder / "checks" / "findings.json").write_text(
            json.dumps([asdict(finding) for finding in findings], indent=1, ensure_ascii=False)
        )
        page = _page(products, findings, has_docs=(folder / "checks" / "docs" / "index.html").is_file())
        (folder / "index.html").write_text(page.to_html(), encoding="utf-8")
        files = products.files | upload_folder(store, folder, products.prefix)
    if blocking:
        reasons = [str(finding) for finding in blocking]
        quarantine(store, cycle, run=run, attempt=products.attempt, reasons=reasons)
        raise_event("quarantined", cycle, run=run, reasons=reasons[:5])
        raise PublicationError(
            f"{cycle}: products of run {run} are quarantined, {len(blocking)} blocking findings, "
            f"first: {reasons[0]}"
        )
    verify_sizes(store, products.prefix, files)
    manifest = make_visible(store, _manifest(products, files, findings), replace=replace)
    update_catalog(store)
    raise_event("published", cycle, run=manifest.run, members=len(manifest.members))
    return layout.cycle_manifest(cycle)


def _manifest(products: ProductSet, files: dict[str, FileRecord], findings: Sequence[Finding]) -> Manifest:
    return Manifest(
        cycle=products.cycle,
        run=products.run,
        attempt=products.attempt,
        members=products.members,
        steps=products.steps,
        step_hours=products.step_hours,
        published_at=datetime.now(UTC),
        files=files,
        details={
            "representative_member": products.representative_member,
            "warnings": [str(finding) for finding in findings],
        },
    )


def _judge(table: pd.DataFrame, suite: list[Check], name: str, docs: Path | None) -> tuple[Finding, ...]:
    return run_suite(table, suite, name=name, docs_folder=docs)


def _table(store: ObjectStore, products: ProductSet, name: str) -> pd.DataFrame:
    return pd.read_csv(io.BytesIO(store.read(f"{products.prefix}checks/{name}")))


def _page(products: ProductSet, findings: Sequence[Finding], *, has_docs: bool) -> CyclePage:
    suites = [*product_suite(["2m_temperature_mean"], members=len(products.members))]
    if len(products.members) > 1:
        suites += member_suite()
    rows = []
    names = [check.name for check in suites] + [finding.check for finding in findings]
    for name in dict.fromkeys(names):
        own = [finding for finding in findings if finding.check == name]
        blocked = any(finding.severity == "block" for finding in own)
        state = "blocked" if blocked else "warning" if own else "passed"
        more = f" and {len(own) - 1} more" if len(own) > 1 else ""
        rows.append(CheckRow(name=name, state=state, detail=f"{own[0]}{more}" if own else ""))
    depth = products.prefix.count("/")
    return CyclePage(
        model=products.cycle.model,
        init_time=products.cycle.init_time,
        members=len(products.members),
        steps=products.steps,
        step_hours=products.step_hours,
        representative_member=products.representative_member,
        maps=[
            MapSeries(title=m["title"], images={int(lead): path for lead, path in m["images"].items()})
            for m in products.page["maps"]
        ],
        plumes=[Plume(**plume) for plume in products.page["plumes"]],
        checks=rows,
        files=_data(products),
        documents=[("checks/docs/index.html", "Full report of the checks")] if has_docs else [],
        index="../" * depth + layout.catalog("index.html"),
    )


def _data(products: ProductSet) -> list[tuple[str, str, str]]:
    rows = []
    for name, title in _DATA.items():
        size = sum(
            record.size
            for path, record in products.files.items()
            if path == name or path.startswith(f"{name}/")
        )
        if size:
            rows.append((name, size_in_words(size), title))
    return rows
