"""A run, resolved: what it trains on what, and whether its folder may be used."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel

from scanlearn.archive.reader import Archive
from scanlearn.backbones.backbone import (
    Backbone,
    build_backbone,
    check_views,
    checkpoint_gradients,
    local_side,
)
from scanlearn.backbones.card import StartWeights
from scanlearn.backbones.device import (
    Precision,
    has_unset_gradients,
    preferred_memory_format,
    training_precision,
)
from scanlearn.backbones.fitting import average_patches
from scanlearn.backbones.start import load_start
from scanlearn.config.reading import read_json
from scanlearn.errors import ScanlearnError
from scanlearn.files import write_atomically
from scanlearn.methods import Method, MethodConfig, RunFacts
from scanlearn.packing.sources import open_archive
from scanlearn.provenance import provenance
from scanlearn.threads import free_threads
from scanlearn.training.batches import StepLoader, steps_in_epoch
from scanlearn.training.checkpoint import checkpoint_step
from scanlearn.training.distributed import ProcessLayout, Ranks
from scanlearn.training.folder import RunFolder, open_run
from scanlearn.training.optim import Schedule, schedule_for
from scanlearn.training.settings import PRESENTATION, PretrainConfig
from scanlearn.views.extra_settings import build_extras
from scanlearn.views.generator import ViewGenerator
from scanlearn.views.modality import AUTO, OwnModality
from scanlearn.views.of_archive import (
    check_operations,
    contradiction,
    left_out_in_words,
    left_out_of,
    modality_by_tags,
    unmeasured,
)
from scanlearn.views.settings import VIEWS_VERSION, RenderSettings

PHANTOM_NOTE = "synthetic scans; no evidence about real scans"
_UNNAMED = (
    "views.modality is not given{}: the recipe as published, made for photographs; scanlearn "
    "explain RECIPE modality=xray shows what of it a policy such as xray changes or switches off"
)
_APART = ", and {}; pack each kind of scan by itself, or name the one that is to hold for all"
_SAMPLE = 256
_SMALLEST_BATCH = 2
_WORTH_A_WARNING = 0.01


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


def open_scans(config: PretrainConfig) -> Archive:
    """Returns the scans that a run trains on.

    Raises:
        ScanlearnError: They cannot be used, or the list of those left out cannot.
    """
    archive = open_archive(config.archive, settings=config.pack)
    if config.leave_out is None:
        return archive
    try:
        names = Path(config.leave_out).read_text(encoding="utf-8").split()
    except (OSError, ValueError) as error:
        raise ScanlearnError(
            f"leave_out: {config.leave_out} cannot be read ({error}); it is to hold one scan id "
            "per line"
        ) from error
    return archive.without(names) if names else archive


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


def _check_precision(config: PretrainConfig, backbone: Backbone, resolved: Resolved) -> None:
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


@dataclass(frozen=True)
class Run:
    """A run with everything it needs before its first step: nothing here changes with time."""

    config: PretrainConfig
    archive: Archive
    folder: RunFolder
    resolved: Resolved
    method: Method
    generator: ViewGenerator
    start: StartWeights | None

    @classmethod
    def of(cls, config: PretrainConfig, archive: Archive, resolved: Resolved | None = None) -> Run:
        """Resolves a configuration; creates or opens the run folder last.

        Args:
            resolved: What a new run takes instead of resolving it; see `pretrain`.

        Raises:
            ScanlearnError: See `pretrain`.
        """
        asked_batch, config = config.batch_size, with_batch_of(config, len(archive))
        folder = RunFolder(Path(config.output).expanduser())
        is_resumed = checkpoint_step(folder.checkpoint) > 0 or folder.result.is_file()
        backbone, start = initial_backbone(config, archive, is_resumed=is_resumed)
        earlier = read_provenance(folder) if folder.provenance.is_file() else None
        begun = earlier.start if earlier and is_resumed else None
        if begun is not None and begun.averages_patches:
            average_patches(backbone)
        if config.grad_checkpointing:
            checkpoint_gradients(backbone)
        # What an earlier start chose holds, whatever this machine would choose.
        resolved = (
            (earlier and earlier.chosen)
            or resolved
            or resolve(
                config,
                archive,
                backbone,
                ranks=layout_of(config).ranks,
                asked_batch=asked_batch,
            )
        )
        step = checkpoint_step(folder.checkpoint)
        if step > resolved.total_steps:
            raise ScanlearnError(
                f"{folder.checkpoint} claims step {step:,} of {resolved.total_steps:,}: delete it "
                "to restart this run from its first step"
            )
        if not folder.result.is_file():
            _check_precision(config, backbone, resolved)
        method = resolved.method.build(backbone, config.seed)
        if method.plan.local_views:
            check_views(backbone, resolved.local_size, "the side of a local view")
        generator = ViewGenerator(
            config.views.build_recipe(
                resolved.recipe or config.method.recipe, resolved.modality, resolved.left_out
            ),
            config.views.scale,
            method.plan,
            config.views.size,
            archive.mean,
            archive.std,
            local_size=resolved.local_size,
            extras=build_extras(
                config.views.extras, method.plan.global_views + method.plan.local_views
            ),
            scan_ids=archive.scan_ids.tolist() if config.views.extras else None,
            settings=RenderSettings(scale_blur=config.views.scale_blur),
        )
        open_run(folder.path, config, ignored=PRESENTATION)
        start = _record(folder, archive, resolved, start, step)
        return cls(config, archive, folder, resolved, method, generator, start)

    @property
    def layout(self) -> ProcessLayout:
        """Where the run trains, in how many processes."""
        return layout_of(self.config)

    @property
    def note(self) -> str | None:
        """What a reader must know before believing results of this run; None for real scans."""
        return PHANTOM_NOTE if self.archive.synthetic_phantom else None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What deserves a look before the first step."""
        rows = np.linspace(0, len(self.archive) - 1, min(len(self.archive), _SAMPLE))
        boxes = self.archive.gather(rows.astype(np.int64)).valid_box.numpy()
        share = self.generator.upsampled_share(boxes)
        idle = self.generator.recipe.without_effect([self.config.views.scale])
        contrary = contradiction(self.config.views.modality, self.archive)
        warnings = (
            # Under the modality of the tags one number may move what it moves under none.
            *(self.config.warnings if idle else ()),
            *((f"views.{contrary}",) if contrary else ()),
            *self.layout.warnings(self.method),
        )
        if share < _WORTH_A_WARNING:
            return warnings
        height, width = self.archive.shape[1:]
        is_canvas_full = bool((boxes[:, 2] == height).any() or (boxes[:, 3] == width).any())
        remedy = "pack at a larger pack.canvas, or make" if is_canvas_full else "make"
        return (
            *warnings,
            f"{share:.0%} of the views enlarge their crop, so the crop dial also changes the "
            f"resolution: the packed scans (up to {boxes[:, 2].max()} x {boxes[:, 3].max()} px) "
            f"are small for views of {self.generator.size} px; {remedy} views.size smaller.",
        )

    def loader(self, first: int, ranks: Ranks) -> StepLoader:
        """Hands out a process's share of the batches from a step on."""
        return StepLoader(
            self.archive,
            batch_size=self.config.batch_size,
            seed=self.config.seed,
            first=first,
            stop=self.resolved.total_steps,
            rank=ranks.rank,
            ranks=ranks.count,
            parts=self.config.accumulate,
        )

    def start_line(self, first: int) -> str:
        """What begins, in one line."""
        config, schedule, recipe = self.config, self.resolved.schedule, self.generator.recipe
        begun = () if first or self.start is None else (f"begins from {self.start.in_words}",)
        begins = f"resuming at step {first:,} of" if first else "pretraining for"
        return (
            f"{begins} {schedule.total_steps:,} steps of {config.batch_size} scans "
            f"{self.layout.in_words(self.method)}"
            f"({len(self.archive):,} in the archive): {config.method.name}, "
            f"{config.backbone.in_words}, {self._sizes()}, scale {self.generator.scale} of recipe "
            f"{recipe.name}{self._modality()}, {self._extras()}"
            f"{self.resolved.precision}, learning rate {schedule.peak:.3g} after a warm-up of "
            f"{schedule.warmup_steps:,} steps ({schedule.reason})"
            + "".join(
                f"\n  {reason}"
                for reason in (*begun, *self.resolved.reasons, *unmeasured(recipe, self.archive))
            )
        )

    def _modality(self) -> str:
        policy = self.generator.recipe.policy
        return f" under modality {policy.name}" if policy else ""

    def _extras(self) -> str:
        count = len(self.generator.extras)
        return f"{count} extra operation{'s' if count > 1 else ''}, " if count else ""

    def _sizes(self) -> str:
        plan, size = self.method.plan, f"{self.config.views.size} px"
        if not plan.local_views:
            return size
        return f"{plan.global_views} x {size} + {plan.local_views} x {self.resolved.local_size} px"


