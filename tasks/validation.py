"""Judge a cycle's initial condition before anything runs on it."""

from __future__ import annotations

import hashlib
import io
import json
import re
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
from prefect import task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext

from infra import layout
from infra.analyses import analysis_sha256
from infra.checkpoint_files import read_statistics
from infra.dataset_checksum import dataset_sha256
from infra.errors import ValidationFailedError
from infra.events import raise_event
from infra.expectations import run_suite
from infra.initial_conditions import (
    initial_condition_attributes,
    load_initial_condition,
    quarantine_initial_condition,
)
from infra.object_store import ObjectStore
from infra.settings import Settings
from infra.validation_report import ValidationReport, matrix_of, matrix_rows, matrix_text
from infra.validation_suites import build_suite, suite_name
from infra.version import code_version
from model.cycle import Cycle
from model.diagnostics.field_statistics import ExpectedState, field_statistics
from tasks.ingest import is_transient
from tasks.initial_conditions import other_analyses
from tasks.model_identity import ModelIdentity, model_identity
from tasks.models import cache_folder

_STATISTICS = "field-statistics.csv"
_REPORT = "report.json"
_DOCS = "data-docs/"
_LOOK_BACK_STEPS = 4
"""Earlier cycles, one model step apart, whose fields must not come again."""


def validate_initial_condition(cycle: Cycle, settings: Settings) -> ValidationReport:
    """Judge, store the report with its Data Docs, show the variable × time table.

    The analyses that perturb the members are judged like the one of the control, whose report is returned. The
    same initial condition is not judged twice by the same rules: a rerun shows what was found.

    Args:
        cycle: its initial condition, and those that perturb it, must be in the store.
        settings: name the model, its statistics and the store.

    Returns:
        The report of an initial condition that passed.

    Raises:
        ValidationFailedError: a blocking check failed; the initial condition is in quarantine with the
            reason, and an event was raised.
        StoreError: there is no whole initial condition.
    """
    report = _validate(cycle, settings)
    for other, source in other_analyses(cycle, settings):
        _validate(other, settings, source)
    return report


def _validate(cycle: Cycle, settings: Settings, source: str = "") -> ValidationReport:
    """Judge one initial condition; ``source`` names one of a set of analyses beside the control's."""
    model = settings.configured_model(cycle.model)
    store = settings.store.open()
    identity = model_identity(model, cache=cache_folder(settings))
    kind = str(json.loads(initial_condition_attributes(store, cycle, source)["provenance"])["kind"])
    expected = ExpectedState(
        task=identity.task,
        grid=identity.grid,
        init_time=cycle.init_time,
        statistics=read_statistics(model.statistics, cache=cache_folder(settings)),
        earlier_digests=_earlier_digests(store, cycle, identity, source),
        source_kind=kind,
        trained_on=model.trained_on,
    )
    basis = _basis(store, layout.initial_condition(cycle, source), expected, family=identity.family)
    report = _stored_report(store, _key(cycle, source, _REPORT), basis)
    if report is None:
        table = field_statistics(load_initial_condition(store, cycle, source), expected)
        report = judge(store, cycle, table, family=identity.family, kind=kind, source=source, basis=basis)
    show(report)
    if not report.passed:
        reason = report.reason()
        where = quarantine_initial_condition(
            store, cycle, reason=reason, report=report.to_json(), source=source
        )
        raise_event("invalid", cycle, reason=reason, quarantine=where, report=report.docs_uri)
        raise ValidationFailedError(
            f"{report.cycle}: initial condition rejected by {len(report.blocking)} findings, in quarantine at "
            f"{store.url(where)}:\n{reason}"
        )
    return report


