from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _load_script(path: Path) -> ModuleType:
    """Imports a script as ``python PATH`` does: its own folder is searched first."""
    name = f"script_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def house() -> Any:
    return _load_script(ROOT / "docs" / "house.py")


@pytest.fixture(scope="session")
def coverage() -> Any:
    return _load_script(ROOT / "benchmarks" / "intervals.py")


@pytest.fixture(scope="session")
def modules(house: Any) -> list[Any]:
    found: list[Any] = house.read_modules()
    assert len(found) > 30
    return found
