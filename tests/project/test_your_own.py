"""The programs of docs/your_own.md are short, and run as they stand."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "your_own.md"
PROGRAMS = re.findall(r"## An? (\w+)\n.*?```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


def test_a_network_a_method_and_an_operation_take_fewer_than_sixty_lines_each() -> None:
    assert [name for name, _ in PROGRAMS] == ["network", "method", "operation"]
    for name, program in PROGRAMS:
        assert len([line for line in program.splitlines() if line.strip()]) < 60, name


@pytest.mark.long
@pytest.mark.parametrize(("name", "program"), PROGRAMS, ids=[name for name, _ in PROGRAMS])
def test_it_pretrains_and_goes_on_where_it_was_stopped(
    name: str, program: str, tmp_path: Path
) -> None:
    file = tmp_path / "own.py"
    file.write_text(program)
    environment = {**os.environ, "SCANLEARN_CACHE": str(tmp_path / "cache")}
    for _ in range(2):  # The second time the finished run is read again.
        done = subprocess.run(
            [sys.executable, file], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-2000:]
    assert "already finished" in done.stdout
    folder = tmp_path / "runs" / f"own_{name}"
    card = json.loads((folder / "backbone" / "card.json").read_text())
    own = {
        "network": card["architecture"] == "pyramid",
        "method": card["method"] == "vicreg",
        "operation": bool(card["extras"]) and card["extras"][0]["name"] == "own.Shadow",
    }
    assert own[name]
    assert card["steps"] == 4
