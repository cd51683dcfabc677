"""scantune scores backbones on small labeled sets and compares arms with honest statistics."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

# Names are imported at first use: torch and timm take seconds, `scantune --help` must not.
_HOMES = {
    "CompareConfig": "scantune.study.plan",
    "compare": "scantune.comparison",
    "evaluate": "scantune.evaluation",
    "predict": "scantune.prediction",
}

if TYPE_CHECKING:
    from scantune.comparison import compare
    from scantune.evaluation import evaluate
    from scantune.prediction import predict
    from scantune.study.plan import CompareConfig

__all__ = ["CompareConfig", "compare", "evaluate", "predict"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'scantune' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)
