"""The report as a browser lays it out, with no network."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from scanlearn.archive.reader import Archive
from scantune.evaluation.outputs import write
from scantune.evaluation.results import Evaluation
from scantune.reports import report as page
from scantune.study import results as r

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update --hide-scrollbars "
    "--allow-file-access-from-files --host-resolver-rules=MAP*~NOTFOUND --virtual-time-budget=5000 "
    "--enable-logging=stderr"
)
# A frame as wide as the device; the script writes down what the page inside it measures.
FRAME = """<!doctype html><title>measuring</title>
<iframe id="frame" src="{page}" width="{width}" height="800" style="border:0"></iframe>
<script>
document.getElementById("frame").onload = (event) => {{
  const inner = event.target.contentDocument;
  const root = inner.documentElement;
  const images = [...inner.images].every((image) => image.naturalWidth > 0);
  const hidden = [...inner.querySelectorAll(".scroll")].filter(
    (each) => each.scrollWidth > each.clientWidth && !each.querySelector("img"));
  document.title = `scroll=${{root.scrollWidth}} client=${{root.clientWidth}} images=${{images}} ` +
    `text=${{inner.body.innerText.length}} hidden=${{hidden.length}}`;
}};
</script>
"""

# Clicks a column's title and writes down its cells, and how the title says that they are sorted.
CLICKS = """<!doctype html><title>clicking</title>
<iframe id="frame" src="{page}" width="1440" height="800"></iframe>
<script>
document.getElementById("frame").onload = (event) => {{
  const inner = event.target.contentDocument;
  const table = inner.querySelector("[aria-label='{table}'] table");
  const head = [...table.tHead.querySelectorAll("th[aria-sort]")][{column}];
  const text = (row) => row.cells[{cell}].firstChild.textContent.trim();
  const cells = () => [...table.tBodies[0].rows].map(text);
  const seen = [];
  for (let click = 0; click < 4; click += 1) {{
    seen.push([head.getAttribute("aria-sort"), ...cells()].join("|"));
    head.querySelector("button").click();
  }}
  document.title = "seen=" + seen.join(";");
}};
</script>
"""

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]


def chromium(profile: Path, *words: str) -> str:
    flags = FLAGS.replace("MAP*~NOTFOUND", "MAP * ~NOTFOUND")
    arguments = re.split(r" (?=--)", flags)
    done = subprocess.run(
        [str(CHROMIUM), *arguments, f"--user-data-dir={profile}", *words],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "CONSOLE" not in done.stderr, done.stderr[-2000:]
    return done.stdout


def measure(page: Path, width: int, profile: Path) -> dict[str, str]:
    """Returns what a page measures in a window of a width, in CSS pixels."""
    frame = page.with_name("frame.html")
    frame.write_text(FRAME.format(page=page.name, width=width))
    title = re.search(
        r"<title>(scroll=.*?)</title>", chromium(profile, "--dump-dom", frame.as_uri())
    )
    assert title, "the page never finished loading"
    return dict(part.split("=") for part in title[1].split())


@pytest.mark.parametrize("width", [390, 1440])
def test_the_report_fits_the_screen_and_shows_its_pictures(
    study_folder: Callable[..., Path], tmp_path: Path, width: int
) -> None:
    measured = measure(page.write(study_folder()), width, tmp_path / "p")
    assert int(measured["client"]) == width
    assert int(measured["scroll"]) <= width, "something is wider than the screen"
    assert measured["images"] == "true"
    assert int(measured["text"]) > 1000
    assert width > 390 or measured["hidden"] == "0", "a column is hidden"


def test_tables_sort_as_numbers_and_back(
    study_folder: Callable[..., Path], tmp_path: Path, fake_results: r.Results
) -> None:
    path = page.write(study_folder())
    frame = path.with_name("clicks.html")
    frame.write_text(CLICKS.format(page=path.name, table="AUROC table, lesion", column=1, cell=1))
    found = re.search(
        r"<title>seen=(.*?)</title>", chromium(tmp_path / "p", "--dump-dom", frame.as_uri())
    )
    assert found, "the page never finished loading"
    orders = [part.split("|") for part in found[1].split(";")]
    assert [order[0] for order in orders] == ["none", "ascending", "descending", "none"]
    written = [
        f"{s.auroc:.3f}"
        for s in fake_results.table
        if (s.task, s.learner, s.budget) == ("lesion", "linear", 50)
    ]
    assert orders[0][1:] == orders[3][1:] == written
    assert orders[1][1:] == sorted(written, key=float)
    assert orders[2][1:] == sorted(written, key=float, reverse=True)


@pytest.mark.parametrize("width", [390, 1440])
def test_the_page_of_an_evaluation_fits_the_screen_and_shows_its_pictures(
    evaluation: Evaluation, scan_archive: Archive, tmp_path: Path, width: int
) -> None:
    write(evaluation, [scan_archive], tmp_path / "out", worst=5)
    measured = measure(tmp_path / "out" / "evaluation.html", width, tmp_path / "p")
    assert int(measured["client"]) == width
    assert int(measured["scroll"]) <= width, "something is wider than the screen"
    assert measured["images"] == "true"
    assert int(measured["text"]) > 1000
