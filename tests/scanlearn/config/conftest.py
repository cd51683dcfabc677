from __future__ import annotations

from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field


class Near(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    name: Literal["near"] = "near"
    temperature: float = Field(0.1, description="Softmax temperature.")


class Far(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    name: Literal["far"] = "far"
    queue: int = 4


class Run(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    archive: str = Field(description="Where the scans lie.", examples=["scans"])
    method: Annotated[Near | Far, Field(discriminator="name")] = Field(
        default=Near(), description="The method."
    )
    wandb: Literal["off", "offline"] = Field("off", description="Logging.")
    seeds: tuple[int, ...] = Field((0, 1), description="Seeds.")
    batch_size: int = Field(128, gt=0, description="Scans in a batch.")


@pytest.fixture
def run_model() -> type[Run]:
    return Run


@pytest.fixture
def far_model() -> type[Far]:
    return Far
