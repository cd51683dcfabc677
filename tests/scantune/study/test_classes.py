from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from scantune.reports.writeup import class_effect_sentence
from scantune.scores import Scores
from scantune.study import classes
from scantune.study import results as r
from scantune.study.plan import CompareConfig


def of_arms(scores: Scores, task: str) -> dict[tuple[str, str], list[Scores]]:
    """Two pretraining seeds each of the arms of a tiny plan, whose scores are noisy copies."""

    def noisy(seed: int) -> Scores:
        noise = 0.1 * np.random.default_rng(seed).normal(size=scores.values.shape)
        return replace(scores, values=scores.values + noise)

    names = ("weak", "strong", "random")
    return {(task, arm): [noisy(3 * k), noisy(3 * k + 1)] for k, arm in enumerate(names)}


def plan_of(scores: Scores, plan: Callable[..., CompareConfig]) -> CompareConfig:
    learner, budget = scores.learners[0], scores.budgets[-1]
    evaluation = {"replicates": 200, "learners": [learner], "budgets": [budget]}
    primary: dict[str, Any] = {"learner": learner}
    return plan(tasks=["pallor"], evaluation=evaluation, primary=primary, seeds=[0, 1])


def test_each_class_has_the_mean_auroc_of_its_known_scans(
    finding_scores: Scores, plan: Callable[..., CompareConfig]
) -> None:
    scores = of_arms(finding_scores, "pallor")
    config = plan_of(finding_scores, plan)
    rows = classes.class_scores(config, scores, classes.class_cells(config, scores))
    assert [row.arm for row in rows][::3] == ["weak", "strong", "random"]
    for row in rows[:2]:
        code = finding_scores.classes.index(row.name)
        found = []
        for member in scores["pallor", row.arm]:
            values = member.of(config.primary.learner, finding_scores.budgets[-1])
            for seed, fold in np.ndindex(member.num_label_seeds, member.num_folds):
                tested = member.fold_of[seed] == fold
                tested &= member.truth.matrix[:, code] >= 0
                truth = member.truth.matrix[tested, code]
                found.append(roc_auc_score(truth, values[seed, tested, code]))
        assert row.auroc == pytest.approx(np.mean(found))
        assert row.low is not None
        assert row.high is not None
        assert row.low < row.auroc < row.high
        tested = (finding_scores.fold_of >= 0).any(axis=0)
        assert row.scans == (finding_scores.truth.matrix[tested, code] == 1).sum()
        assert row.negatives == (finding_scores.truth.matrix[tested, code] == 0).sum()


def test_a_class_that_the_pair_differs_in_alone_stands_apart(
    finding_scores: Scores, plan: Callable[..., CompareConfig]
) -> None:
    scores = of_arms(finding_scores, "pallor")
    config = plan_of(finding_scores, plan)
    cells = classes.class_cells(config, scores)
    alike = classes.class_effects(config, scores, cells)
    assert [each.name for each in alike] == [
        finding_scores.classes[code] for code in finding_scores.truth.asked
    ]
    for each, code in zip(alike, finding_scores.truth.asked, strict=True):
        a, b = ([e.auroc for e in cells[arm, code].estimates] for arm in ("weak", "strong"))
        assert each.difference == pytest.approx(np.mean(a) - np.mean(b))
    # Of one of its classes the other arm knows nothing.
    code = finding_scores.truth.asked[0]
    blind = []
    for seed, member in enumerate(scores["pallor", "strong"]):
        values = member.values.copy()
        values[..., code] = np.random.default_rng(seed).normal(size=values[..., code].shape)
        blind.append(replace(member, values=values))
    scores["pallor", "strong"] = blind
    apart = classes.class_effects(config, scores, classes.class_cells(config, scores))
    assert apart[0].p is not None
    assert apart[0].p < min(each.p for each in alike if each.p is not None)
    said = class_effect_sentence(
        [each.model_copy(update={"p": p}) for each, p in zip(apart, (0.01, 0.3), strict=False)]
    )
    assert f"in {apart[0].name}" in said or f"{apart[0].name} (" in said
    assert class_effect_sentence([]) == ""
    assert class_effect_sentence([each.model_copy(update={"p": 0.5}) for each in apart]).endswith(
        "is not shown (corrected p 0.5)."
    )


def test_roc_curves_are_those_of_the_models_averaged(
    finding_scores: Scores, plan: Callable[..., CompareConfig]
) -> None:
    scores = of_arms(finding_scores, "pallor")
    config = plan_of(finding_scores, plan)
    arms = [
        r.ArmRow(name="weak", kind="pretrained"),
        r.ArmRow(name="strong", kind="pretrained"),
        r.ArmRow(name="random", kind="random"),
    ]
    curves = classes.roc_curves(config, arms, scores)
    assert list(dict.fromkeys(curve.arm for curve in curves)) == ["weak", "strong", "random"]
    first = curves[0]
    code, drawn = finding_scores.classes.index(first.name), []
    at = np.linspace(0, 1, len(first.sensitivity))
    for member in scores["pallor", "weak"]:
        values = member.of(config.primary.learner, finding_scores.budgets[-1])
        for seed, fold in np.ndindex(member.num_label_seeds, member.num_folds):
            tested = (member.fold_of[seed] == fold) & (member.truth.matrix[:, code] >= 0)
            alarms, hits, _ = roc_curve(
                member.truth.matrix[tested, code], values[seed, tested, code]
            )
            drawn.append(np.interp(at, alarms, hits))
    assert first.sensitivity[1:] == pytest.approx(np.mean(drawn, axis=0)[1:], abs=1e-4)


def test_a_band_holds_patients_and_seeds_drawn_anew(
    finding_scores: Scores, plan: Callable[..., CompareConfig]
) -> None:
    scores = of_arms(finding_scores, "pallor")
    config = plan_of(finding_scores, plan)
    arms = [r.ArmRow(name=name, kind="random") for name in ("weak", "strong", "random")]
    curves = classes.roc_curves(config, arms, scores)
    # The primary pair alone has bands.
    assert {curve.arm for curve in curves if curve.low} == {"weak", "strong"}
    curve = next(curve for curve in curves if curve.arm == "weak")
    code = finding_scores.classes.index(curve.name)
    members = scores["pallor", "weak"]
    # A slow loop, with draws of its own, in the middle of the curve.
    rng, place, drawn = np.random.default_rng(1), len(curve.low) // 2, []
    patients = np.unique(finding_scores.patients)
    for _ in range(400):
        count = np.bincount(rng.choice(patients, len(patients)), minlength=len(patients))
        of_models = []
        for member in (members[seed] for seed in rng.integers(2, size=2)):
            values = member.of(config.primary.learner, finding_scores.budgets[-1])
            for seed, fold in np.ndindex(member.num_label_seeds, member.num_folds):
                tested = (member.fold_of[seed] == fold) & (member.truth.matrix[:, code] >= 0)
                tested &= count[member.patients] > 0
                alarms, hits, _ = roc_curve(
                    member.truth.matrix[tested, code],
                    values[seed, tested, code],
                    sample_weight=count[member.patients[tested]],
                )
                of_models.append(np.interp(0.5, alarms, hits))
        drawn.append(np.mean(of_models))
    low, high = np.quantile(drawn, (0.025, 0.975))
    assert curve.low[place] == pytest.approx(low, abs=0.03)
    assert curve.high[place] == pytest.approx(high, abs=0.03)
    assert all(a <= b for a, b in zip(curve.low, curve.high, strict=True))
