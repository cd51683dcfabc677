from __future__ import annotations

from scantune.learners.table import LEARNERS
from scantune.wording import budget_name, learner_name


def test_every_learner_has_a_name_in_words() -> None:
    names = [learner_name(learner) for learner in LEARNERS]
    assert len(set(names)) == len(names)
    assert not set(names) & set(LEARNERS)


def test_an_unknown_learner_keeps_its_name() -> None:
    assert learner_name("forest") == "forest"


def test_a_budget_is_told_in_labels() -> None:
    assert [budget_name(budget) for budget in ("all", 50, "50")] == [
        "all labels",
        "50 labels",
        "50 labels",
    ]
