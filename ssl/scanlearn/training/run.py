"""A run before its first step: what it trains on what, and whether its folder may be used."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import BaseModel

from scanlearn.archive.reader import Archive
from scanlearn.backbones.backbone import (
    check_views,
    checkpoint_gradients,
)
from scanlearn.backbones.card import StartWeights
from scanlearn.backbones.fitting import average_patches
from scanlearn.config.reading import read_json
from scanlearn.errors import ScanlearnError
from scanlearn.files import write_atomically
from scanlearn.methods import Method
from scanlearn.packing.sources import open_archive
from scanlearn.provenance import provenance
from scanlearn.training.batches import StepLoader
from scanlearn.training.checkpoint import checkpoint_step
from scanlearn.training.distributed import ProcessLayout, Ranks
from scanlearn.training.folder import RunFolder, open_run
from scanlearn.training.resolved import (
    Resolved,
    check_precision,
    initial_backbone,
    layout_of,
    resolve,
    with_batch_of,
)
from scanlearn.training.settings import PRESENTATION, PretrainConfig
from scanlearn.views.extra_settings import build_extras
from scanlearn.views.generator import ViewGenerator
from scanlearn.views.of_archive import (
    contradiction,
    unmeasured,
)
from scanlearn.views.settings import VIEWS_VERSION, RenderSettings

PHANTOM_NOTE = "synthetic scans; no evidence about real scans"
_SAMPLE = 256
_WORTH_A_WARNING = 0.01


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
        is_there = folder.provenance.is_file() and folder.is_for(config, PRESENTATION)
        earlier = read_provenance(folder) if is_there else None
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
            check_precision(config, backbone, resolved)
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
