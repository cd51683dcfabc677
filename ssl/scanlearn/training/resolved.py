"""What a run trains with: what its configuration leaves open, for its scans and this machine."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch

from scanlearn.archive.reader import Archive
from scanlearn.backbones.backbone import (
    Backbone,
    build_backbone,
    local_side,
)
from scanlearn.backbones.card import StartWeights
from scanlearn.backbones.device import (
    Precision,
    has_unset_gradients,
    preferred_memory_format,
    training_precision,
)
from scanlearn.backbones.start import load_start
from scanlearn.errors import ScanlearnError
from scanlearn.methods import MethodConfig, RunFacts
from scanlearn.threads import free_threads
from scanlearn.training.batches import steps_in_epoch
from scanlearn.training.distributed import ProcessLayout
from scanlearn.training.optim import Schedule, schedule_for
from scanlearn.training.settings import PretrainConfig
from scanlearn.views.modality import AUTO, OwnModality
from scanlearn.views.of_archive import (
    check_operations,
    left_out_in_words,
    left_out_of,
    modality_by_tags,
)

_UNNAMED = (
    "views.modality is not given{}: the recipe as published, made for photographs; scanlearn "
    "explain RECIPE modality=xray shows what of it a policy such as xray changes or switches off"
)
_APART = ", and {}; pack each kind of scan by itself, or name the one that is to hold for all"
_SMALLEST_BATCH = 2


@dataclass(frozen=True)
class Resolved:
    """The resolved settings of a run and the reasons; a resumed run keeps its first start's.

    Args:
        recipe: Of the views; None of a run begun before it depended on the kind of network.
        modality: What ``views.modality: auto`` stands for; None for the recipe alone.
        left_out: Operations of the modality's policy that the scans do not allow.
    """

    precision: Precision
    is_channels_last: bool
    steps_per_epoch: int
    schedule: Schedule
    method: MethodConfig
    local_size: int
    reasons: tuple[str, ...]
    # None on a GPU, and in runs of earlier releases, which took what torch gave.
    threads: int | None = None
    recipe: str | None = None
    modality: str | None = None
    left_out: tuple[str, ...] = ()

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


def training_device(device: Literal["auto", "cpu", "gpu"]) -> torch.device:
    """Where the run trains."""
    is_gpu = device == "gpu" or (device == "auto" and torch.cuda.is_available())
    return torch.device("cuda" if is_gpu else "cpu")


def initial_backbone(
    config: PretrainConfig, archive: Archive, *, is_resumed: bool = False
) -> tuple[Backbone, StartWeights | None]:
    """The backbone of a run before its first step, and what it starts from if not random weights.

    Args:
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


def with_batch_of(config: PretrainConfig, num_scans: int) -> PretrainConfig:
    """Returns a configuration whose batch is no larger than the archive.

    A first try on a few scans is no mistake: the batch is then all of them, as far as they can be
    shared evenly by processes and parts, and the line that begins the run says so.
    """
    shares = layout_of(config).ranks * config.accumulate
    most = num_scans // shares * shares
    if config.batch_size <= num_scans or most < _SMALLEST_BATCH:
        return config
    return config.model_copy(update={"batch_size": most})


