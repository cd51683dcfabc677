"""What a page, a figure and the terminal call learners and label budgets."""

from __future__ import annotations

_LEARNERS = {
    "knn": "kNN",
    "linear": "linear probe",
    "sgd": "SGD probe",
    "lpft": "LP-FT",
    "finetune": "fine-tuning",
    "batchnorm": "BatchNorm only",
    "scratch": "from scratch",
}


def learner_name(learner: str) -> str:
    """Returns the learner in words; an unknown one as it is."""
    return _LEARNERS.get(learner, learner)


def budget_name(budget: str | int) -> str:
    """Returns the label budget in words."""
    return "all labels" if budget == "all" else f"{budget} labels"
