"""Which scans train and which test: never one patient on both sides, and nested label budgets.

A patient whose scans are of several classes, or who has several findings, counts as one of the
rarest of them, by scans: folds and budgets are stratified by that.

A synthetic scan follows the patient it names: it trains where that patient's scans do. Where it
names nobody who has a labeled scan it always trains. It is never tested, and no budget counts it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Int

from scanlearn.errors import ScanlearnError
from scantune.labels.labeled_set import LabeledSet
from scantune.labels.truth import Truth

Budget = int | Literal["all"]
# Folds within the training patients: what a penalty is chosen by, and when to stop.
INNER_FOLDS = 5
# One patient in five validates; an AUROC of fewer than ten of them would be a toss.
FEWEST_PATIENTS = 50
# Streams of the seeded generator: folds and subsets of one seed are independent.
_FOLDS, _BUDGETS, _GROUPS = 1, 2, 3


@dataclass(frozen=True)
class Fold:
    """One split of a labeled set.

    Args:
        train: Rows of the labeled set to fit on, ascending.
        test: Rows to score, ascending; none of their patients has a row in ``train``.
    """

    train: Int[np.ndarray, " t"]
    test: Int[np.ndarray, " u"]


@dataclass(frozen=True)
class Subset:
    """The training scans that a label budget allows.

    Args:
        rows: Rows of the labeled set, ascending; synthetic scans come on top of the budget.
        num_scans: Real scans among them; the last patient may carry it a little over the budget.
        is_short: Whether the training fold holds fewer real scans than were asked for.
    """

    rows: Int[np.ndarray, " t"]
    num_scans: int
    num_patients: int
    is_short: bool


def folds_of(labeled: LabeledSet, folds: int, seed: int) -> tuple[Fold, ...]:
    """Returns the folds of one label seed: the given split, or patients dealt by class.

    Raises:
        ScanlearnError: If they cannot be made.
    """
    if labeled.split is not None:
        fold = given_split(labeled.split, labeled.truth, labeled.patients, labeled.rows + 1)
        _check_trained(fold, labeled)
        return (fold,)
    return patient_folds(labeled.truth, labeled.patients, folds, seed)


def patient_folds(
    truth: Truth, patients: Int[np.ndarray, " n"], folds: int, seed: int
) -> tuple[Fold, ...]:
    """Returns folds stratified by class in which every real scan is tested once.

    A patient without any finding is dealt as one of those. A class that has at least as many
    patients as there are folds is in every fold, unless all of them also have a rarer class.

    Raises:
        ScanlearnError: If there are fewer patients than folds, or a fold would train on one
            class only.
    """
    real = np.flatnonzero(truth.is_real)
    num_patients = len(np.unique(patients[real]))
    if folds < 2:
        raise ScanlearnError(f"folds={folds} is too few; give 2 or more, or a split column")
    if num_patients < folds:
        raise ScanlearnError(
            f"folds={folds} needs at least {folds} patients with labels, but there "
            f"{'is' if num_patients == 1 else 'are'} {num_patients}; use fewer folds or label more "
            "patients"
        )
    generator = np.random.default_rng([seed, _FOLDS])
    fold_of = _deal(_strata(truth[real], patients[real]), folds, generator)
    result = tuple(
        Fold(_with_synthetic(real[fold_of != number], truth, patients), real[fold_of == number])
        for number in range(folds)
    )
    for number, fold in enumerate(result):
        assert_disjoint(fold, patients)
        if not len(fold.test) or not truth[fold.train].has_contrast():
            problem = "only one class to train on" if len(fold.test) else "no scan to test"
            raise ScanlearnError(
                f"folds={folds}: fold {number} has {problem}, because the classes have too few "
                "patients; use fewer folds or label more patients"
            )
    return result


def given_split(
    split: np.ndarray, truth: Truth, patients: Int[np.ndarray, " n"], rows: np.ndarray
) -> Fold:
    """Returns the fold that a column of ``train`` and ``test`` gives.

    Args:
        split: ``[n]`` str, "train" or "test"; synthetic scans train, whatever it is.
        rows: ``[n]`` int, the number by which a message may name each scan to a person.

    Raises:
        ScanlearnError: If a patient is on both sides, a side is empty, or one class only is
            left to train on.
    """
    is_real = truth.is_real
    fold = Fold(*(np.flatnonzero((split == side) & is_real) for side in ("train", "test")))
    for name, side in (("train", fold.train), ("test", fold.test)):
        if not len(side):
            raise ScanlearnError(
                f"the split column marks no labeled scan as {name}; mark some as train and some as "
                "test"
            )
    both = np.intersect1d(patients[fold.train], patients[fold.test])
    if len(both):
        first = fold.test[np.isin(patients[fold.test], both)][0]
        twins = fold.train[patients[fold.train] == patients[first]]
        raise ScanlearnError(
            f"row {rows[first]} is marked test, but row {rows[twins[0]]} of the same patient is "
            f"marked train: {len(both)} of {len(np.unique(patients[is_real]))} patients are on both"
            " sides; put all scans of a patient on one side"
        )
    fold = Fold(_with_synthetic(fold.train, truth, patients), fold.test)
    if not truth[fold.train].has_contrast():
        raise ScanlearnError(
            "the split column leaves only one class to train on; mark scans of another as train"
        )
    return fold


def _check_trained(fold: Fold, labeled: LabeledSet) -> None:
    """Refuses a class that is tested and never trained on; its AUROC of .5 entered the mean."""
    if not labeled.truth.is_exclusive:
        return
    trained, tested = (
        (labeled.truth.matrix[side] == 1).sum(axis=0) for side in (fold.train, fold.test)
    )
    for code in np.flatnonzero((trained == 0) & (tested > 0)).tolist():
        raise ScanlearnError(
            f"{labeled.target}: {tested[code]} scans of class {labeled.classes[code]} are marked "
            "test, but none is marked train, so no model can learn it; mark some as train, or "
            "leave their cells of the split column blank"
        )


def assert_disjoint(fold: Fold, patients: Int[np.ndarray, " n"]) -> None:
    """Asserts that no patient is on both sides; only our own code can bring that about."""
    both = np.intersect1d(patients[fold.train], patients[fold.test])
    assert not len(both), f"{len(both)} patients have scans in both train and test"


def patient_groups(
    truth: Truth, patients: Int[np.ndarray, " n"], groups: int
) -> Int[np.ndarray, " n"]:
    """Returns the group of each scan: patients dealt by class, as into folds; none is empty.

    A synthetic scan is in its patient's group; -1 is that of one whose patient has no other scan.
    """
    real = np.flatnonzero(truth.is_real)
    strata = _strata(truth[real], patients[real])
    dealt = _deal(strata, min(groups, len(strata.codes)), np.random.default_rng([0, _GROUPS]))
    group_of = np.full(int(patients.max()) + 1, -1)
    group_of[patients[real]] = dealt
    return np.asarray(group_of[patients])


def inner_folds(truth: Truth, patients: Int[np.ndarray, " t"], seed: int) -> tuple[Fold, ...]:
    """Returns folds of the training patients; none where there are too few."""
    try:
        num_patients = len(np.unique(patients[truth.is_real]))
        return patient_folds(truth, patients, min(INNER_FOLDS, num_patients), seed)
    except ScanlearnError:
        return ()


def hold_out(truth: Truth, patients: Int[np.ndarray, " t"], seed: int) -> Fold | None:
    """Returns training scans to fit on and to validate on, stratified, no patient in both.

    None where there are fewer than 50 patients, or no class has scans with and without it on both
    sides: then all of them are fitted on, to the last epoch.
    """
    if len(np.unique(patients[truth.is_real])) < FEWEST_PATIENTS:
        return None
    parts = inner_folds(truth, patients, seed)[:1]
    return next((part for part in parts if truth[part.test].has_contrast()), None)


def budget_rows(
    train: Int[np.ndarray, " t"],
    truth: Truth,
    patients: Int[np.ndarray, " n"],
    budget: Budget,
    seed: int,
) -> Subset:
    """Returns the training scans of a label budget: whole patients, in one seeded order.

    The order depends on the fold and the seed alone, so that the subset of a smaller budget lies
    within that of every larger one.

    Raises:
        ScanlearnError: If the budget is below 1 or leaves one class only.
    """
    real = train[truth.is_real[train]]
    if budget == "all":
        return Subset(np.sort(train), len(real), len(np.unique(patients[real])), is_short=False)
    if budget < 1:
        raise ScanlearnError(f"a label budget of {budget} is too small; give 1 or more, or all")
    order, sizes = _stratified_order(
        _strata(truth[real], patients[real]), np.random.default_rng([seed, _BUDGETS])
    )
    reached = np.cumsum(sizes)
    taken = order[: int(np.searchsorted(reached, budget)) + 1]
    chosen = real[np.isin(patients[real], taken)]
    rows = np.intersect1d(_with_synthetic(chosen, truth, patients), train)
    if not truth[rows].has_contrast():
        raise ScanlearnError(
            f"a label budget of {budget} leaves only one class to train on; give a larger one"
        )
    return Subset(rows, len(chosen), len(taken), is_short=bool(budget > reached[-1]))


def _with_synthetic(
    train: Int[np.ndarray, " t"], truth: Truth, patients: Int[np.ndarray, " n"]
) -> Int[np.ndarray, " s"]:
    """Returns training scans with the synthetic ones that may train beside them, ascending."""
    drawn = np.flatnonzero(~truth.is_real)
    named = patients[drawn]
    follows = np.isin(named, patients[train]) | ~np.isin(named, patients[truth.is_real])
    return np.sort(np.concatenate([train, drawn[follows]]))


@dataclass(frozen=True)
class _Strata:
    """Patients by class: a patient counts for the rarest of its classes.

    Where scans may be of no class, having none is one more.

    Args:
        inverse: ``[t]`` place in ``codes`` of each scan's patient.
        counts: ``[m k]`` scans of each patient and class; one of two findings is in both.
        by_rarity: ``[k]`` the classes, the one with fewest scans first.
        stratum: ``[m]`` the rarest class of each patient.
    """

    codes: Int[np.ndarray, " m"]
    inverse: Int[np.ndarray, " t"]
    sizes: Int[np.ndarray, " m"]
    counts: Int[np.ndarray, "m k"]
    by_rarity: Int[np.ndarray, " k"]
    stratum: Int[np.ndarray, " m"]


def _strata(truth: Truth, patients: Int[np.ndarray, " t"]) -> _Strata:
    codes, inverse = np.unique(patients, return_inverse=True)
    member = truth.matrix == 1
    member = np.column_stack([member, ~member.any(axis=1)])
    member = member[:, member.any(axis=0)]
    counts = np.zeros((len(codes), member.shape[1]), dtype=np.int64)
    np.add.at(counts, inverse, member)
    by_rarity = np.argsort(counts.sum(axis=0), kind="stable")
    stratum = by_rarity[np.argmax(counts[:, by_rarity] > 0, axis=1)]
    return _Strata(codes, inverse, np.bincount(inverse), counts, by_rarity, stratum)


def _deal(strata: _Strata, folds: int, generator: np.random.Generator) -> Int[np.ndarray, " t"]:
    """Returns the fold of each scan: patients dealt class by class, the largest first.

    Each goes to the fold with the fewest scans of its class so far, then with the fewest scans.
    """
    dealt = np.zeros((folds, strata.counts.shape[1]), dtype=np.int64)
    scans = np.zeros(folds, dtype=np.int64)
    fold_of = np.zeros(len(strata.codes), dtype=np.int64)
    for number in strata.by_rarity:
        members = generator.permutation(np.flatnonzero(strata.stratum == number))
        for patient in members[np.argsort(-strata.sizes[members], kind="stable")]:
            fold = int(np.lexsort((scans, dealt[:, number]))[0])
            fold_of[patient] = fold
            dealt[fold] += strata.counts[patient]
            scans[fold] += strata.sizes[patient]
    return np.asarray(fold_of[strata.inverse])


def _stratified_order(
    strata: _Strata, generator: np.random.Generator
) -> tuple[Int[np.ndarray, " m"], Int[np.ndarray, " m"]]:
    """Returns the patients in the order in which budgets take them, and their scans.

    Within a class patients are shuffled; classes are then interleaved by the share of their scans
    already taken, so that every beginning of the order holds the classes in about their
    proportions. One patient of each class comes first: without it a small budget may hold no
    positive at all.
    """
    sizes = strata.sizes
    share = np.empty(len(sizes))
    for number in range(len(strata.by_rarity)):
        members = generator.permutation(np.flatnonzero(strata.stratum == number))
        taken = np.cumsum(sizes[members])
        offset = generator.random()
        share[members] = (taken - offset * sizes[members]) / taken[-1:]
    order = np.argsort(share, kind="stable")
    first: list[int] = []
    for number in strata.by_rarity:
        if not strata.counts[first, number].any():
            first.append(int(order[np.argmax(strata.counts[order, number] > 0)]))
    rest = order[~np.isin(order, first)]
    order = np.concatenate([np.array(first, dtype=np.int64), rest])
    return strata.codes[order], sizes[order]
