"""Out-of-fold class scores of one backbone, as fitting leaves them and statistics reads them."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from scanlearn.errors import ScanlearnError
from scanlearn.files import write_atomically
from scantune.labels.truth import Truth

_FORMAT = 3


@dataclass(frozen=True)
class Scores:
    """Scores of every labeled scan by models that never saw its patient.

    Axes: ``l`` learners, ``g`` label budgets, ``j`` label seeds, ``f`` folds, ``n`` labeled
    scans, ``k`` classes.

    Args:
        budgets: Label budgets as text, such as "50" and "all".
        classes: Names of the classes; a class is named elsewhere by its place here.
        fold_of: ``[j n]`` the fold in which a scan is tested under each label seed; -1 where a
            given split only trains on it.
        values: ``[l g j n k]`` class scores; NaN where ``fold_of`` is -1.
        thresholds: ``[l g j f k]`` at or above which a model calls a class, set on training
            patients; NaN where they are too few (see `metrics.threshold_at`).
    """

    learners: tuple[str, ...]
    budgets: tuple[str, ...]
    classes: tuple[str, ...]
    truth: Truth
    patients: Int[np.ndarray, " n"]
    fold_of: Int[np.ndarray, "j n"]
    values: Float[np.ndarray, "l g j n k"]
    thresholds: Float[np.ndarray, "l g j f k"]
    train_scans: Int[np.ndarray, "g j f"]
    train_patients: Int[np.ndarray, "g j f"]
    notes: tuple[str, ...] = ()

    @property
    def num_label_seeds(self) -> int:
        """Repetitions with other folds and subsets."""
        return len(self.fold_of)

    @property
    def num_folds(self) -> int:
        """Folds under each label seed; 1 where the split was given."""
        return int(self.train_scans.shape[2])

    @property
    def tested_patients(self) -> Int[np.ndarray, " m"]:
        """Codes of the patients that are tested, ascending."""
        return np.asarray(np.unique(self.patients[(self.fold_of >= 0).any(axis=0)]))

    def test_rows(
        self, label_seed: int, fold: int, code: int | None = None
    ) -> Int[np.ndarray, " u"]:
        """Returns the rows that one fold tests; of one class, those of which it is known."""
        is_tested = self.fold_of[label_seed] == fold
        return np.flatnonzero(is_tested if code is None else is_tested & self.truth.known(code))

    def of(self, learner: str, budget: str | int) -> Float[np.ndarray, "j n k"]:
        """Returns the scores of a learner at a label budget; a ValueError if there are none."""
        return np.asarray(self.values[self._place(learner, budget)])

    def thresholds_of(self, learner: str, budget: str | int) -> Float[np.ndarray, "j f k"]:
        """Returns the thresholds of a learner at a budget; a ValueError if there are none."""
        return np.asarray(self.thresholds[self._place(learner, budget)])

    def _place(self, learner: str, budget: str | int) -> tuple[int, int]:
        for kind, name, known in (
            ("learner", learner, self.learners),
            ("label budget", str(budget), self.budgets),
        ):
            if name not in known:
                raise ValueError(f"{kind} '{name}' was not scored; there are {', '.join(known)}")
        return self.learners.index(learner), self.budgets.index(str(budget))

    def design_hash(self) -> str:
        """Returns a digest of all that arms must share: labels, patients, folds and subsets."""
        names = (self.learners, self.budgets, self.classes, self.truth.task)
        digest = hashlib.sha256(repr(names).encode())
        for array in (
            self.truth.matrix,
            self.patients,
            self.fold_of,
            self.train_scans,
            self.train_patients,
        ):
            digest.update(repr(array.shape).encode())
            digest.update(np.ascontiguousarray(array, dtype="<i8").tobytes())
        return digest.hexdigest()

    def save(self, path: Path | str) -> None:
        """Writes the scores as ``.npz``; a file of that name is always whole."""
        fields: dict[str, Any] = {name: np.asarray(getattr(self, name)) for name in _ARRAYS}
        fields |= {name: np.array(getattr(self, name), dtype=np.str_) for name in _TEXTS}
        fields |= {"truth": self.truth.matrix, "task": np.array(self.truth.task)}
        content = io.BytesIO()
        np.savez_compressed(content, format=np.array(_FORMAT), **fields)
        write_atomically(Path(path), content.getvalue())

    @classmethod
    def load(cls, path: Path | str) -> Scores:
        """Returns scores written by ``save``.

        Raises:
            ScanlearnError: If the file is of another format.
        """
        with np.load(path, allow_pickle=False) as file:
            if int(file["format"]) != _FORMAT:
                raise ScanlearnError(
                    f"{path}: format {int(file['format'])}, not {_FORMAT}; delete the "
                    "file to have it computed again"
                )
            texts: dict[str, Any] = {
                name: tuple(str(text) for text in file[name]) for name in _TEXTS
            }
            arrays: dict[str, Any] = {name: np.asarray(file[name]) for name in _ARRAYS}
            truth = Truth(np.asarray(file["truth"]), str(file["task"]))  # type: ignore[arg-type]
        return cls(truth=truth, **texts, **arrays)


_TEXTS = ("learners", "budgets", "classes", "notes")
_ARRAYS = (
    *("patients", "fold_of", "values", "thresholds"),
    *("train_scans", "train_patients"),
)
