"""Evaluates validation suites with Great Expectations: an ephemeral context, no telemetry, Data Docs.

Importing Great Expectations costs seconds, so it happens inside the functions.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from infra.data_docs import make_self_contained
from infra.validation_report import Finding
from infra.validation_suites import Check


def run_suite(
    table: pd.DataFrame, checks: Sequence[Check], *, name: str, docs_folder: Path | None = None
) -> tuple[Finding, ...]:
    """Judge a table of field statistics.

    Args:
        table: as ``field_statistics`` makes it.
        checks: the suite.
        name: of the suite, shown in the Data Docs.
        docs_folder: where to build Data Docs (static HTML that opens without a network); None leaves them out.

    Returns:
        One finding per check and row that fails it, blocking ones first. A check that could not be evaluated
        blocks: nothing passes unjudged.
    """
    gx: Any = importlib.import_module("great_expectations")
    from great_expectations.data_context.types.base import (
        DataContextConfig,
        InMemoryStoreBackendDefaults,
        ProgressBarsConfig,
    )

    context = gx.get_context(
        mode="ephemeral",
        project_config=DataContextConfig(
            store_backend_defaults=InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
            analytics_enabled=False,
        ),
    )
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    actions = _docs_actions(context, docs_folder)
    asset = context.data_sources.add_pandas(name).add_dataframe_asset("statistics")
    suite = context.suites.add(
        gx.ExpectationSuite(
            name=name, expectations=[_expectation(check, number) for number, check in enumerate(checks)]
        )
    )
    definition = context.validation_definitions.add(
        gx.ValidationDefinition(
            name=name, data=asset.add_batch_definition_whole_dataframe("all"), suite=suite
        )
    )
    checkpoint = context.checkpoints.add(
        gx.Checkpoint(
            name=name,
            validation_definitions=[definition],
            actions=actions,
            result_format={
                "result_format": "COMPLETE",
                "unexpected_index_column_names": ["variable", "level", "time"],
            },
        )
    )
    outcome = checkpoint.run(batch_parameters={"dataframe": table})
    if docs_folder is not None:
        make_self_contained(docs_folder)
    findings = []
    for result in next(iter(outcome.run_results.values())).results:
        if not result.success:
            findings += _findings(checks[result.expectation_config.meta["check"]], result)
    return tuple(
        sorted(findings, key=lambda f: (f.severity != "block", f.check, f.variable, f.time, f.level))
    )


def _docs_actions(context: Any, folder: Path | None) -> list[Any]:
    """The actions that build Data Docs into a folder; none without a folder."""
    from great_expectations.checkpoint.actions import UpdateDataDocsAction

    if folder is None:
        return []
    backend = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(folder.resolve())}
    site = {
        "class_name": "SiteBuilder",
        "show_how_to_buttons": False,
        "store_backend": backend,
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
    }
    context.add_data_docs_site("local", site)
    return [UpdateDataDocsAction(name="docs", site_names=["local"])]


def _row_condition(check: Check) -> Any:
    from great_expectations.expectations.row_conditions import Column

    parts: list[Any] = []
    if check.variables:
        parts.append(Column("variable").is_in(list(check.variables)))
    if check.except_variables:
        parts.append(Column("variable").is_not_in(list(check.except_variables)))
    if check.levels is not None:
        parts += [Column("level") >= check.levels[0], Column("level") <= check.levels[1]]
    condition = parts[0] if parts else None
    for part in parts[1:]:
        condition = condition & part
    return condition


def _expectation(check: Check, number: int) -> Any:
    """The check as Great Expectations states it; its number travels in ``meta``."""
    gxe: Any = importlib.import_module("great_expectations.expectations")
    common: dict[str, Any] = {
        "severity": "critical" if check.severity == "block" else "warning",
        "row_condition": _row_condition(check),
        "notes": f"{check.name}: {check.reason}.",
        "meta": {"check": number, **{k: v for k, v in asdict(check).items() if v not in (None, ())}},
    }
    pair = {"ignore_row_if": "either_value_is_missing"}
    if check.empty:
        return gxe.ExpectColumnValuesToBeNull(column=check.column, **common)
    if check.equals is True:
        return gxe.ExpectColumnValuesToBeInSet(column=check.column, value_set=[True], **common)
    if isinstance(check.equals, str):
        return gxe.ExpectColumnPairValuesToBeEqual(
            column_A=check.column, column_B=check.equals, **pair, **common
        )
    if check.not_below is not None:
        return gxe.ExpectColumnPairValuesAToBeGreaterThanB(
            column_A=check.column, column_B=check.not_below, or_equal=True, **pair, **common
        )
    if check.not_above is not None:
        return gxe.ExpectColumnPairValuesAToBeGreaterThanB(
            column_A=check.not_above, column_B=check.column, or_equal=True, **pair, **common
        )
    return gxe.ExpectColumnValuesToBeBetween(
        column=check.column, min_value=check.minimum, max_value=check.maximum, **common
    )


def _findings(check: Check, result: Any) -> list[Finding]:
    raised = result.exception_info or {}
    rows = (result.result or {}).get("unexpected_index_list") or []
    if not rows:
        detail = raised.get("exception_message") or next(
            (value.get("exception_message") for value in raised.values() if isinstance(value, dict)), None
        )
        return [Finding(check=check.name, severity="block", expected=check.expected,
                        observed=f"not evaluated: {detail}", reason=check.reason)]  # fmt: skip
    bound = check.not_below or check.not_above or (check.equals if isinstance(check.equals, str) else None)
    findings = []
    for row in rows:
        expected = check.expected if bound is None else f"{check.expected} ({_shown(row.get(bound))})"
        findings.append(
            Finding(
                check=check.name, severity=check.severity, variable=str(row["variable"]),
                level=int(row["level"]), time=str(row["time"]), column=check.column, expected=expected,
                observed=_shown(row.get(check.column)), reason=check.reason,
            )
        )  # fmt: skip
    return findings


def _shown(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)
