"""The pages in a real browser: pictures load from disk, the lead time can be chosen, a phone shows all of it."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from matplotlib.image import imsave

from infra.pages import CheckRow, CyclePage, CycleRow, MapSeries, Plume, index_html

INIT = datetime(2026, 1, 15, 12, tzinfo=UTC)


def page(folder: Path) -> CyclePage:
    """A page with two lead times and pictures that exist."""
    (folder / "maps").mkdir()
    names = [f"maps/t_{lead:04d}h.png" for lead in (24, 48)]
    for name in (*names, "maps/plume.png"):
        imsave(folder / name, [[0.0, 1.0], [1.0, 0.0]], format="png")
    return CyclePage(
        model="demo",
        init_time=INIT,
        members=8,
        steps=20,
        step_hours=12,
        representative_member=3,
        maps=[MapSeries(title="2 m temperature <mean>", images=dict(zip((24, 48), names)))],
        plumes=[Plume(place="London", title="2 m temperature", image="maps/plume.png")],
        checks=[
            CheckRow(name="physical range", state="passed"),
            CheckRow(name="no outlier", state="blocked", detail="member 3 is far off"),
        ],
        files=[("a_very_long_folder_name/with_a_very_long_file_name_that_must_wrap.zarr", "3.4 MiB", "data")],
    )


def browser() -> str:
    for name in ("chromium", "chromium-browser", "google-chrome"):
        found = shutil.which(name)
        if found:
            return found
    pytest.skip("no Chromium or Chrome is installed")


def opened(document: Path, profile: Path, *, script: str, width: int = 1280) -> str:
    """The document's title after the browser has run the page and then a script."""
    trial = document.with_name("trial.html")
    waits = f"<script>window.addEventListener('load', () => {{ {script} }});</script></body>"
    trial.write_text(document.read_text(encoding="utf-8").replace("</body>", waits), encoding="utf-8")
    dumped = subprocess.run(
        [
            browser(), "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--disable-background-networking", "--no-first-run", f"--user-data-dir={profile}",
            f"--window-size={width},900", "--virtual-time-budget=5000", "--dump-dom", trial.as_uri(),
        ],
        capture_output=True, text=True, check=True, timeout=240,
    ).stdout  # fmt: skip
    title = re.search(r"<title>(.*?)</title>", dumped)
    assert title is not None
    return title.group(1)


def test_the_page_says_what_it_is(tmp_path: Path) -> None:
    html = page(tmp_path).to_html()
    assert "Thursday 15 January 2026, 12 UTC" in html
    assert "<b>10.0 days</b>, every 12 h" in html
    assert "2 m temperature &lt;mean&gt;" in html
    assert "<mean>" not in html
    assert html.count("✅") == html.count("❌") == 1
    assert "http" not in html


def test_pictures_load_and_the_lead_time_can_be_chosen(tmp_path: Path) -> None:
    browser()
    document = tmp_path / "index.html"
    document.write_text(page(tmp_path).to_html(), encoding="utf-8")
    title = opened(
        document,
        tmp_path / "profile",
        script="""
        document.querySelectorAll('img').forEach((i) => { i.loading = 'eager'; });
        document.querySelectorAll('.leads button')[1].click();
        const image = document.querySelector('img[data-title]');
        image.decode().then(() => {
          const pressed = [...document.querySelectorAll('.leads button')].map((b) => b.getAttribute('aria-pressed'));
          document.title = [image.getAttribute('src'), image.naturalWidth, image.alt, pressed].join('|');
        });""",
    )
    assert title == "maps/t_0048h.png|2|2 m temperature &lt;mean&gt;, +48 h|false,true"


def test_a_phone_shows_the_whole_width(tmp_path: Path) -> None:
    browser()
    document = tmp_path / "index.html"
    document.write_text(page(tmp_path).to_html(), encoding="utf-8")
    title = opened(
        document,
        tmp_path / "profile",
        width=500,  # the narrowest window the browser makes
        script="document.title = document.documentElement.scrollWidth <= window.innerWidth;",
    )
    assert title == "true"


def test_the_index_lists_models_apart() -> None:
    rows = [
        CycleRow(
            model="a", init_time=INIT, state="published", members=8, latency="7.6 h", page="../x/index.html"
        ),
        CycleRow(
            model="b", init_time=INIT, state="quarantined", members=0, latency="", reason="spread <shrinks>"
        ),
    ]
    html = index_html(rows)
    assert html.index("<h2>a</h2>") < html.index("../x/index.html") < html.index("<h2>b</h2>")
    assert "spread &lt;shrinks&gt;" in html
    assert "No cycle yet." in index_html([])


def test_a_page_says_that_its_weather_is_simulated(tmp_path: Path) -> None:
    real = page(tmp_path)
    assert "Simulated" not in real.to_html()
    assert "<b>Simulated weather</b>" in replace(real, simulated=True).to_html()
