from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scantune.study.plan import CompareConfig

TINY: dict[str, Any] = {
    "unlabeled": "phantom:patients=8,seed=3,size=48x48",
    "labels": "phantom:patients=24,seed=4,size=48x48",
    "tasks": ["pallor"],
    "arms": {"weak": {"scale": 0.5}, "strong": {"scale": 1}, "random": {"kind": "random"}},
    "seeds": [0],
    "pretrain": {
        "backbone": {"name": "test_resnet"},
        "views": {"size": 32},
        "batch_size": 8,
        "steps": 2,
        "device": "cpu",
    },
    "evaluation": {"budgets": [10, "all"], "folds": 2, "label_seeds": 1, "replicates": 200},
}


@pytest.fixture
def plan(tmp_path: Path) -> Callable[..., CompareConfig]:
    """Makes a tiny plan whose top-level keys may be replaced; its output is below tmp_path."""

    def make(**replaced: Any) -> CompareConfig:
        return CompareConfig.model_validate({**TINY, "output": str(tmp_path / "study"), **replaced})

    return make
