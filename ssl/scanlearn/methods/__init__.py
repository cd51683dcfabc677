"""Self-supervised methods. The union of their configurations is the registry.

A further method is one file, one name in the union and one test.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field

from scanlearn.methods.base import Method
from scanlearn.methods.simclr import SimCLR, SimCLRConfig

# With a second member this becomes `SimCLRConfig | MoCoConfig`; `name` already tells them apart.
MethodConfig: TypeAlias = Annotated[SimCLRConfig, Field(description="the method and its settings")]

__all__ = ["Method", "MethodConfig", "SimCLR", "SimCLRConfig"]
