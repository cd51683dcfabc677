from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture
def real_data() -> Path:
    folder = os.environ.get("SCANLEARN_DATA")
    if not folder:
        pytest.skip("SCANLEARN_DATA does not say where the real scans are")
    return Path(folder)


@pytest.fixture
def make_scans(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes ``number`` smooth gray (or colour) scans into a folder."""

    def make(
        number: int = 5, name: str = "scans", *, colour: bool = False, suffix: str = ".png"
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        rng = np.random.default_rng(number)
        for index in range(number):
            shape = (6, 5, 3) if colour else (6, 5)
            coarse = Image.fromarray(rng.integers(0, 256, shape).astype(np.uint8))
            coarse.resize((40, 48), Image.Resampling.BICUBIC).save(
                folder / f"scan{index:03d}{suffix}"
            )
        return folder

    return make
