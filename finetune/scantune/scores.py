"""Out-of-fold class scores of one backbone, as fitting leaves them and statistics reads them."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Int8

from scanlearn.errors import ScanlearnError
from scanlearn.features.auroc import mean_of_defined
from scanlearn.files import write_atomically
from scantune.labels.truth import Truth

# 3 held tuned and linear scores of solvers that stopped early, and .5 for classes nobody taught.
_FORMAT = 4


class Caveat(NamedTuple):
    """What went wrong with one fit, in words, and whose it was."""

    learner: str
    budget: str
    label_seed: int
    text: str


class Validation(NamedTuple):
    """What a model's threshold was set on: rows of the labeled set, ``[v]``, and their scores."""

    rows: Int[np.ndarray, " v"]
    scores: Float[np.ndarray, "v k"]


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
        validation: Of each model, by its places in the axes l, g, j and f; empty where it was not
            kept, as in scores that were saved.
        refits: ``[l g a a k]`` mean AUROC over models of each class, by groups of patients: row g
            without group g in training, column h without it in test, the first without nothing.
            NaN for a learner that is not refitted; None with a given split, or where an earlier
            release did not.
        cut_refits: ``[l g a a k-1]`` the same of grades: of grade 1 or higher, of 2 or higher and
            so on; None where classes have no order, and as ``refits``.
        seed_refits: ``[l g j a a q]`` both over the models of each label seed, those of grades
            behind; None where an earlier release kept the mean alone.
        made_from: Hash of the weights, scans and labels that gave these scores; empty where
            nobody said.
        learned: ``[g j f k]`` whether a training subset has a scan of a class and one that is
            not. Where not, every score of the class is alike: it entered means as an AUROC of .5.
            None where all are learned.
        settings: Of each learner the settings that its scores depend on, as text; empty where
            nobody said.
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
    made_from: str = ""
    learned: Bool[np.ndarray, "g j f k"] | None = None
    validation: Mapping[tuple[int, int, int, int], Validation] = field(default_factory=dict)
    refits: Float[np.ndarray, "l g a a k"] | None = None
    cut_refits: Float[np.ndarray, "l g a a c"] | None = None
    seed_refits: Float[np.ndarray, "l g j a a q"] | None = None
    caveats: tuple[Caveat, ...] = ()
    settings: tuple[str, ...] = ()

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

    def is_learned(self, budget: str | int) -> Bool[np.ndarray, "j f k"]:
        """Returns of which classes a budget's subsets taught anything; others are undefined."""
        if self.learned is None:
            return np.ones((self.num_label_seeds, self.num_folds, len(self.classes)), np.bool_)
        return np.asarray(self.learned[self.budgets.index(str(budget))])

    def test_rows(
        self, label_seed: int, fold: int, code: int | None = None, budget: str | int | None = None
    ) -> Int[np.ndarray, " u"]:
        """Returns the rows that one fold tests; of one class, those of which it is known.

        With a budget none of them where its training subset did not teach the class.
        """
        is_tested = self.fold_of[label_seed] == fold
        if code is not None:
            is_tested = is_tested & self.truth.known(code)
            if budget is not None:
                is_tested &= self.is_learned(budget)[label_seed, fold, code]
        return np.flatnonzero(is_tested)

    def tested_truth(
        self, label_seed: int, fold: int, budget: str | int
    ) -> Int8[np.ndarray, "u q"]:
        """Returns the asked classes of the rows that one fold tests, -1 for a class not learned."""
        matrix = self.truth.matrix[self.test_rows(label_seed, fold)]
        learned = self.is_learned(budget)[label_seed, fold]
        return np.where(learned, matrix, np.int8(-1))[:, list(self.truth.asked)]

    def of(self, learner: str, budget: str | int) -> Float[np.ndarray, "j n k"]:
        """Returns the scores of a learner at a label budget; a ValueError if there are none."""
        return np.asarray(self.values[self._place(learner, budget)])

    def thresholds_of(self, learner: str, budget: str | int) -> Float[np.ndarray, "j f k"]:
        """Returns the thresholds of a learner at a budget; a ValueError if there are none."""
        return np.asarray(self.thresholds[self._place(learner, budget)])

    def is_subset(self, budget: str | int) -> bool:
        """Returns whether a label budget leaves out scans of some training fold."""
        used = self.train_scans[self.budgets.index(str(budget))]
        real = self.fold_of[:, self.truth.is_real]
        held = [(real != fold).sum(axis=1) for fold in range(self.num_folds)]
        return bool((used < np.stack(held, axis=1)).any())

    def validation_of(
        self, learner: str, budget: str | int, label_seed: int, fold: int
    ) -> Validation | None:
        """Returns what one model's threshold was set on; None where it was not kept."""
        return self.validation.get((*self._place(learner, budget), label_seed, fold))

    def refits_of(
        self, learner: str, budget: str | int, codes: Sequence[int]
    ) -> Float[np.ndarray, "a a"] | None:
        """Returns the mean of ``refits`` over classes; None where the learner was not refitted."""
        if self.refits is None:
            return None
        of_class = self.refits[self._place(learner, budget)][..., list(codes)]
        mean = mean_of_defined(np.moveaxis(of_class, -1, 0))
        return None if np.isnan(mean[0, 0]) else mean

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
        fields["made_from"] = np.array(self.made_from)
        fields |= {name: array for name in _OPTIONAL if (array := getattr(self, name)) is not None}
        fields["caveats"] = np.array(json.dumps(self.caveats))
        fields["settings"] = np.array(self.settings, dtype=np.str_)
        fields["digest"] = np.array(_digest(fields))
        content = io.BytesIO()
        np.savez_compressed(content, format=np.array(_FORMAT), **fields)
        write_atomically(Path(path), content.getvalue())

    @classmethod
    def load(cls, path: Path | str) -> Scores:
        """Returns scores written by ``save``.

        Raises:
            ScanlearnError: If the file is of another format, is damaged, or was changed.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                fields = {name: np.asarray(file[name]) for name in file.files}
            version = int(fields.pop("format"))
            if version == _FORMAT:
                return cls._of(fields)
            problem = f"has format {version}, and its scores differ from those of format {_FORMAT}"
        except Exception as error:  # of many unrelated classes, down to the tokenizer's
            problem = f"is damaged or no file of scores ({str(error) or type(error).__name__})"
        raise ScanlearnError(f"{path}: {problem}; delete the file to have it computed again")

    @classmethod
    def _of(cls, fields: dict[str, Any]) -> Scores:
        """Returns the scores that a file holds; a ValueError if they do not fit together."""
        if str(fields.pop("digest", None)) != _digest(fields):
            raise ValueError("it was changed after it was written")
        texts: dict[str, Any] = {name: tuple(str(t) for t in fields[name]) for name in _TEXTS}
        scores = cls(
            truth=Truth(fields["truth"], str(fields["task"])),  # type: ignore[arg-type]
            made_from=str(fields["made_from"]),
            **texts,
            **{name: fields[name] for name in _ARRAYS},
            **{name: fields[name] for name in _OPTIONAL if name in fields},
            caveats=tuple(Caveat(*each) for each in json.loads(str(fields.get("caveats", "[]")))),
            settings=tuple(str(text) for text in fields.get("settings", ())),
        )
        sizes = [len(scores.learners), len(scores.budgets), *scores.fold_of.shape]
        if scores.values.shape != (*sizes, len(scores.classes)):
            raise ValueError(f"its scores have shape {scores.values.shape}")
        if {len(scores.truth), len(scores.patients)} != {sizes[-1]}:
            raise ValueError("its labels or patients are not one for each scan")
        return scores


def are_kept(path: Path) -> bool:
    """Whether a file of scores is there; False for one of an earlier format, to be made again."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return int(file["format"]) >= _FORMAT
    except FileNotFoundError:
        return False
    except Exception:  # of many unrelated classes; `Scores.load` says what is wrong
        return True


def _digest(fields: Mapping[str, Any]) -> str:
    """Returns the sha256 of named arrays."""
    digest = hashlib.sha256()
    for name, array in sorted(fields.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


_TEXTS = ("learners", "budgets", "classes", "notes")
_ARRAYS = (
    *("patients", "fold_of", "values", "thresholds"),
    *("train_scans", "train_patients"),
)
_OPTIONAL = ("refits", "cut_refits", "seed_refits", "learned")
