"""The answer in one sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scantune.study.plan import CompareConfig
from scantune.study.results import ArmRow, Difference, Matched, Primary, Score, Verdict
from scantune.wording import budget_name, learner_name


def state_verdict(
    config: CompareConfig,
    arms: Sequence[ArmRow],
    table: Sequence[Score],
    differences: Sequence[Difference],
    matched: Matched,
) -> Verdict:
    """Says what the primary comparison shows, and what it does not.

    Example of a sentence: "Weak (s = 0.5) is better than strong (s = 1): AUROC 0.842 against
    0.815, difference +0.027 (95 % interval 0.011 to 0.043), pneumonia, linear probe, all labels."
    """
    found = next(difference for difference in differences if difference.primary)
    named = {arm.name: f"{arm.name} ({arm.scale_text})" for arm in arms}
    a, b = named[found.a], named[found.b]
    claim = {
        "better": f"{a} is better than {b}",
        "worse": f"{a} is worse than {b}",
        "equivalent": f"{a} and {b} are equivalent within ±{config.margin:g}",
        "none": f"no difference shown between {a} and {b}",
    }[found.verdict]
    if not matched.ok:
        claim = f"the arms are not matched, so the dial alone may not explain it, but {claim}"
    setting = f"{found.task}, {learner_name(found.learner)}, {budget_name(found.budget)}"
    sentence = f"{_capital(claim)}: {_numbers(found, table)}, {setting}."
    if found.seeds == 1:
        sentence += " One pretraining seed: this speaks of these two networks only."
    primary = Primary(
        task=found.task, learner=found.learner, budget=found.budget, a=found.a, b=found.b
    )
    return Verdict(kind=found.verdict, sentence=sentence, primary=primary)


def _numbers(found: Difference, table: Sequence[Score]) -> str:
    aurocs: Mapping[str, float | None] = {
        score.arm: score.auroc
        for score in table
        if (score.task, score.learner, score.budget) == (found.task, found.learner, found.budget)
    }
    first, second = aurocs[found.a], aurocs[found.b]
    if None in (first, second, found.difference, found.low, found.high):
        return "the AUROC is undefined in some fold"
    assert first is not None
    assert second is not None
    assert found.difference is not None
    assert found.low is not None
    assert found.high is not None
    return (
        f"AUROC {first:.3f} against {second:.3f}, difference {signed(found.difference)} "
        f"(95 % interval {_minus(found.low)} to {_minus(found.high)})"
    )


def signed(value: float) -> str:
    """``+0.027`` or ``−0.027``, with a true minus."""
    return ("+" if value >= 0 else "−") + f"{abs(value):.3f}"


def _minus(value: float) -> str:
    return f"{value:.3f}".replace("-", "−")


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
