"""Out-of-fold scores of a labeled set, by every learner at every label budget."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from scanlearn.errors import ScanlearnError
from scanlearn.features.auroc import auroc_replicates, mean_of_defined
from scantune.labels.labeled_set import LabeledSet
from scantune.labels.truth import Truth, at_or_above
from scantune.learners.by_name import frozen_learner
from scantune.learners.learner import Fit, Learner
from scantune.learners.table import FROZEN_LEARNERS
from scantune.scores import Scores, Validation
from scantune.splits import Budget, budget_rows, folds_of, patient_groups
from scantune.statistics.metrics import thresholds_of

# Groups of patients that refits leave out, one after the other.
REFIT_GROUPS = 20


def score_features(
    features: Shaped[np.ndarray, "n d"],
    labeled: LabeledSet,
    *,
    learners: Sequence[str] = ("knn", "linear"),
    budgets: Sequence[Budget] = ("all",),
    folds: int = 5,
    label_seeds: int = 3,
    on_fit: Callable[[], object] | None = None,
) -> Scores:
    """Returns out-of-fold scores of frozen features, by options of `score_learners`.

    Args:
        features: ``[n d]``, a row per scan of ``labeled``.
        learners: Names of `FROZEN_LEARNERS`.

    Raises:
        ScanlearnError: If a feature is not finite, a learner is unknown, or as `score_learners`.
    """
    check_features(features, labeled)
    for learner in learners:
        if learner not in FROZEN_LEARNERS:
            raise ScanlearnError(
                f"learner '{learner}' is unknown; choose from {', '.join(FROZEN_LEARNERS)}"
            )
    return score_learners(
        {name: frozen_learner(name, features, labeled) for name in learners},
        labeled,
        budgets=budgets,
        folds=folds,
        label_seeds=label_seeds,
        on_fit=on_fit,
    )


def score_learners(
    learners: Mapping[str, Learner],
    labeled: LabeledSet,
    *,
    budgets: Sequence[Budget] = ("all",),
    folds: int = 5,
    label_seeds: int = 3,
    on_fit: Callable[[], object] | None = None,
) -> Scores:
    """Returns out-of-fold scores for every learner, label budget, label seed and fold.

    Folds and subsets depend on labels, patients and the label seed alone: arms that share a
    labeled set share them. With a given split there is one fold and only the subsets vary. A class
    that a subset does not teach, because all or none of its scans have it, is marked as such.

    Args:
        labeled: Classes and patients of the scans, as `scorable` leaves them.
        folds: Patient-level folds; not used where the split is given.
        label_seeds: Repetitions, seeded 0, 1, ...: other folds, other subsets.
        on_fit: Called after each model, ``len(learners) * len(budgets) * label_seeds * folds``
            times, to show progress.

    Raises:
        ScanlearnError: If an option is empty or unknown, folds cannot be made, or a score is NaN.
    """
    _check_request(learners, budgets, label_seeds)
    plan = [folds_of(labeled, folds, seed) for seed in range(label_seeds)]
    n, k, num_folds = len(labeled), len(labeled.classes), len(plan[0])
    fold_of = np.full((label_seeds, n), -1, dtype=np.int64)
    values = np.full((len(learners), len(budgets), label_seeds, n, k), np.nan)
    thresholds = np.full((len(learners), len(budgets), label_seeds, num_folds, k), np.nan)
    used = np.zeros((2, len(budgets), label_seeds, num_folds), dtype=np.int64)
    learned = np.zeros((len(budgets), label_seeds, num_folds, k), np.bool_)
    caveats: Counter[tuple[str, str]] = Counter()
    validation: dict[tuple[int, int, int, int], Validation] = {}
    short: dict[Budget, int] = {}
    groups = patient_groups(labeled.truth, labeled.patients, REFIT_GROUPS)
    # Row 0 keeps every scan, row g all but those of group g.
    keeps = np.arange(-1, groups.max() + 1)[:, None] != groups
    keeps[0] = True
    refitted: dict[tuple[int, int], list[Float[np.ndarray, "a a q"]]] = {}
    questions = k + (k - 1) * (labeled.truth.task == "ordinal")
    refits = np.full((len(learners), len(budgets), len(keeps), len(keeps), questions), np.nan)
    for seed, parts in enumerate(plan):
        for number, fold in enumerate(parts):
            fold_of[seed, fold.test] = number
            for place, budget in enumerate(budgets):
                subset = budget_rows(fold.train, labeled.truth, labeled.patients, budget, seed)
                used[:, place, seed, number] = subset.num_scans, subset.num_patients
                taught = learned[place, seed, number] = labeled.truth[subset.rows].contrast
                if subset.is_short:
                    short[budget] = max(short.get(budget, 0), subset.num_scans)
                for index, (name, learner) in enumerate(learners.items()):
                    fit = learner(subset.rows, fold.test, seed)
                    _check_scores(fit.scores, f"{name} with {budget} labels, fold {number}")
                    values[index, place, seed, fold.test] = fit.scores
                    limits = thresholds_of(fit.validation, labeled.truth[subset.rows])
                    thresholds[index, place, seed, number] = np.where(taught, limits, np.nan)
                    caveats.update((name, caveat) for caveat in _caveats(fit, taught))
                    if num_folds > 1 and fit.refit is not None:
                        refitted.setdefault((index, place), []).append(
                            _refitted(fit, labeled.truth, subset.rows, fold.test, keeps)
                        )
                    scored = ~np.isnan(fit.validation).all(axis=1)
                    kept = Validation(subset.rows[scored], fit.validation[scored])
                    validation[index, place, seed, number] = kept
                    if on_fit is not None:
                        on_fit()
    for cell, of_models in refitted.items():
        refits[cell] = mean_of_defined(np.array(of_models))
    return Scores(
        learners=tuple(learners),
        budgets=tuple(str(budget) for budget in budgets),
        classes=labeled.classes,
        truth=labeled.truth,
        patients=labeled.patients,
        fold_of=fold_of,
        values=values,
        thresholds=thresholds,
        train_scans=used[0],
        train_patients=used[1],
        refits=refits[..., :k] if num_folds > 1 else None,
        cut_refits=refits[..., k:] if num_folds > 1 and questions > k else None,
        notes=(
            *(
                f"a budget of {budget} labels is larger than the training folds (at most {most} "
                "scans) and equals all"
                for budget, most in short.items()
            ),
            *_not_learned(labeled, budgets, learned),
            *(
                f"{name}: in {count} of {learned[..., 0].size} fits {caveat}"
                for (name, caveat), count in caveats.items()
            ),
        ),
        learned=learned,
        validation=validation,
    )


def _refitted(
    fit: Fit,
    truth: Truth,
    train: Int[np.ndarray, " t"],
    test: Int[np.ndarray, " u"],
    keeps: Bool[np.ndarray, "a n"],
) -> Float[np.ndarray, "a a q"]:
    """Returns one model's AUROC of each class as `Scores.refits` has it, then of each cut."""
    assert fit.refit is not None
    asked = truth if truth.task != "ordinal" else truth.with_cuts
    aurocs = np.full((len(keeps), len(keeps), asked.num_classes), np.nan)
    for place, group in enumerate(keeps):
        trained = group[train]
        if not truth[train[trained]].has_contrast():
            continue
        # A group with no patient in this training set changes nothing.
        scores = fit.scores if trained.all() else fit.refit(trained)
        if truth.task == "ordinal":
            scores = np.concatenate([scores, at_or_above(scores)], axis=1)
        for code in np.flatnonzero(asked[train[trained]].contrast).tolist():
            known = asked.known(code)[test]
            rows = test[known]
            aurocs[place, :, code] = auroc_replicates(
                scores[known, code], asked.positives(code)[rows], keeps[:, rows]
            )
    return aurocs


