"""The folder of a study: its files, and whether it may be gone on with."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from scanlearn.config.folder import open_folder
from scanlearn.config.reading import read_json
from scanlearn.errors import ScanlearnError
from scanlearn.files import remove_torn, write_atomically
from scantune.comparison.plan import CompareConfig
from scantune.comparison.results import FIGURES

# These change where a study is and what is seen of it, not what comes out; the content of the
# archives is compared by hash.
PRESENTATION = frozenset(
    {
        "title",
        "unlabeled",
        "labels",
        "output",
        "leaks",
        "evaluation.test",
        "pack.summary",
        "pack.workers",
        "pack.wait",
        "pretrain.device",
        "pretrain.checkpoint_minutes",
        "pretrain.checkpoint_steps",
        "pretrain.logging",
        "pretrain.progress",
        "wait",
    }
)

# What chose the canvas of scans that the study packed, beside the hashes of its archives.
_CANVAS = "canvas chosen by"


@dataclass(frozen=True)
class StudyFolder:
    """Where a study keeps what it has done."""

    path: Path

    @property
    def archives(self) -> Path:
        """Hashes of the archives the study was started on."""
        return self.path / "archives.json"

    @property
    def resolved(self) -> Path:
        """What was resolved once for the runs of all arms and seeds, and on which machine."""
        return self.path / "resolved.json"

    @property
    def leaks(self) -> Path:
        """What the leak audit found."""
        return self.path / "leaks"

    @property
    def leaking(self) -> Path:
        """Ids of the unlabeled scans of which a test may see the patient or a copy."""
        return self.leaks / "leaking.txt"

    @property
    def figures(self) -> Path:
        """Pictures for the report."""
        return self.path / FIGURES

    def run(self, arm: str, seed: int) -> Path:
        """Run folder of one arm at one pretraining seed."""
        return self.path / "arms" / arm / f"seed-{seed}"

    def scores(self, task: str, network: str) -> Path:
        """Out-of-fold scores of one network on one task."""
        # A column name may hold what a file name cannot.
        safe = "".join(c if c.isalnum() or c in "-_" else f"%{ord(c):x}" for c in task)
        return self.path / "scores" / safe / f"{network}.npz"

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Adds the time spent inside to a stage's total, over all starts of the study."""
        began = monotonic()
        yield
        spent = self.timing()
        spent[stage] = spent.get(stage, 0.0) + monotonic() - began
        write_atomically(self.path / "timing.json", json.dumps(spent, indent=1) + "\n")

    def timing(self) -> dict[str, float]:
        """Seconds spent in each stage."""
        path = self.path / "timing.json"
        if not path.is_file():
            return {}
        return read_json(
            path,
            dict[str, float],
            what="does not hold the seconds of each stage",
            remedy="delete it to go on without the times so far",
        )


def open_study(config: CompareConfig) -> StudyFolder:
    """Creates the study's folder, or opens it again; errors are those of `open_folder`."""
    folder = StudyFolder(Path(config.output).expanduser())
    open_folder(folder.path, config, kind="study", ignored=PRESENTATION)
    remove_torn(folder.path)
    return folder


def check_archives(folder: StudyFolder, hashes: Mapping[str, str]) -> None:
    """Records the archives of a new study; refuses others on a later start.

    Raises:
        ScanlearnError: The study was started on scans of other content.
    """
    if not folder.archives.is_file():
        known = {**hashes, _CANVAS: "area and aspect of the smallest crop"}
        write_atomically(folder.archives, json.dumps(known, indent=1) + "\n")
        return
    before = _archives(folder)
    for key in ({**before, **hashes}).keys() - {_CANVAS}:
        if before.get(key) != hashes.get(key):
            raise ScanlearnError(
                f"{folder.path} was started on different {key} scans: name another output folder, "
                "or use the scans it was started on"
            )


def chose_by_area(folder: StudyFolder) -> bool:
    """Whether an earlier release began the study: it chose the canvas by the area of crops alone.

    Raises:
        ScanlearnError: The record of its archives cannot be read.
    """
    return folder.archives.is_file() and _CANVAS not in _archives(folder)


def _archives(folder: StudyFolder) -> dict[str, str]:
    return read_json(
        folder.archives,
        dict[str, str],
        what="does not hold the hashes of the archives",
        remedy="restore it from a copy, or name another output folder",
    )
