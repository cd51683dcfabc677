from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import stdtrit

from scantune.labels.labeled_set import LabeledSet
from scantune.labels.truth import Truth
from scantune.scores import Scores
from scantune.scoring import score_features
from scantune.statistics.delong import class_difference
from scantune.statistics.intervals import estimate, paired_difference, patient_weights
from scantune.statistics.moderation import moderate
from scantune.study.plan import CompareConfig
from scantune.study.results import (
    ArmDifference,
    ArmRow,
    Dial,
    Matched,
    Outcome,
    Score,
    Verdict,
)
from scantune.study.summary import (
    comparisons,
    difference_rows,
    estimate_all,
    paired_rows,
    score_rows,
    signed,
    spreads,
    state_verdict,
)

Plan = Callable[..., CompareConfig]
PATIENTS = 60


def made_up(signal: float, seed: int, *, undefined: bool = False, draws: int = 1) -> Scores:
    """Scores of two scans a patient, in two folds, that separate the classes by ``signal``.

    Each further draw of labels gives every class score noise of its own.
    """
    rng = np.random.default_rng(7)
    n = 2 * PATIENTS
    y = np.zeros(n, dtype=np.int64) if undefined else rng.integers(0, 2, n)
    shared = rng.normal(size=n)
    noise = np.random.default_rng(seed).normal(size=n) * 0.1
    positive = y * signal + shared + noise
    patients = np.repeat(np.arange(PATIENTS), 2)
    every = positive + np.random.default_rng([seed, 1]).normal(size=(draws, n)) * (draws > 1)
    values = np.stack([-every, every], axis=-1)
    return Scores(
        learners=("linear", "knn"),
        budgets=("10", "all"),
        classes=("0", "1"),
        truth=Truth.of_classes(y, 2),
        patients=patients,
        fold_of=np.tile(patients % 2, (draws, 1)),
        values=np.tile(values, (2, 2, 1, 1, 1)),
        thresholds=np.full((2, 2, draws, 2, 2), 0.5),
        train_scans=np.array([10, 60])[:, None, None] + np.zeros((draws, 2), dtype=np.int64),
        train_patients=np.array([5, 30])[:, None, None] + np.zeros((draws, 2), dtype=np.int64),
    )


def scores_of(
    *, seeds: int = 2, draws: int = 1, **signal: float
) -> dict[tuple[str, str], list[Scores]]:
    found = {
        ("pallor", arm): [made_up(s, seed, draws=draws) for seed in range(seeds)]
        for arm, s in signal.items()
    }
    return found | {("pallor", "thumbnail"): [made_up(0.0, 9, draws=draws)]}


def test_the_primary_pair_is_compared_everywhere_and_others_once(plan: Plan) -> None:
    found = list(comparisons(plan(tasks=["pallor", "lesion"])))
    assert found[0] == (("pallor", "linear", "all"), "weak", "strong")
    assert len(found) == len(set(found))
    pairs = [(a, b) for _, a, b in found]
    assert pairs.count(("weak", "strong")) == 2 * 2 * 2
    assert pairs.count(("random", "weak")) == 2
    assert pairs.count(("strong", "thumbnail")) == 2
    assert len(found) == 8 + 2 * 2 + 3 * 2
    tuned = plan(evaluation={"learners": ["finetune"]}, primary={"learner": "finetune"})
    assert "thumbnail" not in {b for _, _, b in comparisons(tuned)}


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
    table = score_rows(config, estimates, scores)
    assert {s.arm for s in table} == {"weak", "strong", "random", "thumbnail"}
    cell = next(s for s in table if (s.arm, s.learner, s.budget) == ("weak", "linear", 10))
    assert (cell.train_scans, cell.train_patients, cell.test_patients) == (10, 5, PATIENTS)
    uncounted = score_rows(config, estimates, scores, [cell.task])
    assert {(s.train_patients, s.test_patients) for s in uncounted} == {(None, None)}
    assert len(cell.per_seed) == 2