def _caveats(fit: Fit, taught: Bool[np.ndarray, " k"]) -> Iterator[str]:
    """Yields what went wrong with one fit, in words."""
    yield from fit.caveats
    if len(fit.scores) > 1 and (np.ptp(fit.scores[:, taught], axis=0) == 0).any():
        yield (
            "all test scans have the same score for a class, so that its AUROC is .5: the features "
            "tell the learner nothing"
        )


def _not_learned(
    labeled: LabeledSet, budgets: Sequence[Budget], learned: Bool[np.ndarray, "g j f k"]
) -> Iterator[str]:
    """Yields, for each budget, the classes that some training subsets could not teach."""
    subsets = learned[0, ..., 0].size
    for budget, missing in zip(budgets, (~learned).sum(axis=(1, 2)), strict=True):
        counts = [
            f"{labeled.classes[code]} ({missing[code]} of {subsets})"
            for code in np.flatnonzero(missing * labeled.truth.contrast)
        ]
        if counts:
            yield (
                f"with {budget} labels some training subsets have no scan with a class, or none "
                f"without it: {', '.join(counts)}; its AUROC is undefined there and left out"
            )


def check_features(features: Shaped[np.ndarray, "n d"], labeled: LabeledSet) -> None:
    """Raises a ScanlearnError unless every labeled scan has finite features."""
    if len(features) != len(labeled):
        raise ValueError(f"{len(features)} rows of features for {len(labeled)} labeled scans")
    broken = ~np.isfinite(features).all(axis=1)
    if broken.any():
        raise ScanlearnError(
            f"the features of {int(broken.sum())} of {len(features)} scans are not finite, first "
            f"in row {int(labeled.rows[np.argmax(broken)]) + 1}; the backbone's weights are broken"
        )


def _check_scores(scores: Float[np.ndarray, "u k"], which: str) -> None:
    broken = int((~np.isfinite(scores)).any(axis=1).sum())
    if broken:
        raise ScanlearnError(
            f"{which}: {broken} of {len(scores)} test scans have scores that are not finite: the "
            "training diverged; lower tune.learning_rate, or leave the learner out"
        )


def _check_request(
    learners: Mapping[str, Learner], budgets: Sequence[Budget], label_seeds: int
) -> None:
    for budget in budgets:
        if budget != "all" and (not isinstance(budget, int) or budget < 1):
            raise ScanlearnError(
                f"budgets: '{budget}' is not a number of scans; give 1 or more, or all"
            )
    numbers = {"learners": len(learners), "budgets": len(budgets), "label_seeds": label_seeds}
    for name, number in numbers.items():
        if number < 1:
            raise ScanlearnError(f"{name} is empty; give at least one")
