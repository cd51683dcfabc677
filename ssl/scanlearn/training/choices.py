"""What a run chooses for itself from its configuration, its archive and the machine, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch

from scanlearn.backbones.build import Backbone
from scanlearn.backbones.precision import preferred_memory_format, preferred_precision
from scanlearn.scans.archive import Archive
from scanlearn.training.data import steps_in_epoch
from scanlearn.training.optim import Schedule, schedule_for
from scanlearn.training.settings import PretrainConfig


@dataclass(frozen=True)
class Choices:
    """The resolved settings of a run; a resumed run keeps those of its first start.

    Args:
        precision: Number format of the training step.
        is_channels_last: Whether networks and views lie in memory channel by pixel.
        steps_per_epoch: Optimiser steps in one pass over the archive.
        schedule: The learning rate.
    """

    precision: Literal["fp32", "bf16"]
    is_channels_last: bool
    steps_per_epoch: int
    schedule: Schedule

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the run."""
        return self.schedule.total_steps

    @property
    def memory_format(self) -> torch.memory_format:
        """Layout of networks and views."""
        return torch.channels_last if self.is_channels_last else torch.contiguous_format

    def plain(self) -> dict[str, Any]:
        """Plain values, as they are recorded."""
        return asdict(self)

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> Choices:
        """Takes up what an earlier start recorded."""
        return cls(**{**values, "schedule": Schedule(**values["schedule"])})


def training_device(asked: Literal["auto", "cpu", "gpu"]) -> torch.device:
    """Where the run trains."""
    is_gpu = asked == "gpu" or (asked == "auto" and torch.cuda.is_available())
    return torch.device("cuda" if is_gpu else "cpu")


def choose(config: PretrainConfig, archive: Archive, backbone: Backbone) -> Choices:
    """Resolves what the configuration leaves open.

    Raises:
        ScanlearnError: The batch is larger than the archive.
    """
    per_epoch = steps_in_epoch(len(archive), config.batch_size)
    precision = config.precision
    if precision == "auto":
        precision = preferred_precision(training_device(config.device))
    channels_last = config.channels_last
    if channels_last == "auto":
        channels_last = preferred_memory_format(backbone) == torch.channels_last
    schedule = schedule_for(
        config.method,
        batch_size=config.batch_size,
        total_steps=config.total_steps(per_epoch),
        steps_per_epoch=per_epoch,
    )
    return Choices(precision, channels_last, per_epoch, schedule)
