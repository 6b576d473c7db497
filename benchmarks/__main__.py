"""Measure named cases, each in a process of its own, and print a table and JSON: ``python -m benchmarks``.

With ``--reference CHECKOUT`` the reference implementation is timed beside ours, in an environment that has its
dependencies.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.cases import CASES

_GIBIBYTE = 2**30


def main() -> None:
    """Parse the command line, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", default=["demo"], help=f"of {', '.join(CASES)}")
    parser.add_argument("--precision", nargs="+", default=["float32"])
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--reference", type=Path)
    parser.add_argument("--json", type=Path, help="where to write the results too")
    arguments = parser.parse_args()
    results = []
    for case in arguments.cases:
        for precision in arguments.precision:
            with tempfile.TemporaryDirectory() as cache:
                options = [case, "--precision", precision, "--steps", str(arguments.steps)]
                results.append(_measure([*options, "--compilation-cache", cache], "cold"))
                if not CASES[case].compile_only:
                    results.append(_measure([*options, "--compilation-cache", cache], "warm"))
            if arguments.reference and not CASES[case].compile_only:
                results.append(_measure([*options, "--reference", str(arguments.reference)], "cold"))
    _print_table(results)
    text = json.dumps(results, indent=1)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")


def _measure(options: list[str], cache: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.measure", *options], check=True, stdout=subprocess.PIPE, text=True
    )
    return {**json.loads(done.stdout.splitlines()[-1]), "compilation_cache": cache}


def _print_table(results: list[dict[str, Any]]) -> None:
    table = Table()
    for heading in (
        "case",
        "precision",
        "who",
        "cache",
        "compile s",
        "step s",
        "cores·s",
        "host GiB",
        "program GiB",
    ):
        table.add_column(heading)
    for result in results:
        program = sum(result.get(part, 0) for part in ("arguments", "outputs", "temporaries"))
        table.add_row(
            result["case"],
            result["precision"],
            result["implementation"],
            result["compilation_cache"],
            f"{result['compile_seconds']:.1f}",
            f"{median(result['step_seconds']):.2f}" if "step_seconds" in result else "–",
            f"{median(result['processor_seconds']):.2f}" if "processor_seconds" in result else "–",
            f"{result['peak_host_bytes'] / _GIBIBYTE:.2f}",
            f"{program / _GIBIBYTE:.2f}" if program else "–",
        )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
