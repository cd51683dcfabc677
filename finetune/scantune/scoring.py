"""Out-of-fold scores of a labeled set, by every learner at every label budget."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from scanlearn.errors import ScanlearnError
from scanlearn.features.auroc import auroc_replicates, mean_of_defined
from scantune.labels.labeled_set import LabeledSet
from scantune.labels.truth import Truth, at_or_above
from scantune.learners.by_name import frozen_learner
from scantune.learners.learner import Fit, Learner
from scantune.learners.table import FROZEN_LEARNERS
from scantune.scores import Caveat, Scores, Validation
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
    label_seeds: int | Sequence[int] = 3,
    on_fit: Callable[[], object] | None = None,
) -> Scores:
    """Returns out-of-fold scores for every learner, label budget, label seed and fold.

    Folds and subsets depend on labels, patients and the label seed alone: arms that share a
    labeled set share them. With a given split there is one fold and only the subsets vary. A class
    that a subset does not teach, because all or none of its scans have it, is marked as such.

    Args:
        labeled: Classes and patients of the scans, as `scorable` leaves them.
        folds: Patient-level folds; not used where the split is given.
        label_seeds: Repetitions, seeded 0, 1, ...: other folds, other subsets; or their seeds.
        on_fit: Called after each model, ``len(learners) * len(budgets) * label_seeds * folds``
            times, to show progress.

    Raises:
        ScanlearnError: If an option is empty or unknown, folds cannot be made, or a score is NaN.
    """
    seeds = range(label_seeds) if isinstance(label_seeds, int) else label_seeds
    _check_request(learners, budgets, len(seeds))
    plan = [folds_of(labeled, folds, seed) for seed in seeds]
    n, k, num_folds = len(labeled), len(labeled.classes), len(plan[0])
    fold_of = np.full((len(seeds), n), -1, dtype=np.int64)
    shape = (len(learners), len(budgets), len(seeds))
    values = np.full((*shape, n, k), np.nan)
    thresholds = np.full((*shape, num_folds, k), np.nan)
    used = np.zeros((2, *shape[1:], num_folds), dtype=np.int64)
    learned = np.zeros((*shape[1:], num_folds, k), np.bool_)
    caveats: list[Caveat] = []
    validation: dict[tuple[int, int, int, int], Validation] = {}
    groups = patient_groups(labeled.truth, labeled.patients, REFIT_GROUPS)
    # Row 0 keeps every scan, row g all but those of group g.
    keeps = np.arange(-1, groups.max() + 1)[:, None] != groups
    keeps[0] = True
    refitted: dict[tuple[int, int, int], list[Float[np.ndarray, "a a q"]]] = {}
    questions = k + (k - 1) * (labeled.truth.task == "ordinal")
    seed_refits = np.full((*shape, len(keeps), len(keeps), questions), np.nan)
    for at, (seed, parts) in enumerate(zip(seeds, plan, strict=True)):
        for number, fold in enumerate(parts):
            fold_of[at, fold.test] = number
            for place, budget in enumerate(budgets):
                subset = budget_rows(fold.train, labeled.truth, labeled.patients, budget, seed)
                used[:, place, at, number] = subset.num_scans, subset.num_patients
                taught = learned[place, at, number] = labeled.truth[subset.rows].contrast
                for index, (name, learner) in enumerate(learners.items()):
                    fit = learner(subset.rows, fold.test, seed)
                    _check_scores(fit.scores, f"{name} with {budget} labels, fold {number}")
                    values[index, place, at, fold.test] = fit.scores
                    limits = thresholds_of(fit.validation, labeled.truth[subset.rows])
                    thresholds[index, place, at, number] = np.where(taught, limits, np.nan)
                    texts = _caveats(fit, taught)
                    caveats += [Caveat(name, str(budget), seed, text) for text in texts]
                    if num_folds > 1 and fit.refit is not None:
                        refitted.setdefault((index, place, at), []).append(
                            _refitted(fit, labeled.truth, subset.rows, fold.test, keeps)
                        )
                    scored = ~np.isnan(fit.validation).all(axis=1)
                    kept = Validation(subset.rows[scored], fit.validation[scored])
                    validation[index, place, at, number] = kept
                    if on_fit is not None:
                        on_fit()
    for cell, of_models in refitted.items():
        seed_refits[cell] = mean_of_defined(np.array(of_models))
    has_refits, refits = num_folds > 1, mean_of_defined(np.moveaxis(seed_refits, 2, 0))
    scores = Scores(
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
        refits=refits[..., :k] if has_refits else None,
        cut_refits=refits[..., k:] if has_refits and questions > k else None,
        seed_refits=seed_refits if has_refits else None,
        caveats=tuple(caveats),
        learned=learned,
        validation=validation,
    )
    return replace(scores, notes=notes_of(scores))


def notes_of(scores: Scores) -> tuple[str, ...]:
    """Returns what a reader should know of the budgets, the subsets and the fits, as sentences."""
    subsets = scores.train_scans[0].size
    fits = Counter((caveat.learner, caveat.text) for caveat in scores.caveats)
    return (
        *_too_large(scores),
        *_not_learned(scores),
        *(
            f"{name}: in {count} of {len(scores.budgets) * subsets} fits {text}"
            for (name, text), count in fits.items()
        ),
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


def _too_large(scores: Scores) -> Iterator[str]:
    """Yields, of each budget that some training fold cannot fill, that it takes all of it."""
    for budget, used in zip(scores.budgets, scores.train_scans, strict=True):
        short = used[used < int(budget)] if budget != "all" else used[:0]
        if short.size:
            yield (
                f"a budget of {budget} labels is larger than the training folds (at most "
                f"{short.max()} scans) and equals all"
            )


def _not_learned(scores: Scores) -> Iterator[str]:
    """Yields, for each budget, the classes that some training subsets could not teach."""
    for budget in scores.budgets:
        learned = scores.is_learned(budget)
        missing = (~learned).sum(axis=(0, 1))
        counts = [
            f"{scores.classes[code]} ({missing[code]} of {learned[..., 0].size})"
            for code in np.flatnonzero(missing * scores.truth.contrast)
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
