"""Display names of learners and label budgets, on pages, in figures and in the terminal."""

from __future__ import annotations

from scantune.learners.table import LEARNERS


def learner_name(learner: str) -> str:
    """Returns the learner in words; an unknown one as it is."""
    return LEARNERS[learner].title if learner in LEARNERS else learner


def budget_name(budget: str | int) -> str:
    """Returns the label budget in words."""
    return "all labels" if budget == "all" else f"{budget} labels"
