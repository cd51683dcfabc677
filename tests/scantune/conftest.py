from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from scanlearn.archive.layout import Origin, PackedScan
from scanlearn.archive.reader import Archive
from scanlearn.archive.writer import ArchiveWriter
from scantune.evaluation.results import Evaluation, score_table
from scantune.labels.labeled_set import LabeledSet, read_labels
from scantune.labels.truth import Truth
from scantune.scores import Scores
from scantune.scoring import score_features


@dataclass
class Table:
    """What labels are read from, without scans."""

    columns: dict[str, list[str | None]]
    patients: np.ndarray = field(default_factory=lambda: np.array([]))
    path: Path = Path("labels.csv")
    num_rejected: int = 0
    patients_known: bool = True

    def __post_init__(self) -> None:
        if not len(self.patients):
            self.patients = np.array([f"p{row}" for row in range(len(self))])

    @property
    def scan_ids(self) -> np.ndarray:
        return np.array([f"images/{row}.png" for row in range(len(self))])

    @property
    def label_columns(self) -> tuple[str, ...]:
        return tuple(self.columns)

    def labels(self, column: str) -> np.ndarray:
        return np.array(self.columns[column], dtype=object)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))


@pytest.fixture
def table() -> type[Table]:
    return Table


@pytest.fixture
def labeled() -> Callable[..., LabeledSet]:
    """Makes a labeled set of patients with one to three scans, mostly of one class each."""

    def make(
        patients: int = 60,
        classes: int = 2,
        seed: int = 0,
        rare: float | None = None,
        split: bool = False,
    ) -> LabeledSet:
        rng = np.random.default_rng(seed)
        owner = np.repeat(np.arange(patients), rng.integers(1, 4, patients))
        if rare is None:
            y = rng.integers(0, classes, patients)[owner]
            flip = rng.random(len(y)) < 0.1
            y = np.where(flip, rng.integers(0, classes, len(y)), y)
        else:
            y = (rng.random(len(owner)) < rare).astype(int)
        sides = np.where(owner < patients // 2, "train", "test") if split else None
        names = tuple(str(code) for code in range(classes))
        return LabeledSet(
            "target", names, Truth.of_classes(y, classes), owner, np.arange(len(y)), sides
        )

    return make


@pytest.fixture
def make_scores() -> Callable[..., Scores]:
    """Makes two-class scores of one cell from plain arrays: y, patients, values and folds."""

    def make(
        y: np.ndarray, patients: np.ndarray, values: np.ndarray, fold_of: np.ndarray | None = None
    ) -> Scores:
        fold_of = np.zeros((1, len(y)), dtype=np.int64) if fold_of is None else fold_of
        seeds, folds = len(fold_of), int(fold_of.max()) + 1
        values = np.broadcast_to(values, (seeds, len(y)))
        both = np.where((fold_of >= 0)[..., None], np.stack([1 - values, values], axis=-1), np.nan)
        used = np.full((1, seeds, folds), 10)
        half = np.full((1, 1, seeds, folds, 2), 0.5)
        all_of_it = (Truth.of_classes(y, 2), patients, fold_of, both[None, None], half, used, used)
        return Scores(("linear",), ("all",), ("0", "1"), *all_of_it)

    return make


@pytest.fixture
def informative() -> Callable[..., np.ndarray]:
    """Makes features that know the class a little and the patient as well."""

    def make(data: LabeledSet, d: int = 12, strength: float = 1.0, seed: int = 0) -> np.ndarray:
        rng = np.random.default_rng(seed)
        features: np.ndarray = rng.normal(size=(len(data), d))
        features += rng.normal(size=(data.patients.max() + 1, d))[data.patients]
        features[:, : len(data.classes)] += strength * np.eye(len(data.classes))[data.truth.classes]
        return features

    return make


@pytest.fixture
def finding_scores() -> Scores:
    """Scores of three findings in 60 patients' scans; some are unknown, one is very rare."""
    rng = np.random.default_rng(5)
    patients = np.repeat(np.arange(60), 2)
    n = len(patients)
    matrix = (rng.random((n, 3)) < [0.4, 0.2, 0.0]).astype(np.int8)
    matrix[7, 2] = 1
    matrix[rng.random((n, 3)) < [0.1, 0.0, 0.0]] = -1
    values = np.clip(0.3 * (matrix == 1) + 0.7 * rng.random((1, 1, 2, n, 3)), 0, 1)
    fold_of = np.stack([patients % 2, (patients // 2) % 2])
    half = np.full((1, 1, 2, 2, 3), 0.5)
    used = np.full((1, 2, 2), n // 2)
    names = ("Edema", "Effusion", "Hernia")
    truth = Truth(matrix, "multilabel")
    return Scores(("linear",), ("all",), names, truth, patients, fold_of, values, half, used, used)


@pytest.fixture(scope="session")
def scan_archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """Forty small scans of twenty patients, of two classes; one has no label."""
    folder = tmp_path_factory.mktemp("packed") / "archive"
    with ArchiveWriter(
        folder, shape=(1, 8, 8), dtype=np.uint8, label_columns=("finding",)
    ) as writer:
        for row in range(40):
            writer.add(
                PackedScan(np.full((1, 8, 8), 3 * row, np.uint8)),
                Origin(
                    f"{row:024x}",
                    f"person-{row // 2}",
                    {"finding": None if row == 3 else str(row // 2 % 2)},
                ),
            )
        return writer.close()


@pytest.fixture(scope="session")
def evaluation(scan_archive: Archive) -> Evaluation:
    """Two learners at two label budgets on `scan_archive`."""
    data = read_labels(scan_archive, "finding")
    features = np.random.default_rng(0).normal(size=(len(data), 4)) + data.truth.classes[:, None]
    scores = score_features(features, data, budgets=(10, "all"), folds=2, label_seeds=2)
    return Evaluation({"target": "finding"}, score_table(scores), data, scores, ("read me",))
