from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from scantune.comparison.plan import CompareConfig
from scantune.comparison.results import (
    ArmDifference,
    ArmRow,
    Dial,
    Matched,
    Outcome,
    Score,
    Verdict,
)
from scantune.comparison.summary import (
    comparisons,
    difference_rows,
    estimate_all,
    score_rows,
    signed,
    state_verdict,
)
from scantune.labels.truth import Truth
from scantune.scores import Scores
from scantune.statistics.delong import class_difference

Plan = Callable[..., CompareConfig]
PATIENTS = 60


def made_up(signal: float, seed: int, *, undefined: bool = False) -> Scores:
    """Scores of two scans a patient, in two folds, that separate the classes by ``signal``."""
    rng = np.random.default_rng(7)
    n = 2 * PATIENTS
    y = np.zeros(n, dtype=np.int64) if undefined else rng.integers(0, 2, n)
    shared = rng.normal(size=n)
    noise = np.random.default_rng(seed).normal(size=n) * 0.1
    positive = y * signal + shared + noise
    patients = np.repeat(np.arange(PATIENTS), 2)
    values = np.stack([-positive, positive], axis=-1)
    return Scores(
        learners=("linear", "knn"),
        budgets=("10", "all"),
        classes=("0", "1"),
        truth=Truth.of_classes(y, 2),
        patients=patients,
        fold_of=(patients % 2)[None],
        values=np.tile(values, (2, 2, 1, 1, 1)),
        thresholds=np.full((2, 2, 1, 2, 2), 0.5),
        train_scans=np.full((2, 1, 2), 60),
        train_patients=np.full((2, 1, 2), 30),
    )


def scores_of(**signal: float) -> dict[tuple[str, str], list[Scores]]:
    found = {("pallor", arm): [made_up(s, seed) for seed in (0, 1)] for arm, s in signal.items()}
    return found | {("pallor", "thumbnail"): [made_up(0.0, 9)]}


def test_the_primary_pair_is_compared_everywhere_and_others_once(plan: Plan) -> None:
    found = list(comparisons(plan(tasks=["pallor", "lesion"])))
    assert found[0] == (("pallor", "linear", "all"), "weak", "strong")
    assert len(found) == len(set(found))
    pairs = [(a, b) for _, a, b in found]
    assert pairs.count(("weak", "strong")) == 2 * 2 * 2
    assert pairs.count(("random", "weak")) == 2
    assert len(found) == 8 + 2 * 2


def test_a_planted_difference_is_found_and_corrected(plan: Plan) -> None:
    config = plan()
    scores = scores_of(weak=2.0, strong=0.5, random=0.0)
    estimates = estimate_all(config, scores)
    differences = difference_rows(config, estimates, scores)
    assert differences[0].primary
    assert differences[0].verdict == "better"
    assert differences[0].p_holm is None
    rest = differences[1:]
    assert all(d.p_holm is not None and d.p is not None and d.p_holm >= d.p for d in rest)
    table = score_rows(estimates, scores)
    assert {s.arm for s in table} == {"weak", "strong", "random", "thumbnail"}
    cell = next(s for s in table if (s.arm, s.learner, s.budget) == ("weak", "linear", 10))
    assert (cell.train_scans, cell.train_patients, cell.test_patients) == (60, 30, PATIENTS)
    assert len(cell.per_seed) == 2


def test_equal_arms_are_never_called_different(plan: Plan) -> None:
    scores = scores_of(weak=0.5, strong=0.5, random=0.5)
    differences = difference_rows(plan(), estimate_all(plan(), scores), scores)
    assert {d.verdict for d in differences} <= {"none", "equivalent"}


def test_an_undefined_auroc_is_no_difference_and_no_crash(plan: Plan) -> None:
    config = plan()
    scores = {key: [made_up(1, 0, undefined=True)] for key in scores_of(weak=1, strong=1, random=1)}
    estimates = estimate_all(config, scores)
    differences = difference_rows(config, estimates, scores)
    assert differences[0].difference is None
    assert all(d.verdict == "none" for d in differences)
    assert all(s.auroc is None for s in score_rows(estimates, scores))


def test_a_given_split_is_tested_by_delong_too_and_folds_are_not(plan: Plan) -> None:
    config = plan()
    folded = scores_of(weak=2.0, strong=0.5, random=0.0)
    split = {
        key: [
            replace(
                one,
                fold_of=one.fold_of - 1,
                train_scans=one.train_scans[..., :1],
                train_patients=one.train_patients[..., :1],
                thresholds=one.thresholds[:, :, :, :1],
            )
            for one in members
        ]
        for key, members in folded.items()
    }
    (found, *_), (none, *_) = (
        difference_rows(config, estimate_all(config, scores), scores) for scores in (split, folded)
    )
    arms = (split["pallor", arm] for arm in ("weak", "strong"))
    assert found.delong_p == class_difference(*arms, "linear", "all", 1).p
    assert found.delong_p is not None
    assert found.delong_p < 0.01
    assert none.delong_p is None


State = Callable[..., Verdict]


@pytest.fixture
def state(
    plan: Plan, score: Callable[..., Score], difference: Callable[..., ArmDifference]
) -> State:
    """States the verdict on weak against strong of so many seeds."""
    dials = {s: Dial(crop=s, geometry=s, photometric=s, acquisition=0) for s in (0.5, 1.0)}
    arms = [
        ArmRow(name=name, kind="pretrained", scale=dials[s])
        for name, s in (("weak", 0.5), ("strong", 1.0))
    ]
    table = [score(a, x, low=0.7, high=0.9) for a, x in (("weak", 0.842), ("strong", 0.815))]

    def make(
        outcome: Outcome, *, seeds: int = 2, ok: bool = True, value: float | None = 0.027
    ) -> Verdict:
        primary = {"verdict": outcome, "seeds": seeds, "primary": True}
        found = difference(value, -0.011, 0.043, **primary)
        return state_verdict(plan(), arms, table, [found], Matched(ok=ok))

    return make


@pytest.mark.parametrize(
    ("outcome", "claim"),
    [
        ("better", "Weak (s = 0.5) is better than strong (s = 1)"),
        ("worse", "Weak (s = 0.5) is worse than strong (s = 1)"),
        ("equivalent", "Weak (s = 0.5) and strong (s = 1) are equivalent within ±0.01"),
        ("none", "No difference shown between weak (s = 0.5) and strong (s = 1)"),
    ],
)
def test_the_sentence_states_claim_numbers_and_setting(
    state: State, outcome: Outcome, claim: str
) -> None:
    verdict = state(outcome)
    assert verdict.kind == outcome
    assert verdict.sentence == (
        f"{claim}: AUROC 0.842 against 0.815, difference +0.027 "
        "(95 % interval −0.011 to 0.043), pallor, linear probe, all labels."
    )


def test_one_seed_is_said(state: State) -> None:
    sentence = state("better", seeds=1).sentence
    assert sentence.endswith("One pretraining seed: this holds for these two networks only.")


def test_unmatched_arms_are_said_first(state: State) -> None:
    assert state("better", ok=False).sentence.startswith("The arms are not matched")


def test_an_undefined_difference_has_no_numbers(state: State) -> None:
    assert "undefined in some fold" in state("none", value=None).sentence


def test_a_difference_has_a_true_sign() -> None:
    assert (signed(0.0274), signed(-0.0274)) == ("+0.027", "−0.027")
