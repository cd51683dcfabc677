"""Self-supervised methods; the union of their configurations is the registry.

- `base.py`: what every method is: settings, networks and loss, and nothing of a trainer
- `simclr.py`: SimCLR
- `mocov2.py`: MoCo v2
- `mocov3.py`: MoCo v3
- `dino.py`: DINO
- `teacher.py`: teachers: networks that follow another one and learn from no gradient
- `sizing.py`: what a small archive, or a short run, changes in a published recipe

A further method is one file, one name in the union and one test.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field

from scanlearn.methods.base import Method, MethodSettings, RunFacts
from scanlearn.methods.dino import DINO, DINOConfig
from scanlearn.methods.mocov2 import MoCoV2, MoCoV2Config
from scanlearn.methods.mocov3 import MoCoV3, MoCoV3Config
from scanlearn.methods.simclr import SimCLR, SimCLRConfig

MethodConfig: TypeAlias = Annotated[
    SimCLRConfig | MoCoV2Config | MoCoV3Config | DINOConfig,
    Field(discriminator="name", description="the method and its settings"),
]

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
