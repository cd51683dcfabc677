from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from scantune.reports.report import write as write_report
from scantune.scores import Scores
from scantune.study import results as r
from scantune.study.augmented import augmented_learners, finding_counts, learner_differences
from scantune.study.classes import class_cells, class_scores, of_class
from scantune.study.plan import CompareConfig
from scantune.study.summary import estimate_all

LEARNERS = ("finetune@none", "finetune@complex")


def noisy(scores: Scores, noise: tuple[float, float], seed: int) -> Scores:
    """One network's scores by two learners, which add noise to what is known."""
    values = scores.values[:1, -1:]
    drawn = np.random.default_rng(seed).normal(size=(2, *values.shape[1:]))
    strength = np.reshape(noise, (2,) + (1,) * (values.ndim - 1))
    return replace(
        scores,
        learners=LEARNERS,
        budgets=("all",),
        values=values + strength * drawn,
        thresholds=np.repeat(scores.thresholds[:1, -1:], 2, axis=0),
        train_scans=scores.train_scans[-1:],
        train_patients=scores.train_patients[-1:],
        learned=None,
        refits=None,
        cut_refits=None,
        seed_refits=None,
        caveats=(),
        settings=(),
    )


def auroc(scores: Scores, learner: str) -> float:
    """Mean over label seeds and folds of the mean over the findings that a fold can score."""
    values, folds = scores.of(learner, "all"), []
    for seed, fold in np.ndindex(scores.num_label_seeds, scores.num_folds):
        found = []
        for code in scores.truth.asked:
            rows = (scores.fold_of[seed] == fold) & (scores.truth.matrix[:, code] >= 0)
            truth = scores.truth.matrix[rows, code]
            if 0 < truth.sum() < len(truth):
                found.append(roc_auc_score(truth, values[seed, rows, code]))
        folds.append(np.mean(found))
    return float(np.mean(folds))


@pytest.fixture
def config(plan: Callable[..., CompareConfig]) -> CompareConfig:
    evaluation = {"replicates": 200, "learners": [*LEARNERS, "linear"], "budgets": ["all"]}
    primary: dict[str, Any] = {"learner": LEARNERS[0]}
    return plan(tasks=["pallor"], evaluation=evaluation, primary=primary, seeds=[0, 1, 2])


def test_augmentations_of_a_learner_are_compared_within_each_arm(
    config: CompareConfig, finding_scores: Scores
) -> None:
    assert augmented_learners(config) == (LEARNERS,)
    # Of a finding that has enough patients for an interval.
    edema = of_class(finding_scores, 0)
    scores = {
        ("pallor", arm): [noisy(edema, (0.1, 3.0), 9 * k + seed) for seed in range(3)]
        for k, arm in enumerate(("weak", "strong"))
    }
    estimates = estimate_all(config, scores)
    rows = learner_differences(config, estimates, scores)
    assert [(row.arm, row.a, row.b) for row in rows] == [
        (arm, "finetune@complex", "finetune@none") for arm in ("weak", "strong")
    ]
    for row in rows:
        members = scores["pallor", row.arm]
        expected = [auroc(each, row.a) - auroc(each, row.b) for each in members]
        assert row.difference == pytest.approx(np.mean(expected))
        assert row.low is not None
        assert row.high is not None
        assert row.low < row.difference < row.high < 0
    p, p_holm = ([getattr(row, name) for row in rows] for name in ("p", "p_holm"))
    smaller = min(2 * min(p), 1)
    assert p_holm == pytest.approx(
        [smaller if each == min(p) else max(each, smaller) for each in p]
    )


def test_findings_above_chance_are_those_whose_interval_is(
    config: CompareConfig, finding_scores: Scores
) -> None:
    scores = {("pallor", "weak"): [noisy(finding_scores, (0.1, 300.0), 1)]}
    primary = class_scores(config, scores, class_cells(config, scores))
    counts = finding_counts(config, scores, primary)
    assert [(row.arm, row.learner) for row in counts] == [("weak", name) for name in LEARNERS]
    assert {row.findings for row in counts} == {len(finding_scores.classes)}
    assert counts[0].above_chance == sum((row.low or 0) > 0.5 for row in primary) > 0
    # Noise alone tells no finding from chance.
    assert counts[1].above_chance == 0


def test_the_report_shows_both_tables(fake_results: r.Results, tmp_path: Path) -> None:
    none, complex_ = LEARNERS
    count = r.FindingCount(arm="weak", learner=none, findings=14, above_chance=9)
    difference = r.LearnerDifference(
        arm="weak", a=complex_, b=none, difference=0.02, low=-0.01, high=0.05, p=0.2, p_holm=0.4,
        seeds=3,
    )  # fmt: skip
    of_learners = {"finding_counts": (count,), "learner_differences": (difference,)}
    results = fake_results.model_copy(update=of_learners)
    (tmp_path / r.RESULTS_FILE).write_text(results.model_dump_json())
    page = write_report(tmp_path).read_text()
    assert '<a href="#tuning">' in page
    assert "9 of 14" in page
    assert "+0.020" in page
    assert "-0.010 to +0.050" in page
    assert (tmp_path / "findings.csv").read_text().splitlines()[1] == f"weak,{none},14,9"
    assert (tmp_path / "learner_differences.csv").read_text().count("\n") == 2
