"""What a run chooses for itself from its configuration, its archive and the machine, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from pydantic import TypeAdapter

from scanlearn.backbones.build import Backbone, build_backbone
from scanlearn.backbones.card import StartWeights
from scanlearn.backbones.parts import local_side
from scanlearn.backbones.precision import preferred_memory_format, preferred_precision
from scanlearn.backbones.start import load_start
from scanlearn.methods import MethodConfig, RunFacts
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
        schedule: The learning rate and the weight decay.
        method: The method without open settings.
        local_size: Side of a local view in pixels.
        reasons: What was chosen for this archive and this run, and why, in words.
    """

    precision: Literal["fp32", "bf16"]
    is_channels_last: bool
    steps_per_epoch: int
    schedule: Schedule
    method: MethodConfig
    local_size: int
    reasons: tuple[str, ...]

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
        return {**asdict(self), "method": self.method.model_dump(mode="json")}

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> Choices:
        """Takes up what an earlier start recorded."""
        return cls(
            **{
                **values,
                "schedule": Schedule(**values["schedule"]),
                "method": TypeAdapter(MethodConfig).validate_python(values["method"]),
                "reasons": tuple(values["reasons"]),
            }
        )


def training_device(asked: Literal["auto", "cpu", "gpu"]) -> torch.device:
    """Where the run trains."""
    is_gpu = asked == "gpu" or (asked == "auto" and torch.cuda.is_available())
    return torch.device("cuda" if is_gpu else "cpu")


def initial_backbone(
    config: PretrainConfig, archive: Archive, *, is_resumed: bool = False
) -> tuple[Backbone, StartWeights | None]:
    """The backbone of a run before its first step, and what it starts from if not random weights.

    Args:
        config: The configuration.
        archive: The packed scans.
        is_resumed: Whether a checkpoint will replace the weights: those that the run started from
            are then not read.

    Raises:
        ScanlearnError: See `build_backbone` and `load_start`.
    """
    backbone = build_backbone(
        config.backbone.untrained,
        archive.shape[0],
        config.seed,
        size=config.views.size,
        drop_path=config.method.drop_path,
    )
    return backbone, None if is_resumed else load_start(backbone, config.backbone)


def choose(
    config: PretrainConfig, archive: Archive, backbone: Backbone, *, ranks: int = 1
) -> Choices:
    """Resolves what the configuration leaves open.

    Args:
        config: The configuration.
        archive: The packed scans.
        backbone: The network to be trained.
        ranks: Processes that share a batch.

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
    facts = RunFacts(
        num_scans=len(archive),
        batch_size=config.batch_size,
        ranks=ranks,
        total_steps=config.total_steps(per_epoch),
        steps_per_epoch=per_epoch,
        parts=config.accumulate,
    )
    method, reasons = config.method.resolved(facts, backbone)
    return Choices(
        precision=precision,
        is_channels_last=channels_last,
        steps_per_epoch=per_epoch,
        schedule=schedule_for(method, facts),
        method=method,
        local_size=config.views.local_size or local_side(backbone, config.views.size),
        reasons=(*_left_out(len(archive), config.batch_size), *reasons),
    )


def _left_out(num_scans: int, batch_size: int) -> tuple[str, ...]:
    rest = num_scans % batch_size
    if not rest:
        return ()
    return (
        f"each pass leaves {rest:,} of {num_scans:,} scans out, other ones every time: they do not "
        f"fill a batch of {batch_size}",
    )
