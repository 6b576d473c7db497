"""Data Docs as Great Expectations builds them, then without anything that asks the network."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd

from infra.expectations import run_suite
from infra.validation_suites import Check

CHECKS = (
    Check(name="low", severity="block", column="mean", maximum=1.0, reason="it is too high for this reason"),
    Check(name="high", severity="warn", column="mean", minimum=0.0, reason="it is too low"),
)
TABLE = pd.DataFrame({"variable": ["t"], "level": [500], "time": ["2026-01-01T00Z"], "mean": [2.0]})


class Addresses(HTMLParser):
    """What a browser would load to show a page; links for people to follow are none of it."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag != "a":
            self.loaded += [value for name, value in attrs if name in ("src", "href") and value]


def test_the_pages_open_from_a_disk_without_a_network(tmp_path: Path) -> None:
    findings = run_suite(TABLE, CHECKS, name="small", docs_folder=tmp_path)
    assert [finding.check for finding in findings] == ["low"]
    pages = sorted(tmp_path.rglob("*.html"))
    assert len(pages) == 3
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == set(pages)
    for page in pages:
        text = page.read_text(encoding="utf-8")
        parser = Addresses()
        parser.feed(text)
        assert parser.loaded == []
        assert not re.search(r"url\(['\"]?http|@import|<script", text)
    index = (tmp_path / "index.html").read_text(encoding="utf-8")
    (result,) = re.findall(r'href="(validations/[^"]+)"', index)
    assert ": failed</a>" in index
    shown = (tmp_path / result).read_text(encoding="utf-8")
    assert "mean" in shown
    expected = (tmp_path / "expectations" / "small.html").read_text(encoding="utf-8")
    assert "it is too high for this reason" in expected
