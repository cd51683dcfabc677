"""scantune scores backbones on small labeled sets and compares arms with honest statistics."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

# Names are imported at first use: torch and timm take seconds, `scantune --help` must not.
_HOMES = {
    "CompareConfig": "scantune.comparison.plan",
    "compare": "scantune.comparison.compare",
    "evaluate": "scantune.evaluation.evaluate",
    "predict": "scantune.evaluation.predict",
}

if TYPE_CHECKING:
    from scantune.comparison.compare import compare
    from scantune.comparison.plan import CompareConfig
    from scantune.evaluation.evaluate import evaluate
    from scantune.evaluation.predict import predict

__all__ = ["CompareConfig", "compare", "evaluate", "predict"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'scantune' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)
