"""The labeled set: which scans of an archive have a usable label, and whose they are."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int

from scanlearn.archive.count import Count, unknown_patients
from scanlearn.archive.identity import patient_codes
from scanlearn.errors import ScanlearnError
from scanlearn.tables.merge import JOINED, MERGED
from scanlearn.tables.reading import is_list, split_list
from scantune.labels.classes import Target, lists_findings, read_target
from scantune.labels.table import YES_OR_NO, LabelMatrix, LabelTable, NamedTable, clean
from scantune.labels.truth import Task, Truth

_SYNTHETIC = {**YES_OR_NO, "yes": 1, "no": 0}
_VALIDATION = ("val", "valid", "validation")
_NAMED_COLUMNS = 3
# Which scans are tested: those of folds, of a split that is given, or of an external test set.
Design = Literal["folds", "split", "test"]


@dataclass(frozen=True)
class LabeledSet:
    """The scans with a label for one target.

    Args:
        patients: ``[n]`` patient of each scan, as a code from 0.
        rows: ``[n]`` row of each scan in its archive, ascending from 0.
        split: ``[n]`` str "train" or "test", or None where no split was given.
        num_blank: Scans left out because their label is blank, of findings each.
        num_uncertain: Scans left out because their label, -1 beside 0 and 1, says "uncertain".
        uncertain: ``k`` numbers of findings: scans here of which -1 makes it unknown.
        sources: ``[n]`` archive of each scan: 0 the labels', 1 the external test set's; None where
            there is one archive.
        is_unknown: ``[n]`` whether nobody knows the patient, so that the scan, or its file,
            counts as one; None where all are known.
        is_compared: Whether a patient of both archives would have been recognised.
    """

    target: str
    classes: tuple[str, ...]
    truth: Truth
    patients: Int[np.ndarray, " n"]
    rows: Int[np.ndarray, " n"]
    split: np.ndarray | None = None
    num_blank: int = 0
    num_uncertain: int = 0
    uncertain: tuple[int, ...] = ()
    sources: Int[np.ndarray, " n"] | None = None
    notes: tuple[str, ...] = ()
    is_unknown: Bool[np.ndarray, " n"] | None = None
    is_compared: bool = True

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, places: np.ndarray) -> LabeledSet:
        return replace(
            self,
            truth=self.truth[places],
            patients=self.patients[places],
            rows=self.rows[places],
            split=None if self.split is None else self.split[places],
            sources=None if self.sources is None else self.sources[places],
            is_unknown=None if self.is_unknown is None else self.is_unknown[places],
        )

    @property
    def num_scans(self) -> int:
        """Labeled scans of patients."""
        return int(self.truth.is_real.sum())

    @property
    def num_synthetic(self) -> int:
        """Labeled scans made by a program, which are only trained on."""
        return len(self) - self.num_scans

    @property
    def num_patients(self) -> int:
        """Patients with at least one labeled scan; a scan of an unknown one counts as one."""
        return len(np.unique(self.patients[self.truth.is_real]))

    @property
    def design(self) -> Design:
        """Which scans are tested."""
        if self.sources is not None:
            return "test"
        return "folds" if self.split is None else "split"

    def count(self, side: Bool[np.ndarray, " n"] | None = None) -> Count:
        """Returns how many scans of how many patients there are, of all or of those of a side."""
        side = self.truth.is_real if side is None else side & self.truth.is_real
        return Count.of(self.patients[side], self.unknown_patients[side])

    @property
    def unknown_patients(self) -> Bool[np.ndarray, " n"]:
        """``[n]`` whether nobody knows the patient."""
        known = np.zeros(len(self.patients), np.bool_)
        return known if self.is_unknown is None else self.is_unknown

    @property
    def counts(self) -> dict[str, int]:
        """Scans of each class."""
        return self._count(1)

    @property
    def unknown(self) -> dict[str, int]:
        """Scans of which each finding is unknown, blank or uncertain; none of a class."""
        return self._count(-1)

    def _count(self, value: int) -> dict[str, int]:
        counts = (self.truth.matrix[self.truth.is_real] == value).sum(axis=0)
        return dict(zip(self.classes, counts.tolist(), strict=True))

    def gathered(
        self,
        of: Callable[[int, Int[np.ndarray, " u"]], np.ndarray],
        places: np.ndarray | None = None,
    ) -> np.ndarray:
        """Returns what is computed archive by archive, a row per scan in the order of the scans.

        Args:
            of: Computes ``[u ...]`` of one archive, given its number in ``sources`` and rows.
            places: ``[m]`` rows of this set; None for all.
        """
        places = np.arange(len(self)) if places is None else places
        if self.sources is None:
            return of(0, self.rows[places])
        result: np.ndarray | None = None
        for source in np.unique(self.sources[places]):
            is_here = self.sources[places] == source
            part = of(int(source), self.rows[places[is_here]])
            if result is None:
                result = np.empty((len(places), *part.shape[1:]), part.dtype)
            # Texts of another archive may be longer.
            result = result.astype(np.promote_types(result.dtype, part.dtype), copy=False)
            result[is_here] = part
        return of(0, self.rows[:0]) if result is None else result


def read_labels(
    table: LabelTable,
    target: Target,
    *,
    classes: Sequence[str] | None = None,
    ordinal: bool = False,
    multilabel: bool | None = None,
    split_column: str | None = None,
    synthetic_column: str | None = None,
    source: str | None = None,
    notes: Collection[str] = (),
) -> LabeledSet:
    """Returns the scans that have a label for one target.

    A target is a column of classes, whose distinct values they are (see `classes.read_classes`);
    several columns of a finding each, 0, 1, -1 where a report is not sure, or blank; or one
    column that lists findings, as ``A|B``, ``A;B`` or ``['A', 'B']``. Scans without
    a label, blank or -1 beside 0 and 1, are left out and counted. A finding that is unknown of a
    scan is masked and counted; a scan of which all are unknown is left out.

    Args:
        multilabel: Whether the column lists findings; None: where some value is such a list.
        split_column: A column of "train" and "test", or None; "val" is trained on too.
        source: What a message calls the table; None takes the name of its folder.
        notes: What was noted when the scans were packed, of several rows of one scan too.

    Raises:
        ScanlearnError: If a column is missing, a label is outside its values, or all labels are
            blank or of one class.
    """
    named = NamedTable(table, source or table.path.name, is_numbered=MERGED not in notes)
    if not multilabel:
        columns = [target] if isinstance(target, str) else target
        _refuse_joined(named, [name for name in columns if f"{JOINED} {name}" in notes])
    task = _task(named, target, ordinal=ordinal, multilabel=multilabel)
    if classes is not None and not isinstance(target, str):
        raise ScanlearnError(
            "classes chooses among the values of one column, but target names several; name the "
            "columns in the order wanted and leave classes out"
        )
    labels = read_target(named, target, task, classes=classes)
    labeled = label(named, labels, target, task, synthetic_column=synthetic_column)
    return labeled if split_column is None else _with_split(named, labeled, split_column)


def _refuse_joined(named: NamedTable, columns: Sequence[str]) -> None:
    """Refuses lists that were made of several rows: findings, or a contradiction, who knows."""
    for column in columns:
        for row, text in enumerate(named.texts(column)):
            if text is not None and is_list(text):
                first, second = split_list(text)[:2]
                raise ScanlearnError(
                    f"{named.where(row)}: rows of this scan say '{first}' and '{second}' in "
                    f"'{column}'; correct the table, or give multilabel=true if a scan may have "
                    "several"
                )


def label(
    named: NamedTable,
    labels: LabelMatrix,
    target: Target,
    task: Task,
    *,
    synthetic_column: str | None,
) -> LabeledSet:
    """Returns the scans of which something is known.

    Raises:
        ScanlearnError: All scans are without a label or of one class.
    """
    title = target_title(target)
    is_labeled = np.asarray((labels.matrix >= 0).any(axis=1))
    rows = np.flatnonzero(is_labeled)
    if not len(rows):
        raise ScanlearnError(
            f"{named.name}: column '{title}' has no label 0 or 1 in all {len(is_labeled)} scans; "
            "name a column that has labels"
        )
    synthetic = None
    if synthetic_column is not None:
        synthetic = _read_synthetic(named, synthetic_column)[rows]
    truth = Truth(labels.matrix[rows], task, synthetic)
    real = truth[truth.is_real]
    if not real.has_contrast():
        which = labels.classes[int(np.argmax((real.matrix == 1).sum(axis=0)))]
        problem = (
            f"holds one class only, '{which}', in all {len(real)} labeled scans; at least two are"
            if real.is_exclusive
            else f"has no finding that some of {len(real)} labeled scans have and others have not; "
            "at least one is"
        )
        raise ScanlearnError(f"{named.name}: column '{title}' {problem} needed")
    is_uncertain = labels.uncertain.any(axis=1)
    num_uncertain = int((is_uncertain & ~is_labeled).sum())
    patients = np.asarray(named.table.patients)[rows]
    is_unknown = unknown_patients(
        np.asarray(named.table.scan_ids)[rows], patients, is_known=named.table.patients_known
    )
    return LabeledSet(
        target=title,
        classes=labels.classes,
        truth=truth,
        patients=patient_codes(patients),
        rows=rows,
        num_blank=len(is_labeled) - len(rows) - num_uncertain,
        num_uncertain=num_uncertain,
        uncertain=tuple(labels.uncertain[rows].sum(axis=0).tolist()),
        is_unknown=is_unknown if is_unknown.any() else None,
    )


def target_title(target: Target) -> str:
    """Returns what a target is called."""
    if isinstance(target, str):
        return target
    if len(target) <= _NAMED_COLUMNS:
        return ", ".join(target)
    return f"{', '.join(target[:_NAMED_COLUMNS])} and {len(target) - _NAMED_COLUMNS} more"


def _task(named: NamedTable, target: Target, *, ordinal: bool, multilabel: bool | None) -> Task:
    several = not isinstance(target, str)
    if ordinal and (multilabel or several):
        raise ScanlearnError(
            "ordinal=true is for one column of grades, and several columns or multilabel=true are "
            "for findings; give one of them"
        )
    if several and multilabel is False:
        raise ScanlearnError(
            "multilabel=false is for one column of classes, but target names several; name one"
        )
    if ordinal:
        return "ordinal"
    if multilabel is None:
        multilabel = not isinstance(target, str) or lists_findings(named, target)
    return "multilabel" if multilabel else "multiclass"


def _read_synthetic(named: NamedTable, column: str) -> Bool[np.ndarray, " n"]:
    marks = np.zeros(len(named.table), np.bool_)
    for row, value in enumerate(named.raw(column)):
        text = clean(value)
        if text is not None and text.lower() not in _SYNTHETIC:
            raise ScanlearnError(
                f"{named.where(row)}: '{value}' in '{column}' does not say whether the scan is "
                "synthetic; write 1, true or yes if it is, and 0, false, no or nothing if not"
            )
        marks[row] = text is not None and _SYNTHETIC[text.lower()]
    return marks


def _with_split(named: NamedTable, labeled: LabeledSet, column: str) -> LabeledSet:
    values = named.raw(column)
    sides = np.array([str(clean(values[row])).lower() for row in labeled.rows])
    is_validation = np.isin(sides, _VALIDATION)
    sides[is_validation] = "train"
    for place, side in enumerate(sides):
        where, is_real = named.where(int(labeled.rows[place])), labeled.truth.is_real[place]
        if side == "test" and not is_real:
            raise ScanlearnError(
                f"{where}: split column '{column}' is test for a synthetic scan, which may only "
                "train; write train, or remove the synthetic mark"
            )
        if side not in ("train", "test") and is_real:
            value = "blank" if side == "none" else f"'{values[labeled.rows[place]]}'"
            raise ScanlearnError(
                f"{where}: split column '{column}' is {value}, not train or test; give every "
                "labeled scan one of the two"
            )
    note = (
        f"{int(is_validation.sum()):,} scans that '{column}' marks as validation are used for "
        "training: settings are chosen on inner folds of the training patients"
    )
    notes = (*labeled.notes, note) if is_validation.any() else labeled.notes
    return replace(labeled, split=sides, notes=notes)


def scorable(labeled: LabeledSet) -> LabeledSet:
    """Returns the set with findings of a single patient masked, which no fold can test.

    A fold that trains on such a finding has none to test, and its AUROC is undefined; one that
    tests it has none to train on, and its AUROC would be .5 whatever the backbone. Of a given split
    the findings are masked in the test scans that are alike in all training scans.

    Raises:
        ScanlearnError: If it is a class of scans that are of one class each.
    """
    truth, patients = labeled.truth, labeled.patients
    if labeled.split is not None:
        return _without_untrained(labeled, labeled.split)
    if labeled.num_patients == 1:
        raise ScanlearnError(
            f"{labeled.target}: all {labeled.num_scans} labeled scans are of one patient, who "
            "cannot be both trained on and tested; label scans of more patients"
        )
    alone = lone_classes(truth, patients)
    if alone and truth.is_exclusive:
        names = ", ".join(labeled.classes[code] for code in alone)
        raise ScanlearnError(
            f"{labeled.target}: only one patient has class {names}, so no fold can both train on "
            "it and test it; label more patients, or leave those scans blank"
        )
    matrix, notes = truth.matrix.copy(), list(labeled.notes)
    absent = () if truth.is_exclusive else lone_classes(truth, patients, 0)
    for value, codes, verb in ((1, alone, "has"), (0, absent, "is known to be without")):
        for code in codes:
            matrix[(truth.matrix[:, code] == value) & truth.is_real, code] = -1
            notes.append(
                f"only one patient {verb} {labeled.classes[code]}: no fold can both train on that "
                "and test it, so these scans are masked"
            )
    masked = Truth(matrix, truth.task, truth.synthetic)
    return replace(labeled, truth=masked, notes=tuple(notes))


def _without_untrained(labeled: LabeledSet, split: np.ndarray) -> LabeledSet:
    """Masks findings of test scans that no model can learn; classes are checked with the split."""
    truth = labeled.truth
    is_trained = truth[(split == "train") | ~truth.is_real].contrast
    is_tested = truth.is_real & (split == "test")
    codes = np.flatnonzero(~is_trained & (truth.matrix[is_tested] >= 0).any(axis=0))
    if truth.is_exclusive or not len(codes):
        return labeled
    matrix = truth.matrix.copy()
    matrix[np.ix_(is_tested, codes)] = -1
    notes = tuple(
        f"{labeled.classes[code]} is the same in all training scans that are labeled for it, so no "
        "model can learn it: it is masked in the test scans"
        for code in codes.tolist()
    )
    masked = Truth(matrix, truth.task, truth.synthetic)
    return replace(labeled, truth=masked, notes=(*labeled.notes, *notes))


def lone_classes(
    truth: Truth, patients: Int[np.ndarray, " n"], value: Literal[0, 1] = 1
) -> tuple[int, ...]:
    """Returns the classes that one patient alone has: no fold can train on such and test it.

    Args:
        value: 0 for those that one patient alone is known not to have.
    """
    is_such = (truth.matrix == value) & truth.is_real[:, None]
    counts = [len(np.unique(patients[column])) for column in is_such.T]
    return tuple(code for code, count in enumerate(counts) if count == 1)
