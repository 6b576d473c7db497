"""Two publications of a cycle are compared by the names of their files and by their data."""

from __future__ import annotations

import pytest

from infra.publication import FileRecord
from tests.tools.undisturbed import same_files

NAMES = ("mean.nc", "maps/t2m.png", "index.html", "checks/report.html", "checks/docs/20260101T0000.html")


def published(*names: str, sha256: str = "0" * 64) -> dict[str, FileRecord]:
    return {name: FileRecord(sha256=sha256, size=1) for name in names}


@pytest.mark.parametrize("lost", NAMES[:-1])
def test_a_file_that_only_one_has_is_a_difference(lost: str) -> None:
    fewer = published(*(name for name in NAMES if name != lost))
    assert not same_files(fewer, published(*NAMES))
    assert not same_files(published(*NAMES), fewer)


def test_names_below_the_data_docs_and_the_content_of_pages_may_differ() -> None:
    first = published(*NAMES)
    second = published(*NAMES[:-1], "checks/docs/20260102T0300.html")
    assert same_files(first, second | published("index.html", sha256="1" * 64))
    assert not same_files(first, second | published("mean.nc", sha256="1" * 64))
