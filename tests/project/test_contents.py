"""The docstring of each folder's ``__init__.py`` is a contents page."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = (ROOT / "ssl" / "scanlearn", ROOT / "finetune" / "scantune")
FOLDERS = sorted(path.parent for package in PACKAGES for path in package.rglob("__init__.py"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_it_names_each_file_and_folder_once(folder: Path) -> None:
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
    listed = re.findall(r"^- `([a-z0-9_]+(?:\.py|/))`: \S", text, re.MULTILINE)
    files = {path.name for path in folder.glob("*.py")} - {"__init__.py"}
    folders = {f"{path.parent.name}/" for path in folder.glob("*/__init__.py")}
    assert sorted(listed) == sorted(files | folders)