@pytest.mark.parametrize(
    ("seeds", "draws", "outcome", "at_10", "holds_for"),
    [
        (3, 3, "better", "better", ""),
        (3, 1, "better", "higher", "on this draw of labels"),
        (1, 3, "higher", "higher", "in these two networks"),
        (1, 1, "higher", "higher", "in these two networks, on this draw of labels"),
    ],
)
def test_one_seed_or_one_draw_of_labels_is_never_called_better(
    plan: Plan, seeds: int, draws: int, outcome: Outcome, at_10: Outcome, holds_for: str
) -> None:
    config = plan()
    scores = scores_of(weak=3.0, strong=0.0, random=0.0, seeds=seeds, draws=draws)
    rows = difference_rows(config, estimate_all(config, scores), scores)
    primary, fewer = rows[0], next(d for d in rows if (d.learner, d.budget) == ("linear", 10))
    assert (primary.verdict, primary.label_draws) == (outcome, None)
    assert (fewer.verdict, fewer.label_draws, fewer.holds_for) == (at_10, draws, holds_for)
    assert {d.holds_for for d in rows if d.b == "thumbnail"} == {
        "in this network" if seeds == 1 else ""
    }


def test_the_thumbnail_is_paired_with_every_arm(plan: Plan) -> None:
    config = plan()
    scores = scores_of(weak=3.0, strong=0.5, random=0.0)
    rows = difference_rows(config, estimate_all(config, scores), scores)
    found = {d.a: d for d in rows if d.b == "thumbnail"}
    assert set(found) == {"weak", "strong", "random"}
    thumbnail, weak = (
        np.mean([auroc_of(one, draw) for one in scores["pallor", arm] for draw in (0,)])
        for arm in ("thumbnail", "weak")
    )
    assert found["weak"].difference == pytest.approx(weak - thumbnail)
    assert found["weak"].verdict == "better"


def auroc_of(scores: Scores, draw: int, folds: int = 2) -> float:
    """AUROC of the first learner and budget, the mean over folds, by counting pairs."""
    found = []
    for fold in range(folds):
        rows = scores.fold_of[draw] == fold
        values, y = scores.values[0, 0, draw, rows, 1], scores.truth.positives(1)[rows]
        found.append((values[y][:, None] > values[~y]).mean())
    return float(np.mean(found))


def test_seeds_and_subsets_are_moderated_over_pairs_of_trained_arms_alone(plan: Plan) -> None:
    arms = {"weak": 2.0, "strong": 1.0, "middle": 1.5, "random": 0.0}
    scales = {"weak": {"scale": 0.5}, "strong": {"scale": 1}, "middle": {"scale": 0.7}}
    config = plan(arms={**scales, "random": {"kind": "random"}})
    scores = scores_of(**arms, seeds=4, draws=3)
    found = spreads(config, estimate_all(config, scores), scores)
    aurocs = {
        arm: np.array([[auroc_of(one, draw) for draw in range(3)] for one in scores["pallor", arm]])
        for arm in (*arms, "thumbnail")
    }
    pairs = [("weak", "strong"), ("weak", "middle"), ("strong", "middle")]
    between = [np.var((aurocs[a] - aurocs[b]).mean(axis=1), ddof=1) for a, b in pairs]
    subsets = [np.var((aurocs[a] - aurocs[b]).mean(axis=0), ddof=1) for a, b in pairs]
    of_seeds, of_subsets = moderate(between, 3, 3)[0], moderate(subsets, 2, 2)[0]
    few = found[("pallor", "linear", 10), frozenset({"weak", "strong"})]
    assert few.seeds.variance == pytest.approx(of_seeds.variance / 4)
    assert few.seeds.df == of_seeds.df <= 6
    assert few.subsets.variance == pytest.approx(of_subsets.variance / 3)
    assert few.subsets.df == of_subsets.df <= 4
    every = found[("pallor", "linear", "all"), frozenset({"weak", "strong"})]
    assert (every.subsets.variance, every.subsets.df) == (0.0, np.inf)
    # One pair of untrained networks has nobody to learn from.
    untrained = found[("pallor", "linear", 10), frozenset({"random", "thumbnail"})]
    alone = np.var((aurocs["random"] - aurocs["thumbnail"]).mean(axis=1), ddof=1)
    assert untrained.seeds.variance == pytest.approx(alone / 4)
    assert untrained.seeds.df == 3
    assert found[("pallor", "linear", 10), frozenset({"thumbnail"})].seeds.variance == 0.0


