"""scantune scores backbones on small labeled sets and compares augmentation scales.

Every command of the command line is also a function of the same name:

Example:
    >>> from scantune import evaluate
    >>> evaluate("backbones/weak", "labels.csv", target="pneumonia")        # doctest: +SKIP

The folders and files, in the order in which a labeled scan meets them:

- `labels/`: label tables to labeled sets
- `splits.py`: patient folds, and label budgets nested in each other
- `learners/`: what is fitted on the labels, one row of a table each
- `scores.py`: out-of-fold scores, kept in a file
- `statistics/`: metrics and intervals from scores
- `scoring.py`: fits learners over folds and budgets and keeps their scores
- `evaluation/`: one backbone, one page
- `study/`: arms of several scales, scored on several tasks
- `reports/`: the page of a study
- `comparison/`: the commands that answer which scale is better
- `wording.py`: display names of learners and budgets
- `cli.py`: the commands
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

# Names are imported at first use: torch and timm take seconds, `scantune --help` must not.
_HOMES = {
    "CompareConfig": "scantune.study.plan",
    "compare": "scantune.comparison.compare",
    "difference": "scantune.comparison.difference",
    "evaluate": "scantune.evaluation.evaluate",
    "plan_summary": "scantune.comparison.dry_run",
    "predict": "scantune.evaluation.predict",
    "report": "scantune.reports.report",
    "SearchConfig": "scantune.comparison.search_plan",
    "search": "scantune.comparison.search",
}

if TYPE_CHECKING:
    from scantune.comparison.compare import compare
    from scantune.comparison.difference import difference
    from scantune.comparison.dry_run import plan_summary
    from scantune.comparison.search import search
    from scantune.comparison.search_plan import SearchConfig
    from scantune.evaluation.evaluate import evaluate
    from scantune.evaluation.predict import predict
    from scantune.reports.report import report
    from scantune.study.plan import CompareConfig

__all__ = [
    "CompareConfig",
    "SearchConfig",
    "compare",
    "difference",
    "evaluate",
    "plan_summary",
    "predict",
    "report",
    "search",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'scantune' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