def resolve(
    config: PretrainConfig,
    archive: Archive,
    backbone: Backbone,
    *,
    ranks: int = 1,
    asked_batch: int | None = None,
) -> Resolved:
    """Resolves what the configuration leaves open, ``ranks`` processes sharing a batch.

    Args:
        asked_batch: Scans in a batch before the archive was found to hold fewer; None for those
            of the configuration.

    Raises:
        ScanlearnError: The batch is larger than the archive, or an operation that was set by hand
            is not for its scans.
    """
    views = config.views
    by_tags, why = modality_by_tags(archive) if views.modality == AUTO else (None, "")
    named: tuple[str, ...] = ()
    if by_tags:
        named = (f"views.modality is {by_tags}: {why}; null is the recipe alone",)
    elif views.modality == AUTO and not archive.synthetic_phantom:
        named = (_UNNAMED.format(_APART.format(why) if why else ""),)
    check_operations(views.operations, archive, "views.operations")
    if isinstance(views.modality, OwnModality):
        check_operations(views.modality.operations, archive, "views.modality.operations")
    left_out = left_out_of(views.build_recipe(config.recipe, by_tags), archive)
    per_epoch = steps_in_epoch(len(archive), config.batch_size)
    local_size = config.views.local_size or local_side(backbone, config.views.size)
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
    threads = _threads(config, ranks)
    return Resolved(
        precision=_precision(config, backbone, _smallest_view(config, method, local_size)),
        is_channels_last=channels_last,
        steps_per_epoch=per_epoch,
        schedule=schedule_for(method, facts),
        method=method,
        local_size=local_size,
        reasons=(
            *_made_smaller(asked_batch or config.batch_size, config.batch_size, len(archive)),
            *_left_out(len(archive), config.batch_size),
            *_made_fewer(config, threads),
            *_recipe_in_words(config),
            *named,
            *left_out_in_words(left_out),
            *reasons,
        ),
        threads=threads,
        recipe=config.recipe,
        modality=by_tags,
        left_out=tuple(left_out),
    )


def _threads(config: PretrainConfig, ranks: int) -> int | None:
    if training_device(config.device).type != "cpu":
        return None
    if config.threads != "auto":
        return config.threads
    # Processes of one run would take each other for strangers.
    return free_threads() if ranks == 1 else torch.get_num_threads()


def _made_fewer(config: PretrainConfig, threads: int | None) -> tuple[str, ...]:
    most = torch.get_num_threads()
    if threads is None or config.threads != "auto" or threads == most:
        return ()
    return (f"threads is {threads} instead of {most}: other processes use cores of this machine",)


def _recipe_in_words(config: PretrainConfig) -> tuple[str, ...]:
    """Which of a method's recipes a run takes, where that depends on its network."""
    others = [name for name in config.method.recipes if name != config.recipe]
    if config.views.recipe is not None or not others:
        return ()
    kind = "a transformer" if config.recipe == config.method.recipe else "no transformer"
    return (f"recipe {config.recipe}, since {config.backbone.name} is {kind} (else {others[0]})",)


def _precision(config: PretrainConfig, backbone: Backbone, side: int) -> Precision:
    """Returns the number format of a run whose smallest views have that side."""
    if config.precision != "auto":
        return config.precision
    return training_precision(
        backbone, (backbone.channels, side, side), training_device(config.device)
    )


def _smallest_view(config: PretrainConfig, method: MethodConfig, local_size: int) -> int:
    return min(config.views.size, local_size if method.num_local_views else config.views.size)


def check_precision(config: PretrainConfig, backbone: Backbone, resolved: Resolved) -> None:
    """Refuses bf16 on a CPU that would train with wrong gradients.

    What was silently wrong: a run begun in bf16 on a GPU went on so on such a CPU.
    """
    side = _smallest_view(config, resolved.method, resolved.local_size)
    is_cpu = training_device(config.device).type == "cpu"
    shape = (backbone.channels, side, side)
    if resolved.precision == "bf16" and is_cpu and has_unset_gradients(backbone, shape):
        remedy = "set precision to fp32, or make the views larger"
        if config.precision == "auto":
            remedy = "go on with the run where it was begun, or name another output folder"
        raise ScanlearnError(
            f"precision: is bf16, in which a CPU computes wrong gradients for views of {side} px, "
            f"which {backbone.name} reduces to less than its stride; {remedy}"
        )


def _made_smaller(asked: int, batch_size: int, num_scans: int) -> tuple[str, ...]:
    if asked == batch_size:
        return ()
    return (
        f"batch_size is {batch_size} instead of {asked}: the archive holds {num_scans:,} scans",
    )


def _left_out(num_scans: int, batch_size: int) -> tuple[str, ...]:
    rest = num_scans % batch_size
    if not rest:
        return ()
    return (
        f"each epoch skips {rest:,} of {num_scans:,} scans, different ones each time, because they "
        f"do not fill a batch of {batch_size}",
    )


def layout_of(config: PretrainConfig) -> ProcessLayout:
    """Where a run trains, in how many processes.

    Raises:
        ScanlearnError: See `ProcessLayout.of`.
    """
    return ProcessLayout.of(config, training_device(config.device))
