"""The report as a browser lays it out, with no network."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from scanlearn.archive.reader import Archive
from scantune.comparison import report as page
from scantune.evaluation.outputs import write
from scantune.evaluation.results import Evaluation

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update --hide-scrollbars "
    "--allow-file-access-from-files --host-resolver-rules=MAP*~NOTFOUND --virtual-time-budget=5000"
)
# A frame as wide as the device; the script writes down what the page inside it measures.
FRAME = """<!doctype html><title>measuring</title>
<iframe id="frame" src="{page}" width="{width}" height="800" style="border:0"></iframe>
<script>
document.getElementById("frame").onload = (event) => {{
  const inner = event.target.contentDocument;
  const root = inner.documentElement;
  const images = [...inner.images].every((image) => image.naturalWidth > 0);
  document.title = `scroll=${{root.scrollWidth}} client=${{root.clientWidth}} images=${{images}} ` +
    `text=${{inner.body.innerText.length}}`;
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


@pytest.mark.parametrize("width", [390, 1366])
def test_the_report_fits_the_screen_and_shows_its_pictures(
    study_folder: Callable[..., Path], tmp_path: Path, width: int
) -> None:
    measured = measure(page.write(study_folder()), width, tmp_path / "p")
    assert int(measured["client"]) == width
    assert int(measured["scroll"]) <= width, "something is wider than the screen"
    assert measured["images"] == "true"
    assert int(measured["text"]) > 1000


@pytest.mark.parametrize("width", [390, 1366])
def test_the_page_of_an_evaluation_fits_the_screen_and_shows_its_pictures(
    evaluation: Evaluation, scan_archive: Archive, tmp_path: Path, width: int
) -> None:
    write(evaluation, [scan_archive], tmp_path / "out", worst=5)
    measured = measure(tmp_path / "out" / "evaluation.html", width, tmp_path / "p")
    assert int(measured["client"]) == width
    assert int(measured["scroll"]) <= width, "something is wider than the screen"
    assert measured["images"] == "true"
    assert int(measured["text"]) > 1000