def judge(
    store: ObjectStore,
    cycle: Cycle,
    table: pd.DataFrame,
    *,
    family: str,
    kind: str,
    source: str = "",
    basis: str = "",
) -> ValidationReport:
    """Run the suite on a table of field statistics; table, report and Data Docs go to the store."""
    name = suite_name(family, kind)
    with TemporaryDirectory(prefix="foldcast-data-docs-") as temporary:
        folder = Path(temporary)
        findings = run_suite(table, build_suite(family, kind), name=name, docs_folder=folder)
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                inner = path.relative_to(folder).as_posix()
                store.write(_key(cycle, source, f"{_DOCS}{inner}"), path.read_bytes())
    statistics = _key(cycle, source, _STATISTICS)
    store.write(statistics, table.to_csv(index=False).encode())
    report = ValidationReport(
        cycle=f"{cycle} from {source}" if source else str(cycle),
        uri=layout.initial_condition(cycle, source),
        suite=name,
        findings=findings,
        matrix=matrix_of(table, findings),
        docs_uri=_key(cycle, source, f"{_DOCS}index.html"),
        statistics_uri=statistics,
        basis=basis,
    )
    store.write(_key(cycle, source, _REPORT), report.to_json().encode())
    store.write(_key(cycle, source, "table.txt"), matrix_text(report).encode())
    return report


def _key(cycle: Cycle, source: str, name: str) -> str:
    return layout.validation(cycle, f"{source}/{name}" if source else name)


def _basis(store: ObjectStore, key: str, expected: ExpectedState, *, family: str) -> str:
    """Checksum over the fields, what they should be, the rules and the code."""
    given = expected.statistics
    statistics = (
        [dataset_sha256(each) for each in (given.mean, given.stddev, given.diffs_stddev)] if given else []
    )
    parts = [
        analysis_sha256(store, key),
        expected.task, expected.grid.resolution, expected.init_time, expected.source_kind,
        expected.trained_on, sorted(expected.earlier_digests.items()), statistics,
        build_suite(family, expected.source_kind), code_version(),
    ]  # fmt: skip
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _stored_report(store: ObjectStore, key: str, basis: str) -> ValidationReport | None:
    """The report of an earlier run that judged the same thing by the same rules and passed it."""
    if not store.exists(key):
        return None
    try:
        report = ValidationReport.from_json(store.read(key).decode())
    except (ValueError, TypeError, KeyError):
        return None
    return report if report.basis == basis and report.passed else None


def show(report: ValidationReport) -> None:
    """Print the variable × time table; in a flow run also attach it, with the findings, to the run."""
    print(matrix_text(report))
    if FlowRunContext.get() is None:
        return
    key = "inputs-" + re.sub(r"[^a-z0-9]+", "-", report.cycle.lower())
    create_table_artifact(key=key, table=matrix_rows(report), description=f"Inputs of {report.cycle}")
    lines = [f"- **{finding.severity}** {finding}" for finding in report.findings[:100]]
    create_markdown_artifact(
        key=f"{key}-findings",
        markdown="\n".join([f"# Inputs of {report.cycle}", *(lines or ["All checks passed."])]),
    )


def _earlier_digests(
    store: ObjectStore, cycle: Cycle, identity: ModelIdentity, source: str
) -> dict[str, str]:
    """Checksums of the fields of earlier cycles of the model, at other times than this cycle's."""
    step = identity.task.step
    own = {f"{time:%Y-%m-%dT%HZ}" for time in (cycle.init_time - step, cycle.init_time)}
    lags = {step * number for number in range(1, _LOOK_BACK_STEPS + 1)} | {timedelta(days=1)}
    digests: dict[str, str] = {}
    for lag in sorted(lags):
        earlier = Cycle(model=cycle.model, init_time=cycle.init_time - lag)
        key = _key(earlier, source, _STATISTICS)
        if not store.exists(key):
            continue
        table = pd.read_csv(io.BytesIO(store.read(key)), usecols=["time", "digest"], dtype=str).dropna()
        for time, digest in zip(table["time"], table["digest"]):
            if time not in own and time != "static":
                digests.setdefault(str(digest), str(time))
    return digests


validate_initial_condition_task = task(
    name="validate initial condition",
    retries=2,
    retry_delay_seconds=30,
    retry_condition_fn=is_transient,
    timeout_seconds=1800,
    persist_result=False,
    cache_policy=NO_CACHE,
)(validate_initial_condition)
