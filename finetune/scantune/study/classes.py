"""Each class at the primary task, learner and label budget: its scores and ROC curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from jaxtyping import Float

from scanlearn.console import track
from scantune.labels.truth import Truth
from scantune.scores import Scores
from scantune.statistics.curves import band_over_seeds, roc
from scantune.statistics.interaction import interaction
from scantune.statistics.intervals import (
    Component,
    Estimate,
    arm_interval,
    estimate,
    patient_weights,
)
from scantune.statistics.metrics import OneVsRest, mean_metrics, score_metrics
from scantune.statistics.moderation import moderate
from scantune.study.plan import CompareConfig
from scantune.study.results import ArmRow, ClassEffect, ClassScore, RocCurve
from scantune.study.summary import finite

# Beside the AUROC; the threshold of the last two was set on training patients.
KEPT = ("auprc", "sensitivity", "specificity")
# More curves than these cannot be told apart.
_MOST_CLASSES = 12
_EVERY = 2
_BAND_REPLICATES = 200

Members = Mapping[tuple[str, str], Sequence[Scores]]
_Key = TypeVar("_Key", bound=tuple[object, ...])


def of_class(scores: Scores, code: int) -> Scores:
    """Returns the scores of one class against all others, which may be unknown of a scan."""
    truth = scores.truth
    return replace(
        scores,
        classes=(scores.classes[code],),
        truth=Truth(truth.matrix[:, [code]], "multilabel", truth.synthetic),
        values=scores.values[..., [code]],
        thresholds=scores.thresholds[..., [code]],
        learned=None if scores.learned is None else scores.learned[..., [code]],
        refits=None if scores.refits is None else scores.refits[..., [code]],
        validation={},
    )


@dataclass(frozen=True)
class ClassCell:
    """One class of one arm at the primary task and label budget, by one learner.

    Args:
        estimates: One per pretraining seed.
        metrics: Mean over seeds, label seeds and folds.
    """

    estimates: list[Estimate]
    metrics: dict[str, float]


ClassCells = Mapping[tuple[str, int], ClassCell]


def class_cells(
    config: CompareConfig, scores: Members, learner: str | None = None
) -> dict[tuple[str, int], ClassCell]:
    """Returns the cells by arm and class; of two classes the second alone is asked about.

    Args:
        learner: None for that of the primary comparison.
    """
    task, budget = config.primary_task, config.primary_budget
    learner = learner or config.primary.learner
    arms = {arm: members for (of, arm), members in scores.items() if of == task}
    arms = {arm: members for arm, members in arms.items() if learner in members[0].learners}
    cells: dict[tuple[str, int], ClassCell] = {}
    first = next(iter(arms.values()))[0]
    weights = patient_weights(first, replicates=config.evaluation.replicates)
    with track(len(arms) * len(first.truth.asked), "scoring classes") as progress:
        for arm, members in arms.items():
            for code in first.truth.asked:
                alone = [of_class(member, code) for member in members]
                cells[arm, code] = ClassCell(
                    [estimate(each, learner, budget, weights) for each in alone],
                    mean_metrics([_metrics(each, learner, str(budget)) for each in alone]),
                )
                progress.advance()
    return cells


def class_scores(
    config: CompareConfig, scores: Members, cells: ClassCells
) -> tuple[ClassScore, ...]:
    """Returns a row per class and arm; what seeds add is moderated over the arms, by class."""
    first = scores[config.primary_task, next(iter(cells))[0]][0]
    between = between_seeds(
        {key: [each.auroc for each in cell.estimates] for key, cell in cells.items()}
    )
    rows = []
    is_tested = (first.fold_of >= 0).any(axis=0)
    for (arm, code), cell in cells.items():
        interval = arm_interval(cell.estimates, between_seeds=between.get((arm, code)))
        is_positive, is_known = first.truth.positives(code), first.truth.known(code)
        rows.append(
            ClassScore(
                arm=arm,
                name=first.classes[code],
                scans=int((is_tested & is_positive).sum()),
                negatives=int((is_tested & is_known & ~is_positive).sum()),
                auroc=finite(interval.estimate),
                low=finite(interval.low),
                high=finite(interval.high),
                scores={name: finite(cell.metrics[name]) for name in KEPT},
                note=interval.note,
            )
        )
    return tuple(rows)


def class_effects(
    config: CompareConfig, scores: Members, cells: ClassCells
) -> tuple[ClassEffect, ...]:
    """Returns the primary pair's difference in each class, and whether it is another's.

    Nothing where one class alone is asked about.
    """
    a, b = config.primary.better, config.primary.than
    codes = [code for arm, code in cells if arm == a and (b, code) in cells]
    if len(codes) < 2:
        return ()
    first = scores[config.primary_task, a][0]
    sides = [[cells[arm, code].estimates for code in codes] for arm in (a, b)]
    seeds = max(len(members) for side in sides for members in side)
    # What has no seed, such as a given backbone, stands beside each seed of the other arm.
    of_a, of_b = (
        [list(members) * (seeds if len(members) == 1 else 1) for members in side] for side in sides
    )
    contrasts = interaction(of_a, of_b, draws_subsets=first.is_subset(config.primary_budget))
    return tuple(
        ClassEffect(
            name=first.classes[code],
            a=a,
            b=b,
            difference=finite(each.difference),
            p=finite(each.p),
            seeds=seeds,
        )
        for code, each in zip(codes, contrasts, strict=True)
    )


def _metrics(alone: Scores, learner: str, budget: str) -> dict[str, float]:
    """Returns the metrics of one class, mean over label seeds and folds."""
    values, thresholds = alone.of(learner, budget), alone.thresholds_of(learner, budget)
    positives, folds = alone.truth.positives(0), []
    for seed, fold in np.ndindex(alone.num_label_seeds, alone.num_folds):
        rows = alone.test_rows(seed, fold, 0, budget)
        threshold = float(thresholds[seed, fold, 0])
        folds.append(score_metrics(OneVsRest(values[seed, rows, 0], positives[rows], threshold)))
    return mean_metrics(folds)


def between_seeds(values: Mapping[_Key, Sequence[float]]) -> dict[_Key, Component]:
    """Returns what pretraining seeds add to each cell of several of them, moderated over arms.

    Args:
        values: A value per seed for each cell; its key is its arm, and what it shares with others.
    """
    several = {key: of_seed for key, of_seed in values.items() if len(of_seed) > 1}
    if not several:
        return {}
    (n,) = {len(of_seed) for of_seed in several.values()}
    num_arms = len({key[0] for key in several})
    variances = [float(np.var(of_seed, ddof=1)) for of_seed in several.values()]
    places = [key[1:] for key in several]
    known = moderate(variances, n - 1, (num_arms - 1) * (n - 1), places)
    return {
        key: Component(each.variance / n, each.df) for key, each in zip(several, known, strict=True)
    }


def roc_curves(
    config: CompareConfig, arms: Sequence[ArmRow], scores: Members
) -> tuple[RocCurve, ...]:
    """Returns the ROC curves of the primary pair and the references, mean over models and seeds.

    Those of the pair have a band over patients and pretraining seeds.
    """
    task, learner, budget = config.primary_task, config.primary.learner, config.primary_budget
    pair = (config.primary.better, config.primary.than)
    others = [arm.name for arm in arms if arm.kind != "pretrained" and arm.name not in pair]
    curves = []
    for arm in (*pair, *others):
        members = scores.get((task, arm), ())
        if not members or learner not in members[0].learners:
            continue
        # Several bands on each other could not be read, and cost a second each.
        replicates = min(_BAND_REPLICATES, config.evaluation.replicates) if arm in pair else 0
        weights = patient_weights(members[0], replicates=replicates)
        for code in list(members[0].truth.asked)[:_MOST_CLASSES]:
            drawn = band_over_seeds(roc, members, learner, str(budget), code, weights)
            if np.isfinite(drawn.mean).all():
                name = members[0].classes[code]
                mean, low, high = map(_points, (drawn.mean, drawn.low, drawn.high))
                curves.append(RocCurve(arm=arm, name=name, sensitivity=mean, low=low, high=high))
    return tuple(curves)


def _points(curve: Float[np.ndarray, " g"]) -> tuple[float, ...]:
    """Returns every second point of a curve; nothing of one that is undefined."""
    if not np.isfinite(curve).all():
        return ()
    return tuple(round(float(value), 4) for value in curve[::_EVERY])
