"""The loops of docs/transform.md run as they stand."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

PAGE = Path(__file__).resolve().parents[2] / "docs" / "transform.md"
PROGRAMS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.mark.long
def test_the_loops_run(tmp_path: Path) -> None:
    assert len(PROGRAMS) == 3
    (tmp_path / "photos" / "all").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(8):
        shape = (70, 90) if number % 2 else (80, 60, 3)
        picture = Image.fromarray(rng.integers(0, 255, shape, dtype=np.uint8))
        picture.save(tmp_path / "photos" / "all" / f"{number}.png")
    for program in PROGRAMS:
        (tmp_path / "loop.py").write_text(program)
        done = subprocess.run(
            [sys.executable, "loop.py"], cwd=tmp_path, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, done.stderr[-2000:]
