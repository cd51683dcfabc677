"""What the documentation names is there."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md")))
FOLDERS = "ssl|finetune|tests|docs|benchmarks|configs|notebooks"
# Diffs stand in the guide for contributors alone.
DIFFS = re.findall(r"```diff\n(.*?)```", (ROOT / "docs" / "contributing.md").read_text(), re.DOTALL)
MESSAGES = re.findall(
    r"^\| `([^`]+)` \|", (ROOT / "docs" / "troubleshooting.md").read_text(), re.MULTILINE
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_file_that_a_page_names_is_there(page: Path) -> None:
    text = page.read_text()
    named = re.findall(rf"(?<![\w/])((?:{FOLDERS})/[\w./-]*\w)", text)
    links = [
        link.partition("#")[0]
        for link in re.findall(r"\]\(([^)]+)\)", text)
        if not link.startswith(("http", "#", "mailto:"))
    ]
    missing = {name for name in named if not (ROOT / name).exists()}
    missing |= {link for link in links if not (page.parent / link).exists()}
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_heading_that_a_page_links_to_is_there(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]*#[^)]+)\)", page.read_text()):
        name, _, anchor = link.partition("#")
        if not name.startswith("http"):
            assert anchor in anchors(page.parent / name if name else page), link


def anchors(page: Path) -> set[str]:
    """Returns the anchors of a page's headings: words in lower case, joined by hyphens."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_of_the_troubleshooting_page_is_one_of_the_sources(message: str) -> None:
    fixed = [re.escape(words) for words in message.split("...") if words.strip()]
    assert sum(map(len, fixed)) > 15
    pattern = re.compile(".*".join(fixed), re.DOTALL)
    assert any(pattern.search(text) for text in texts_of_the_sources())


@cache
def texts_of_the_sources() -> tuple[str, ...]:
    """Returns every text in the sources, what is filled in at run time as a NUL."""
    texts = []
    for folder in ("ssl", "finetune"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.JoinedStr):
                    parts = [getattr(part, "value", "") for part in node.values]
                    texts.append("".join(p if isinstance(p, str) else "\0" for p in parts))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    texts.append(node.value)
    return tuple(texts)


def test_messages_are_looked_for() -> None:
    assert len(MESSAGES) > 40


def test_the_site_has_every_page() -> None:
    nav = re.findall(r": ((?:docs/|benchmarks/)?\w+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.M)
    pages = {str(page.relative_to(ROOT)) for page in PAGES} | {"benchmarks/RESULTS.md"}
    assert sorted(nav) == sorted(pages), "name the page under nav in mkdocs.yml"


@pytest.mark.long
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert built.returncode == 0, built.stderr[-3000:]
    page = (tmp_path / "docs" / "report.html").read_text()
    assert 'href="statistics.html"' in page
    # The site loads nothing from elsewhere.
    assert not re.search(r"<(?:script|link)[^>]+(?:src|href)=\"?https?:", page)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_module_that_a_page_names_is_there(page: Path, modules: list[Any]) -> None:
    names = {module.name for module in modules}
    dotted = re.findall(r"\b(scan(?:learn|tune)(?:\.[a-z_]+)+)\b", page.read_text())
    # The last part may be a function of the module.
    assert not [name for name in dotted if not {name, name.rpartition(".")[0]} & names]


def test_files_named_by_folder_alone_are_there() -> None:
    text = (ROOT / "docs" / "contributing.md").read_text()
    sources = (ROOT / "ssl" / "scanlearn", ROOT / "finetune" / "scantune", ROOT)
    named = re.findall(r"`([a-z_]+(?:/[a-z_]+)*\.py|[a-z_]+/)`", text)
    assert len(named) > 10
    assert not [name for name in named if not any((base / name).exists() for base in sources)]


@pytest.mark.parametrize("diff", DIFFS)
def test_the_examples_are_in_the_sources(diff: str) -> None:
    lines: list[str] = []
    for line in diff.splitlines():
        if line.startswith("+++ "):
            lines = [each.strip() for each in (ROOT / line[4:]).read_text().splitlines()]
        elif (text := line[1:].strip()) and "..." not in text:
            assert text in lines
