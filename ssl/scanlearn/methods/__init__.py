"""Self-supervised methods; the union of their configurations is the registry.

- `settings.py`: the settings of each: its published recipe, without torch
- `base.py`: what every method is: networks and loss, and nothing of a trainer
- `simclr.py`: SimCLR
- `mocov2.py`: MoCo v2
- `mocov3.py`: MoCo v3
- `dino.py`: DINO
- `teacher.py`: teachers: networks that follow another one and learn from no gradient
- `sizing.py`: what a small archive, or a short run, changes in a published recipe

A further method is one file, its settings, one name in their union and one test.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from scanlearn.methods.settings import (
    DINOConfig,
    MethodConfig,
    MethodSettings,
    MoCoV2Config,
    MoCoV3Config,
    RunFacts,
    SimCLRConfig,
)

# Networks and losses are imported at first use: torch takes seconds, settings need none.
_HOMES = {
    "DINO": "scanlearn.methods.dino",
    "Method": "scanlearn.methods.base",
    "MoCoV2": "scanlearn.methods.mocov2",
    "MoCoV3": "scanlearn.methods.mocov3",
    "SimCLR": "scanlearn.methods.simclr",
}

if TYPE_CHECKING:
    from scanlearn.methods.base import Method
    from scanlearn.methods.dino import DINO
    from scanlearn.methods.mocov2 import MoCoV2
    from scanlearn.methods.mocov3 import MoCoV3
    from scanlearn.methods.simclr import SimCLR

__all__ = [
    "DINO",
    "DINOConfig",
    "Method",
    "MethodConfig",
    "MethodSettings",
    "MoCoV2",
    "MoCoV2Config",
    "MoCoV3",
    "MoCoV3Config",
    "RunFacts",
    "SimCLR",
    "SimCLRConfig",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'scanlearn.methods' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)
