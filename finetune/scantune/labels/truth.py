"""What is true of labeled scans: one class each, grades in their order, or several findings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int, Int8, Shaped

from scanlearn.features.auroc import asked_classes, one_hot

Task = Literal["multiclass", "ordinal", "multilabel"]


@dataclass(frozen=True, eq=False)
class Truth:
    """Labels as a table of scans and classes.

    Args:
        matrix: ``[n k]``, 1 where a scan is of a class, 0 where it is not, -1 where nobody knows.
        task: "multiclass" and "ordinal" scans are of exactly one class, of two classes or more,
            and grades have an order; a "multilabel" scan has any number of findings.
        synthetic: ``[n]`` whether a scan was made by a program, which trains and is never tested,
            nor validated on; None where none was.
    """

    matrix: Int8[np.ndarray, "n k"]
    task: Task = "multiclass"
    synthetic: Bool[np.ndarray, " n"] | None = None

    @classmethod
    def of_classes(
        cls, y: Int[np.ndarray, " n"], num_classes: int, task: Task = "multiclass"
    ) -> Truth:
        """Returns the truth of scans that are of one class each."""
        return cls(one_hot(y, num_classes), task)

    def __len__(self) -> int:
        return len(self.matrix)

    def __getitem__(self, rows: np.ndarray) -> Truth:
        synthetic = None if self.synthetic is None else self.synthetic[rows]
        return Truth(self.matrix[rows], self.task, synthetic)

    @property
    def num_classes(self) -> int:
        """Classes, or findings."""
        return int(self.matrix.shape[1])

    @property
    def name(self) -> str:
        """The task as the field calls it: two classes were called "multiclass"."""
        return "binary" if self.task == "multiclass" and self.num_classes == 2 else self.task

    @property
    def is_exclusive(self) -> bool:
        """Whether a scan is of exactly one class."""
        return self.task != "multilabel"

    @property
    def classes(self) -> Int[np.ndarray, " n"]:
        """``[n]`` the class of each scan; only where it is of exactly one."""
        assert self.is_exclusive, "findings do not exclude each other"
        return np.asarray(self.matrix.argmax(axis=1))

    @property
    def is_real(self) -> Bool[np.ndarray, " n"]:
        """``[n]`` whether a scan is of a patient."""
        return np.ones(len(self), np.bool_) if self.synthetic is None else ~self.synthetic

    @property
    def asked(self) -> range:
        """Classes that are asked about one by one: of two that exclude each other the second."""
        return asked_classes(self.num_classes) if self.is_exclusive else range(self.num_classes)

    def known(self, code: int) -> Bool[np.ndarray, " n"]:
        """Returns of which scans it is known whether they are of a class."""
        return np.asarray(self.matrix[:, code] >= 0)

    def positives(self, code: int) -> Bool[np.ndarray, " n"]:
        """Returns which scans are known to be of a class."""
        return np.asarray(self.matrix[:, code] == 1)

    def of_finding(self, code: int) -> Truth:
        """Returns the two classes, without it and with it, of the scans of which it is known."""
        known = self[self.known(code)]
        return Truth(one_hot(known.positives(code).astype(np.int64), 2), synthetic=known.synthetic)

    @property
    def with_cuts(self) -> Truth:
        """The grades, and then whether a scan is of grade 1 or higher, of 2 or higher and so on."""
        assert self.task == "ordinal", "only grades have an order"
        cuts = at_or_above(self.matrix)
        return Truth(np.concatenate([self.matrix, cuts], axis=1), "multilabel", self.synthetic)

    @property
    def contrast(self) -> Bool[np.ndarray, " k"]:
        """``[k]`` whether a class has a scan that is of it and one that is not, as to learn it."""
        return np.asarray((self.matrix == 1).any(axis=0) & (self.matrix == 0).any(axis=0))

    def has_contrast(self) -> bool:
        """Whether some class has a scan that is of it and a scan that is not."""
        return bool(self.contrast.any())


def at_or_above(grades: Shaped[np.ndarray, "n k"]) -> Shaped[np.ndarray, "n c"]:
    """Returns, of a column for each grade, the sums from grade 1 on, from grade 2 on and so on."""
    return np.asarray(np.cumsum(grades[:, ::-1], axis=1, dtype=grades.dtype)[:, -2::-1])
