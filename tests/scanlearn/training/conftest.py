from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scanlearn.archive.layout import Origin, PackedScan
from scanlearn.archive.reader import Archive
from scanlearn.archive.writer import ArchiveWriter
from scanlearn.training.module import Pretrainer
from scanlearn.training.recorder import Recorder
from scanlearn.training.settings import PretrainConfig

SCANS = 20
SIDE = 48


@pytest.fixture(scope="session")
def draw_archive(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Archive]:
    """Returns a maker of small archives with so many channels."""

    def draw(channels: int) -> Archive:
        path = tmp_path_factory.mktemp("archives") / "tiny"
        random = np.random.default_rng(0)
        with ArchiveWriter(path, shape=(channels, SIDE, SIDE), dtype=np.uint8) as writer:
            for index in range(SCANS):
                # Blobs of a size of their own, so that scans can be told apart.
                cells = 4 + index % 5
                coarse = random.integers(0, 256, (channels, cells, cells)).repeat(12, 1)
                pixels = coarse.repeat(12, 2)[:, :SIDE, :SIDE].astype(np.uint8)
                writer.add(PackedScan(pixels), Origin(f"scan{index:02d}.png", f"p{index // 2}"))
            return writer.close()

    return draw


@pytest.fixture(scope="session")
def archive(draw_archive: Callable[[int], Archive]) -> Archive:
    return draw_archive(1)


@pytest.fixture(autouse=True)
def _no_fresh_process(monkeypatch: pytest.MonkeyPatch) -> None:
    # Starting a process that imports timm takes seconds; the export's own tests do it.
    monkeypatch.setattr("scanlearn.backbones.weights.check_reload", lambda *_: 0.0)


class Killed(BaseException):
    """Stands for a kill: nothing of ours catches it."""


@pytest.fixture
def killed_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], AbstractContextManager[None]]:
    """A context whose run is killed as soon as it has taken so many steps."""

    @contextmanager
    def killing(step: int) -> Iterator[None]:
        stepped = Recorder.stepped

        def kill(recorder: Recorder, module: Pretrainer, num_views: int) -> None:
            stepped(recorder, module, num_views)
            if module.global_step == step:
                raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(Recorder, "stepped", kill)
            with pytest.raises(Killed):
                yield

    return killing


@pytest.fixture
def stop_at(monkeypatch: pytest.MonkeyPatch) -> Callable[..., AbstractContextManager[None]]:
    """A context in which this process gets a signal in the middle of a step."""

    @contextmanager
    def stopping(number: int, *, step: int, method: str = "training_step") -> Iterator[None]:
        original = getattr(Pretrainer, method)

        def signalled(module: Pretrainer, *arguments: Any) -> Any:
            if module.global_step == step:
                os.kill(os.getpid(), number)
            return original(module, *arguments)

        with monkeypatch.context() as patch:
            patch.setattr(Pretrainer, method, signalled)
            yield

    return stopping


@pytest.fixture
def configure(archive: Archive, tmp_path: Path) -> Callable[..., PretrainConfig]:
    """Returns a maker of the smallest configurations that train."""

    def make(**changes: Any) -> PretrainConfig:
        values: dict[str, Any] = {
            "archive": str(archive.path),
            "output": str(tmp_path / "run"),
            "backbone": {"name": "test_resnet"},
            "views": {"size": 16},
            "batch_size": 8,
            "steps": 5,
            "precision": "fp32",
            "checkpoint_minutes": 60,
        }
        return PretrainConfig.model_validate({**values, **changes})

    return make