def test_an_interval_of_few_draws_of_labels_holds_the_mean_over_thirty(plan: Plan) -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 2600)
    split, rows = np.repeat(["train", "test"], [600, 2000]), np.arange(2600)
    labeled = LabeledSet("pallor", ("0", "1"), Truth.of_classes(y, 2), rows, rows, split)
    traits = y[:, None] + rng.normal(size=(2600, 2))
    idle = [rng.normal(size=(2600, 10)), rng.normal(size=(2600, 10))]
    fits = {"learners": ("ncm",), "budgets": (10,), "label_seeds": 30}
    weak, strong = (
        score_features(np.concatenate([traits, own], axis=1).astype(np.float32), labeled, **fits)
        for own in idle
    )
    truth = np.mean(
        [auroc_of(weak, draw, folds=1) - auroc_of(strong, draw, folds=1) for draw in range(30)]
    )
    config = plan(
        evaluation={"learners": ["ncm"], "budgets": [10], "replicates": 500},
        primary={"learner": "ncm"},
        arms={"weak": {"scale": 0.5}, "strong": {"scale": 1}},
    )
    holds, held_at_hand = [], []
    for first in range(0, 30, 3):
        scores = {
            ("pallor", arm): [of_draws(one, first, 3)]
            for arm, one in (("weak", weak), ("strong", strong), ("thumbnail", strong))
        }
        estimates = estimate_all(config, scores)
        row = difference_rows(config, estimates, scores)[0]
        assert row.label_draws == 3
        holds.append(row.low < truth < row.high)
        pair = [estimates["pallor", "ncm", 10, arm] for arm in ("weak", "strong")]
        narrow = paired_difference(*pair)
        held_at_hand.append(narrow.low < truth < narrow.high)
    assert sum(holds) >= 9
    assert sum(held_at_hand) <= 8


def of_draws(scores: Scores, first: int, count: int) -> Scores:
    kept = slice(first, first + count)
    return replace(
        scores,
        fold_of=scores.fold_of[kept],
        values=scores.values[:, :, kept],
        thresholds=scores.thresholds[:, :, kept],
        learned=None if scores.learned is None else scores.learned[:, kept],
        train_scans=scores.train_scans[:, kept],
        train_patients=scores.train_patients[:, kept],
    )


def test_equivalence_is_corrected_for_the_number_of_comparisons(plan: Plan) -> None:
    config = plan(margin=0.05)
    scores = scores_of(weak=1.0, strong=1.01, random=0.98)
    rows = difference_rows(config, estimate_all(config, scores), scores)[1:]
    lies_within = [
        d for d in rows if d.low is not None and d.high is not None and max(-d.low, d.high) < 0.05
    ]
    assert lies_within
    for d in lies_within:
        assert d.p_equivalent is not None
        assert d.verdict == ("equivalent" if d.p_equivalent < 0.025 else "none")
    assert all(d.verdict != "equivalent" for d in rows if d not in lies_within)


def test_undefined_classes_of_a_fold_are_counted_in_the_table(plan: Plan) -> None:
    config = plan()
    scores = {key: [made_up(1, 0, undefined=True)] for key in scores_of(weak=1, strong=1, random=1)}
    table = score_rows(config, estimate_all(config, scores), scores)
    assert {row.undefined for row in table} == {2}


def test_equal_arms_are_never_called_different(plan: Plan) -> None:
    scores = scores_of(weak=0.5, strong=0.5, random=0.5)
    differences = difference_rows(plan(), estimate_all(plan(), scores), scores)
    found = {d.verdict for d in differences if d.b != "thumbnail"}
    assert found <= {"none", "equivalent"}


