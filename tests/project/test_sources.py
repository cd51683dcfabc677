"""What holds for every source file."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from typing import Any

# The name a distribution has where it differs from the module's.
DISTRIBUTIONS = {
    "PIL": "pillow",
    "pytorch_lightning": "pytorch-lightning",
    "sklearn": "scikit-learn",
    "resvg_py": "resvg-py",
    "yaml": "pyyaml",
    "pydantic_core": "pydantic",
}


def test_every_import_is_a_declared_dependency(modules: list[Any], root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = [
        *project["dependencies"],
        *(each for name in extras.keys() - {"dev"} for each in extras[name]),
    ]
    declared = {re.split(r"[<>=!\[]", item)[0] for item in asked}
    used = {name.split(".")[0] for module in modules for name in module.imports}
    outside = used - set(sys.stdlib_module_names) - {"scanlearn", "scantune"}
    missing = {name for name in outside if DISTRIBUTIONS.get(name, name) not in declared}
    assert not missing


def test_the_source_roots_hold_packages_and_nothing_else(root: Path) -> None:
    for source, package in (("ssl", "scanlearn"), ("finetune", "scantune")):
        entries = {path.name for path in (root / source).iterdir() if path.name != "__pycache__"}
        assert entries == {package}, f"{source}/ holds {entries}"
    assert not (root / "tests" / "ssl").exists()


def test_nothing_is_left_open(modules: list[Any]) -> None:
    # Written in two halves so that this file does not find itself.
    pattern = re.compile("TO" + "DO|FIX" + "ME|XX" + "X|raise NotImplemented" + "Error")
    assert not [module.name for module in modules if pattern.search(module.path.read_text())]


def test_constraints_are_names_and_versions_alone(root: Path) -> None:
    lines = (root / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert len(pins) > 50
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!+_-]+", pin) for pin in pins)
