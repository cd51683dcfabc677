from __future__ import annotations

from collections.abc import Callable

import pytest

from scantune.study.plan import CompareConfig
from scantune.study.results import ArmRow, Dial, Difference, Matched, Outcome, Score, Verdict
from scantune.study.verdict import signed, state_verdict

Plan = Callable[..., CompareConfig]
ARMS = [
    ArmRow(
        name=name,
        kind="pretrained",
        scale=Dial(crop=s, geometry=s, photometric=s, acquisition=0),
    )
    for name, s in (("weak", 0.5), ("strong", 1.0))
]


def state(
    config: CompareConfig,
    outcome: Outcome,
    *,
    seeds: int = 2,
    ok: bool = True,
    difference: float | None = 0.027,
) -> Verdict:
    found = Difference(
        task="pallor",
        learner="linear",
        budget="all",
        a="weak",
        b="strong",
        difference=difference,
        low=-0.011,
        high=0.043,
        p=0.1,
        p_holm=None,
        df=5.0,
        seeds=seeds,
        verdict=outcome,
        primary=True,
    )
    table = [
        Score(
            arm=arm,
            task="pallor",
            learner="linear",
            budget="all",
            auroc=auroc,
            low=0.7,
            high=0.9,
            per_seed=(auroc,),
            train_scans=24,
            train_patients=12,
            test_patients=24,
        )
        for arm, auroc in (("weak", 0.842), ("strong", 0.815))
    ]
    return state_verdict(config, ARMS, table, [found], Matched(ok=ok))


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
    plan: Plan, outcome: Outcome, claim: str
) -> None:
    verdict = state(plan(), outcome)
    assert verdict.kind == outcome
    assert verdict.sentence == (
        f"{claim}: AUROC 0.842 against 0.815, difference +0.027 "
        "(95 % interval −0.011 to 0.043), pallor, linear probe, all labels."
    )


def test_one_seed_is_said(plan: Plan) -> None:
    sentence = state(plan(), "better", seeds=1).sentence
    assert sentence.endswith("One pretraining seed: this speaks of these two networks only.")


def test_unmatched_arms_are_said_first(plan: Plan) -> None:
    assert state(plan(), "better", ok=False).sentence.startswith("The arms are not matched")


def test_an_undefined_difference_has_no_numbers(plan: Plan) -> None:
    assert "undefined in some fold" in state(plan(), "none", difference=None).sentence


def test_a_difference_has_a_true_sign() -> None:
    assert (signed(0.0274), signed(-0.0274)) == ("+0.027", "−0.027")
