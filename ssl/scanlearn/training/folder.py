"""The folder of one run: its files, whether it may be reused, its rows of metrics."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scanlearn.config.folder import differences, open_folder
from scanlearn.config.settings import Settings
from scanlearn.files import (
    disk_errors,
    make_folder,
    reading,
    remove_torn,
    write_all,
    write_atomically,
)

COLUMNS = (
    *("step", "epoch", "loss", "lr", "embedding_std", "views_per_s", "data_wait_share"),
    *("embedding_rank", "loss_vs_chance"),
)


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run: ``config.yaml``, ``provenance.json``, ``metrics.csv`` and so on."""

    path: Path

    @property
    def provenance(self) -> Path:
        """Versions, commit, archive: see :func:`provenance`."""
        return self.path / "provenance.json"

    @property
    def metrics(self) -> Path:
        """One row per logged step, under `COLUMNS`."""
        return self.path / "metrics.csv"

    @property
    def panel(self) -> Path:
        """What was judged of the backbone now and then; only where a run is told to."""
        return self.path / "panel.csv"

    @property
    def checkpoint(self) -> Path:
        """The newest complete checkpoint."""
        return self.path / "checkpoints" / "last.ckpt"

    @property
    def result(self) -> Path:
        """Written last: a run with it is finished."""
        return self.path / "result.json"

    @property
    def backbone(self) -> Path:
        """The exported backbone."""
        return self.path / "backbone"

    @property
    def is_begun(self) -> bool:
        """Whether a step of it is kept; also where no start recorded itself."""
        kept = (self.checkpoint, self.result, self.backbone)
        return not self.provenance.is_file() or any(path.exists() for path in kept)

    def is_for(self, config: Settings, ignored: frozenset[str]) -> bool:
        """Whether what an earlier start recorded holds for these settings."""
        return self.is_begun or not differences(self.path, config, ignored)


def open_run(folder: Path, config: Settings, *, ignored: frozenset[str] = frozenset()) -> RunFolder:
    """Creates a run folder, or opens it again where it holds this very run.

    One of which no step is kept takes other settings, too.

    Raises:
        ScanlearnError: See `open_folder`.
    """
    run = RunFolder(folder)
    if open_folder(folder, config, kind="run", ignored=ignored, is_begun=run.is_begun):
        for path in (run.provenance, run.metrics, run.panel):
            path.unlink(missing_ok=True)
    # A kill in the middle of a write leaves its half file; many would fill the disk.
    remove_torn(folder)
    with disk_errors(run.checkpoint):
        make_folder(run.checkpoint.parent)
    return run


_METRICS_REMEDY = "restore it from a copy, or delete it to go on without its rows"


def read_rows(path: Path, columns: Sequence[str]) -> list[tuple[float, ...]]:
    """Returns columns of a run's metrics, a blank cell as NaN.

    Raises:
        ScanlearnError: It is no table of metrics.
    """
    with reading(path, _METRICS_REMEDY), path.open(newline="", encoding="utf-8") as file:
        return [
            tuple(float(row[name] or "nan") for name in columns) for row in csv.DictReader(file)
        ]


class MetricsCsv:
    """Rows appended to a CSV, each in one write: a kill leaves at most its last row torn.

    Args:
        columns: Names, the first of which is ``step``.
        after: Rows of an earlier start beyond this step are dropped, since the run takes those
            steps again.
    """

    def __init__(self, path: Path, columns: Sequence[str], *, after: int) -> None:
        self._path = path
        self._columns = tuple(columns)
        header = ",".join(self._columns)
        with reading(path, _METRICS_REMEDY):
            lines = path.read_text("utf-8").split("\n")[1:-1] if path.is_file() else []
            kept = [line for line in lines if int(line.split(",", 1)[0]) <= after]
        write_atomically(path, "\n".join([header, *kept, ""]))

    def append(self, row: Mapping[str, int | float]) -> None:
        """Adds one row; the keys are the columns.

        Raises:
            ScanlearnError: The disk is full.
        """
        assert set(row) == set(self._columns), set(row) ^ set(self._columns)
        values = (row[name] for name in self._columns)
        text = ",".join(str(v) if isinstance(v, int) else f"{v:.6g}" for v in values)
        with disk_errors(self._path):
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND)
            try:
                write_all(descriptor, f"{text}\n".encode())
            finally:
                os.close(descriptor)
