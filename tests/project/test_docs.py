"""What the documentation names is there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md")))
FOLDERS = "ssl|finetune|tests|docs|benchmarks|configs|notebooks"
# Diffs stand in the guide for contributors alone.
DIFFS = re.findall(r"```diff\n(.*?)```", (ROOT / "docs" / "contributing.md").read_text(), re.DOTALL)


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
