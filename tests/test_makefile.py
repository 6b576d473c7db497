"""`make install` makes one environment of the Python that was asked for, and nothing afterwards installs again."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")

PYTHON = """#!/bin/sh
case "$*" in
*version_info*) echo {minor} ;;
"-m venv "*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; ln -sf /bin/true "$3/bin/foldcast" ;;
esac
"""
"""Stands for an interpreter: it tells its version and makes environments of itself."""


@pytest.fixture
def checkout(tmp_path: Path, repository: Path) -> Path:
    """A folder with the Makefile and two interpreters."""
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(repository / name, tmp_path)
    shutil.copytree(repository / "constraints", tmp_path / "constraints")
    for minor in ("3.11", "3.12"):
        interpreter = tmp_path / f"python{minor}"
        interpreter.write_text(PYTHON.format(minor=minor))
        interpreter.chmod(0o755)
    return tmp_path


def make(checkout: Path, *arguments: str) -> str:
    # The suite itself is run by make, whose flags and variables must not reach this one.
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))
    }
    done = subprocess.run(
        ["make", *arguments], cwd=checkout, capture_output=True, text=True, check=True, env=environment
    )
    return done.stdout


def test_one_install_brings_what_demo_and_tests_need(checkout: Path) -> None:
    said = make(checkout, "PYTHON=./python3.11", "install")
    assert re.findall(r"pip install .*", said) == [
        "pip install --quiet --disable-pip-version-check -c constraints/python-3.11.txt -e '.[test]'"
    ]
    assert "pip" not in make(checkout, "demo")
    assert re.findall(r"pip|pytest", make(checkout, "test")) == ["pytest"]


def test_an_environment_keeps_its_python_unless_another_is_asked_for(checkout: Path) -> None:
    make(checkout, "PYTHON=./python3.12", "install")
    later = time.time() + 10  # the clock of files is coarse
    os.utime(checkout / "pyproject.toml", (later, later))
    assert "-c constraints/python-3.12.txt" in make(checkout, "install")
    assert ".venv is of another Python than 3.11" in make(checkout, "PYTHON=./python3.11", "install")
    assert "3.11" in (checkout / ".venv/bin/python").read_text()
    later = time.time() + 10  # the clock of files is coarse
    os.utime(checkout / "pyproject.toml", (later, later))
    assert "-c constraints/python-3.11.txt" in make(checkout, "install")
