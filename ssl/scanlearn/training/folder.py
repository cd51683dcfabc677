"""The folder of one run: its files, whether it may be reused, its rows of metrics."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scanlearn.config import dump_plain, parse_value
from scanlearn.errors import ScanlearnError
from scanlearn.files import full_disk_explained, write_all, write_atomically

COLUMNS = (
    *("step", "epoch", "loss", "lr", "embedding_std", "views_per_s", "data_wait_share"),
    *("embedding_rank", "loss_vs_chance"),
)


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run: ``config.yaml``, ``provenance.json``, ``metrics.csv`` and so on."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

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


def open_run(
    folder: Path, config: Mapping[str, object], *, ignored: frozenset[str] = frozenset()
) -> RunFolder:
    """Creates a run folder, or opens it again where it holds this very run.

    Args:
        folder: Where the run is, or will be.
        config: The resolved configuration, as nested plain values.
        ignored: Dotted keys that may differ from an earlier start: they do not change the result.

    Raises:
        ScanlearnError: The folder holds another run, or something that is no run.
    """
    run = RunFolder(folder)
    if run.config.is_file():
        before = parse_value(run.config.read_text())
        differing = sorted(_differing(before, config, ignored))
        if differing:
            shown = ", ".join(differing[:3]) + (", ..." if len(differing) > 3 else "")
            raise ScanlearnError(
                f"{folder} already holds a different run ({shown}): name another output folder, "
                "or restore these keys to go on with that run."
            )
        # A kill in the middle of a write leaves its half file; many would fill the disk.
        for torn in (*folder.glob(".*.part"), *run.checkpoint.parent.glob(".*.part")):
            torn.unlink(missing_ok=True)
        return run
    if folder.exists() and (not folder.is_dir() or any(_visible(folder))):
        raise ScanlearnError(
            f"{folder} exists and is no run folder (it has no config.yaml): "
            "name an output folder that is empty or does not exist."
        )
    with full_disk_explained(run.checkpoint):
        run.checkpoint.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(run.config, dump_plain(config))
    return run


def _visible(folder: Path) -> Iterator[Path]:
    """What a start that was killed before its config.yaml does not leave behind."""
    return (
        entry
        for entry in folder.iterdir()
        if not entry.name.startswith(".")
        and not (entry.name == "checkpoints" and not any(entry.iterdir()))
    )


def _differing(
    before: object, now: object, ignored: frozenset[str], prefix: str = ""
) -> Iterator[str]:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in {**before, **now}:
            name = f"{prefix}{key}"
            if name not in ignored:
                yield from _differing(before.get(key), now.get(key), ignored, f"{name}.")
    elif before != now:
        yield f"{prefix[:-1]} was {before}, is {now}"


class MetricsCsv:
    """Rows appended to a CSV, each in one write: a kill leaves at most its last row torn.

    Args:
        path: The file; created with its header when absent.
        columns: Names, the first of which is ``step``.
        after: Rows of an earlier start beyond this step are dropped, since the run takes those
            steps again.
    """

    def __init__(self, path: Path, columns: Sequence[str], *, after: int) -> None:
        self._path = path
        self._columns = tuple(columns)
        header = ",".join(self._columns)
        lines = path.read_text().split("\n")[1:-1] if path.is_file() else []
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
        with full_disk_explained(self._path):
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND)
            try:
                write_all(descriptor, f"{text}\n".encode())
            finally:
                os.close(descriptor)
