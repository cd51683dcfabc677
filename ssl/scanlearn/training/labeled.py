"""A labeled probe: what a backbone's frozen features tell of labels, while it trains."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int, Int64

from scanlearn.core import ScanlearnError
from scanlearn.metrics import asked_classes, macro_auroc, one_hot
from scanlearn.scans.archive import Archive
from scanlearn.scans.identity import patient_codes
from scanlearn.scans.tables import cell_text

FOLDS = 5
NEIGHBOURS = 20
KNN_TEMPERATURE = 0.07
# A fixed penalty: a probe follows one run, and its best penalty would move from epoch to epoch.
LINEAR_C = 0.01
_MOST_CLASSES = 20


@dataclass(frozen=True)
class ProbeScore:
    """Macro AUROC over patient-grouped folds, the mean of the folds.

    Args:
        knn_auroc: Of the nearest neighbours' votes.
        linear_auroc: Of logistic regression.
    """

    knn_auroc: float
    linear_auroc: float


@dataclass(frozen=True)
class LabeledProbe:
    """Labeled scans, their folds fixed once.

    Args:
        archive: Where the scans are.
        rows: ``[n]`` the labeled ones.
        y: ``[n]`` class of each, from 0.
        classes: Names of the classes.
        fold_of: ``[n]`` fold in which each is tested; a patient's scans share one.
        target: The label column.
    """

    archive: Archive
    rows: Int64[np.ndarray, " n"]
    y: Int[np.ndarray, " n"]
    classes: tuple[str, ...]
    fold_of: Int[np.ndarray, " n"]
    target: str

    @classmethod
    def of(cls, archive: Archive, column: str) -> LabeledProbe:
        """Reads a label column and makes the folds; blank labels are left out.

        Raises:
            ScanlearnError: The column is missing, is blank, holds one class only or no classes at
                all, or a class has too few patients for two folds.
        """
        texts = [cell_text(value) for value in archive.labels(column)]
        rows = np.array([row for row, text in enumerate(texts) if text is not None], np.int64)
        counts = Counter(text for text in texts if text is not None)
        classes = tuple(sorted(counts))
        if len(classes) < 2:
            found = f"one class only, '{classes[0]}'" if classes else "no label"
            raise ScanlearnError(
                f"watch.probe: column '{column}' holds {found} in {len(archive)} scans; name a "
                "column with two classes or more."
            )
        if len(classes) > _MOST_CLASSES:
            raise ScanlearnError(
                f"watch.probe: column '{column}' holds {len(classes)} different values such as "
                f"'{classes[0]}', which is no set of classes; name another column."
            )
        y = np.array([classes.index(str(texts[row])) for row in rows])
        patients = archive.patients[rows]
        people = {name: len(set(patients[y == code])) for code, name in enumerate(classes)}
        rarest = min(people, key=people.__getitem__)
        if people[rarest] < 2:
            raise ScanlearnError(
                f"watch.probe: class '{rarest}' of '{column}' has one patient only, and folds keep "
                "patients together; add patients or leave its labels blank."
            )
        fold_of = _folds(y, patients, min(FOLDS, people[rarest]))
        return cls(archive, rows, y, classes, fold_of, column)

    def in_words(self) -> str:
        """What it is made of, in one line."""
        counts = ", ".join(
            f"{name}: {int((self.y == code).sum()):,}" for code, name in enumerate(self.classes)
        )
        people = len(set(self.archive.patients[self.rows]))
        return (
            f"{self.target} of {len(self.rows):,} scans of {people:,} patients ({counts}), "
            f"{int(self.fold_of.max()) + 1} folds"
        )

    def warnings(self, training: Archive) -> tuple[str, ...]:
        """What deserves a look: scans or patients that the training sees as well."""
        unknown: tuple[str, ...] = ()
        if not self.archive.patients_known:
            unknown = (
                "watch.probe: no patient column was found, so that its folds may share patients.",
            )
        if self.archive.info.get("key") != training.info.get("key"):
            return (
                *unknown,
                "watch.probe: it and the training archive were packed under different keys, so "
                "that patients in both cannot be found; pack them under one.",
            )
        names = ("patients", self.archive.patients[self.rows], training.patients)
        if not (self.archive.patients_known and training.patients_known):
            names = ("scans", self.archive.scan_ids[self.rows], training.scan_ids)
        shared = set(names[1]) & set(names[2])
        if not shared:
            return unknown
        return (
            *unknown,
            f"watch.probe: {len(shared):,} of its {names[0]} are in the training archive too, "
            f"'{min(shared)}' for instance: its AUROC is then no forecast for new patients.",
        )

    def score(self, features: Float32[np.ndarray, "n d"]) -> ProbeScore:
        """Returns what the features of the labeled scans tell of their labels."""
        from sklearn.linear_model import LogisticRegression
        from sklearn.neighbors import KNeighborsClassifier
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        linear = make_pipeline(StandardScaler(), LogisticRegression(C=LINEAR_C, max_iter=1000))
        fewest = int(np.bincount(self.fold_of).max())
        knn = KNeighborsClassifier(
            min(NEIGHBOURS, len(self.y) - fewest), metric="cosine", weights=_votes
        )
        return ProbeScore(self._auroc(knn, features), self._auroc(linear, features))

    def _auroc(self, learner: Any, features: Float32[np.ndarray, "n d"]) -> float:
        aurocs = []
        asked = list(asked_classes(len(self.classes)))
        for fold in range(int(self.fold_of.max()) + 1):
            train, test = self.fold_of != fold, self.fold_of == fold
            learner.fit(features[train].astype(np.float64), self.y[train])
            scores = np.zeros((int(test.sum()), len(self.classes)))
            found = learner.predict_proba(features[test].astype(np.float64))
            scores[:, learner.classes_] = found
            truth = one_hot(self.y[test], len(self.classes))
            aurocs.append(macro_auroc(scores[:, asked], truth[:, asked]).auroc)
        defined = [value for value in aurocs if not np.isnan(value)]
        return float(np.mean(defined)) if defined else float("nan")


def _votes(distance: Float[np.ndarray, "u k"]) -> Float[np.ndarray, "u k"]:
    """Weights of neighbours at a cosine distance: exp(cosine / .07).

    Source: Wu et al. 2018, section 3.4, as in DINO's released kNN evaluation.
    """
    weights: np.ndarray = np.exp((1 - distance) / KNN_TEMPERATURE)
    return weights


def _folds(y: Int[np.ndarray, " n"], patients: np.ndarray, folds: int) -> Int[np.ndarray, " n"]:
    """Returns the fold of each scan, by class and patient; the same for the same labels."""
    from sklearn.model_selection import StratifiedGroupKFold

    fold_of = np.zeros(len(y), dtype=np.int64)
    dealer = StratifiedGroupKFold(folds, shuffle=True, random_state=0)
    for fold, (_, test) in enumerate(dealer.split(y[:, None], y, patient_codes(patients))):
        fold_of[test] = fold
    return fold_of
