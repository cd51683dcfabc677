from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from scanlearn.archive import changes
from scanlearn.archive.layout import Origin, PackedScan
from scanlearn.archive.reader import Archive
from scanlearn.archive.writer import ArchiveWriter


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


@pytest.fixture
def draw_pictures() -> Callable[..., np.ndarray]:
    """A function that draws gray pictures, no two alike, as ``[n 1 side side]`` 8-bit values."""

    def draw(number: int, seed: int = 0, side: int = 96) -> np.ndarray:
        rng = np.random.default_rng(seed)
        drawn = np.empty((number, 1, side, side), np.uint8)
        for index in range(number):
            # Large shapes are strong and small ones weak, as in scans.
            picture = np.full((side, side), 128.0)
            for cells in (4, 8, 16):
                coarse = rng.normal(0, 160 / cells, (cells, cells)).astype(np.float32)
                fine = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
                picture += np.asarray(fine)
            drawn[index, 0] = np.clip(picture, 0, 255)
        return drawn

    return draw


@pytest.fixture
def write_archive(tmp_path: Path) -> Callable[..., Archive]:
    """A function that writes pixels ``[n c h w]`` into an archive below ``tmp_path``."""

    def write(
        pixels: np.ndarray,
        name: str = "archive",
        *,
        patients: Sequence[str] | None = None,
        boxes: Sequence[tuple[int, int, int, int]] | None = None,
        labels: dict[str, Sequence[str]] | None = None,
        **settings: Any,
    ) -> Archive:
        columns = labels or {}
        shape, dtype = pixels.shape[1:], pixels.dtype
        settings = {"label_columns": tuple(columns), **settings}
        with ArchiveWriter(tmp_path / name, shape=shape, dtype=dtype, **settings) as writer:
            for row, one in enumerate(pixels):
                writer.add(
                    PackedScan(one, valid_box=None if boxes is None else boxes[row]),
                    Origin(
                        f"{name}-{row}",
                        f"{name}-p{row}" if patients is None else patients[row],
                        {column: values[row] for column, values in columns.items()},
                        spelling=f"{name}-{row}",
                    ),
                )
            return writer.close()

    return write


class Crash(BaseException):
    """Stands for a process that is killed: nothing of ours catches it."""


@pytest.fixture
def crash(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], AbstractContextManager[None]]:
    """A context whose change of an archive dies just before or after the new one is in place."""

    @contextmanager
    def crashing(where: str) -> Iterator[None]:
        write = changes.write_info

        def crash(path: Path, info: dict[str, Any]) -> None:
            if where == "after":
                write(path, info)
            raise Crash

        with monkeypatch.context() as patch:
            patch.setattr(changes, "write_info", crash)
            with pytest.raises(Crash):
                yield

    return crashing
