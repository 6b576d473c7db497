"""Makes Great Expectations' Data Docs open from a disk, without a network.

As built, the pages take their style, their tables' contents and a logo from other people's servers: offline the
index is empty, and online somebody learns of every look at it. What reaches out is taken away, a small style
sheet is put in its place, and the index is written here.
"""

from __future__ import annotations

import re
import shutil
from html import escape
from pathlib import Path

_OUTWARD = (
    re.compile(r"<link\b[^>]*>", re.IGNORECASE),
    re.compile(r"<script\b.*?</script>", re.IGNORECASE | re.DOTALL),
    re.compile(r"<img\b[^>]*>", re.IGNORECASE),
    re.compile(r"<footer\b.*?</footer>", re.IGNORECASE | re.DOTALL),
    re.compile(r"<button\b[^>]*onclick=.*?</button>", re.IGNORECASE | re.DOTALL),
)
_ADDRESSES_IN_STYLES = re.compile(r"url\(\s*['\"]?https?:[^)]*\)", re.IGNORECASE)

_VERDICT = re.compile(r"Status:</span>\s*<i[^>]*></i>\s*(\w+)")

_STYLE = """<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; }
.row { display: block; }
.sticky, .sticky-top, footer { position: static; }
table { border-collapse: collapse; width: 100%; }
th, td { border-bottom: 1px solid #8884; padding: 0.3rem 0.6rem; text-align: left; vertical-align: top; }
h5 { font-size: 1.1rem; margin: 1.5rem 0 0.3rem; }
h6 { font-size: 1rem; margin: 0.5rem 0 0; }
.badge { background: #8882; border-radius: 4px; padding: 0 0.3rem; }
.modal, .sticky > .card.mb-3 { display: none; }
.fa-check-circle::before { color: #197a32; content: "passed"; }
.fa-times::before { color: #b3261e; content: "failed"; }
.fa-exclamation-triangle::before { color: #9a6700; content: "not evaluated"; }
</style>
"""


def make_self_contained(folder: Path) -> None:
    """Rewrite the pages of built Data Docs so that they need nothing but themselves.

    Args:
        folder: of the site, with ``index.html``, ``validations/`` and ``expectations/``; what else is there
            (fonts, animations) is removed.
    """
    shutil.rmtree(folder / "static", ignore_errors=True)
    for page in sorted(folder.rglob("*.html")):
        page.write_text(_without_network(page.read_text(encoding="utf-8")), encoding="utf-8")
    (folder / "index.html").write_text(_index(folder), encoding="utf-8")


def _without_network(page: str) -> str:
    for pattern in _OUTWARD:
        page = pattern.sub("", page)
    page = _ADDRESSES_IN_STYLES.sub("none", page)
    return page.replace("</head>", f"{_STYLE}</head>", 1)


def _index(folder: Path) -> str:
    sections = []
    for kind, title in (("validations", "Results"), ("expectations", "What was expected")):
        links = [
            f'<li><a href="{escape(path.relative_to(folder).as_posix())}">{escape(_label(path, kind))}</a></li>'
            for path in sorted((folder / kind).rglob("*.html"))
        ]
        sections.append(f"<h5>{title}</h5>\n<ul>\n" + "\n".join(links) + "\n</ul>")
    body = "\n".join(sections)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="UTF-8">\n<title>Data Docs</title>\n'
        f"{_STYLE}</head>\n<body>\n<h1>Data Docs</h1>\n{body}\n</body>\n</html>\n"
    )


def _label(path: Path, kind: str) -> str:
    """From ``validations/{suite}/{run}/{time}/{batch}.html`` or ``expectations/{suite}.html``."""
    if kind == "expectations":
        return path.stem
    found = _VERDICT.search(path.read_text(encoding="utf-8"))
    return f"{path.parents[2].name}, {path.parent.name}: {found[1].lower() if found else 'see there'}"