def layout_of(config: PretrainConfig) -> ProcessLayout:
    """Where a run trains, in how many processes.

    Raises:
        ScanlearnError: See `ProcessLayout.of`.
    """
    return ProcessLayout.of(config, training_device(config.device))


class StartedOn(BaseModel):
    """The archive that a run was started on."""

    scans: int
    hash: str


class Provenance(BaseModel):
    """``provenance.json`` of a run, so far as it is read again."""

    run_id: str
    archive: StartedOn
    views_version: int = 1
    chosen: Resolved
    start: StartWeights | None = None


def read_provenance(folder: RunFolder) -> Provenance:
    """Returns what an earlier start of a run recorded.

    Raises:
        ScanlearnError: ``provenance.json`` is damaged.
    """
    return read_json(
        folder.provenance,
        Provenance,
        what="does not say what the run was started with",
        remedy="restore it from a copy, or name another output folder",
    )


def _record(
    folder: RunFolder,
    archive: Archive,
    resolved: Resolved,
    start: StartWeights | None,
    step: int,
) -> StartWeights | None:
    """Writes the provenance of a new run; checks an earlier start's.

    Args:
        step: Steps that were taken already.

    Returns:
        What the run began from, be it now or at its earlier start.
    """
    if not folder.provenance.is_file():
        if folder.result.is_file():
            # What it was trained with is lost, and not to be made up from the plan.
            return start
        facts = {
            "scans": len(archive),
            "patients": len(set(archive.patients)),
            "shape": list(archive.shape),
            "hash": archive.content_hash,
        }
        content = {
            # Random, since two arms may share everything from which a name could be made.
            "run_id": secrets.token_hex(4),
            **provenance(),
            "archive": facts,
            "views_version": VIEWS_VERSION,
            "start": None if start is None else start.model_dump(mode="json"),
            "chosen": resolved.plain(),
            # Lost with the file: nobody knows what the steps before were taken with.
            **({"starts": [{"step": 0, "conditions": {}}]} if step else {}),
        }
        write_atomically(folder.provenance, json.dumps(content, indent=2) + "\n")
        return start
    before = read_provenance(folder)
    if before.archive.hash != archive.content_hash:
        raise ScanlearnError(
            f"{folder.path} was started on an archive of {before.archive.scans} scans whose "
            f"content differs from this one ({len(archive)} scans): "
            "name another output folder, or use the archive it was started on"
        )
    if before.views_version != VIEWS_VERSION:
        # With another blur half of its steps, or one arm of a study, would see other views.
        raise ScanlearnError(
            f"{folder.path} was trained on views as another release of scanlearn rendered them "
            f"(version {before.views_version}, now {VIEWS_VERSION}): name another output folder to "
            "train it again, or go on with the release it was started with"
        )
    begun = before.start
    if start is not None and begun is not None and start.weights_hash != begun.weights_hash:
        raise ScanlearnError(
            f"{folder.path} was started from {begun.in_words}, and backbone.weights now holds "
            "other weights: name another output folder, or use the weights it was started from"
        )
    return begun
