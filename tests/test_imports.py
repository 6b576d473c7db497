"""The import rule: flows → tasks → {model, infra}; infra → model's value types; model → nothing of ours."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("flows", "tasks", "model", "infra")
VALUE_TYPES = {
    "model.cycle",
    "model.errors",
    "model.grid",
    "model.stations",
    "model.task",
    "model.times",
    "model.variables",
    "model.rollout.state",
    "model.normalization.Statistics",
    "model.graphs.model_graphs.EdgeSet",
    "model.graphs.model_graphs.GridMeshGraphs",
    "model.graphs.model_graphs.ModelGraphs",
}
"""Modules and names that carry values and compute nothing of weight: the two other floors may use these."""
ALLOWED = {
    "flows": {"flows", "tasks", "infra"},
    "tasks": {"tasks", "model", "infra"},
    "infra": {"infra"},
    "model": {"model"},
}
FORBIDDEN_IN_MODEL = {"prefect", "fsspec", "s3fs", "requests", "httpx", "os", "time", "logging", "socket"}

ALLOWED_IN_MODEL = {"time.perf_counter"}
"""A stopwatch tells no time of day."""


def modules() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def imports(path: Path) -> list[tuple[int, str]]:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: expected an absolute import"
            base = node.module or ""
            found += [(node.lineno, f"{base}.{alias.name}") for alias in node.names]
    return found


def violations(package: str, found: list[tuple[int, str]]) -> list[str]:
    wrong = []
    for line, name in found:
        top = name.split(".")[0]
        if top in PACKAGES:
            value_type = package in ("infra", "flows") and any(
                name == v or name.startswith(v + ".") for v in VALUE_TYPES
            )
            if top not in ALLOWED[package] and not value_type:
                wrong.append(f"line {line}: {package} may not import {name}")
        elif package == "model" and top in FORBIDDEN_IN_MODEL and name not in ALLOWED_IN_MODEL:
            wrong.append(f"line {line}: model may not import {name}")
    return wrong


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_a_module_imports_only_what_its_floor_may(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    assert violations(package, imports(path)) == []


@pytest.mark.parametrize(
    ("package", "name"),
    [
        ("model", "infra.settings"),
        ("model", "prefect"),
        ("infra", "tasks.ingest"),
        ("infra", "model.forecaster"),
        ("flows", "model.forecaster"),
        ("tasks", "flows.forecast"),
    ],
)
def test_the_rule_catches_what_it_forbids(package: str, name: str) -> None:
    assert violations(package, [(1, name)])


def test_only_settings_reads_the_environment() -> None:
    readers = []
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            reads = isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv")
            if reads and path.relative_to(ROOT).as_posix() != "infra/settings.py":
                readers.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert readers == []