def test_an_undefined_auroc_is_no_difference_and_no_crash(plan: Plan) -> None:
    config = plan()
    scores = {key: [made_up(1, 0, undefined=True)] for key in scores_of(weak=1, strong=1, random=1)}
    estimates = estimate_all(config, scores)
    differences = difference_rows(config, estimates, scores)
    assert differences[0].difference is None
    assert all(d.verdict == "none" for d in differences)
    assert all(s.auroc is None for s in score_rows(config, estimates, scores))


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
        outcome: Outcome,
        *,
        seeds: int = 2,
        ok: bool = True,
        value: float | None = 0.027,
        label_draws: int | None = None,
    ) -> Verdict:
        primary = {"verdict": outcome, "seeds": seeds, "primary": True, "label_draws": label_draws}
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
    assert state("none", seeds=1, label_draws=1).sentence.endswith(
        "One label seed: this holds for this draw of labels only."
    )


def test_the_sentence_says_of_what_alone_it_speaks(state: State) -> None:
    found = state("higher", label_draws=1)
    claim = "Weak (s = 0.5) scores higher than strong (s = 1) on this draw of labels: AUROC 0.842"
    assert found.sentence.startswith(claim)
    assert found.holds_for == "on this draw of labels"


def test_unmatched_arms_are_said_first(state: State) -> None:
    lead = "The arms are not matched, so more than the dial may be at work; "
    assert state("better", ok=False).sentence.startswith(f"{lead}weak (s = 0.5) is better than")
    assert state("none", ok=False).sentence.startswith(f"{lead}no difference is shown between")
    assert state("none").sentence.startswith("No difference shown between")


def test_an_undefined_difference_has_no_numbers(state: State) -> None:
    assert "undefined in some fold" in state("none", value=None).sentence


def test_a_difference_has_a_true_sign() -> None:
    assert (signed(0.0274), signed(-0.0274)) == ("+0.027", "−0.027")


def test_too_few_patients_give_no_difference_but_a_reason(plan: Plan) -> None:
    config = plan()
    scores = scores_of(weak=2.0, strong=0.5, random=0.0)
    few = np.isin(np.arange(PATIENTS), [0, 1, 2, 3])
    few_scores = {}
    for key, members in scores.items():
        ill = few[members[0].patients].astype(np.int64)
        few_scores[key] = [replace(one, truth=Truth.of_classes(ill, 2)) for one in members]
    estimates = estimate_all(config, few_scores)
    differences = difference_rows(config, estimates, few_scores)
    table = score_rows(config, estimates, few_scores)
    assert all(row.low is None and "too few patients to say: 4 with" in row.note for row in table)
    assert all(d.low is None and d.p is None and d.verdict == "none" for d in differences)
    assert "too few patients to say: 4 with" in differences[0].note
    arms = [ArmRow(name=name, kind="random") for name in ("weak", "strong")]
    sentence = state_verdict(config, arms, table, differences, Matched(ok=True)).sentence
    assert "too few patients to say: 4 with" in sentence


def test_planned_looks_widen_the_interval_and_lower_the_level() -> None:
    scores = {
        ("pallor", arm): [made_up(signal, seed) for seed in (start, start + 1, start + 2)]
        for arm, signal, start in (("weak", 1.0, 1), ("strong", 0.9, 11), ("random", 0.5, 21))
    }
    compared = [(("pallor", "linear", "all"), "weak", "strong")]
    weights = patient_weights(scores["pallor", "weak"][0], replicates=300)
    estimates = {
        ("pallor", "linear", "all", arm): [estimate(s, "linear", "all", weights) for s in of_arm]
        for (_, arm), of_arm in scores.items()
    }
    one, looks = (
        paired_rows(compared, {"weak", "strong"}, estimates, scores, margin=0.01, alpha=alpha)[0]
        for alpha in (0.05, 0.02)
    )
    assert (one.level, looks.level) == (0.95, 0.98)
    assert looks.difference == one.difference
    assert one.df is not None
    widths = [(row.high or 0) - (row.low or 0) for row in (one, looks)]
    ratio = stdtrit(one.df, 0.99) / stdtrit(one.df, 0.975)
    assert widths[1] / widths[0] == pytest.approx(ratio)
