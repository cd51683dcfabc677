"""A run, resolved: what it trains on what, and whether its folder may be used."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scanlearn.backbones.build import check_views
from scanlearn.backbones.card import StartWeights
from scanlearn.backbones.checkpointing import checkpoint_gradients
from scanlearn.core import ScanlearnError
from scanlearn.methods import Method
from scanlearn.runs import provenance, write_atomically
from scanlearn.scans.archive import Archive
from scanlearn.training.choices import Choices, choose, initial_backbone, training_device
from scanlearn.training.data import StepLoader
from scanlearn.training.folder import RunFolder, open_run
from scanlearn.training.keeper import checkpoint_step
from scanlearn.training.ranks import Layout, Ranks
from scanlearn.training.settings import PRESENTATION, PretrainConfig
from scanlearn.views.generator import ViewGenerator
from scanlearn.views.render import RenderSettings
from scanlearn.views.scale import Scale

PHANTOM_NOTE = "drawn by a program; no evidence about real scans"
_SAMPLE = 256
_WORTH_A_WARNING = 0.01


@dataclass(frozen=True)
class Job:
    """A run with everything it needs before its first step: nothing here changes with time."""

    config: PretrainConfig
    archive: Archive
    run: RunFolder
    choices: Choices
    method: Method
    generator: ViewGenerator
    start: StartWeights | None

    @classmethod
    def of(cls, config: PretrainConfig, archive: Archive) -> Job:
        """Resolves a configuration; creates or opens the run folder last.

        Raises:
            ScanlearnError: See `pretrain`.
        """
        run = RunFolder(Path(config.output))
        is_resumed = checkpoint_step(run.checkpoint) > 0 or run.result.is_file()
        backbone, start = initial_backbone(config, archive, is_resumed=is_resumed)
        if config.grad_checkpointing:
            checkpoint_gradients(backbone)
        # What an earlier start chose holds, whatever this machine would choose.
        choices = _earlier(run) or choose(config, archive, backbone, ranks=layout_of(config).ranks)
        method = choices.method.build(backbone, config.seed)
        if method.plan.local_views:
            check_views(backbone, choices.local_size, "the side of a local view")
        generator = ViewGenerator(
            config.build_recipe(),
            Scale.parse(config.views.scale),
            method.plan,
            config.views.size,
            archive.mean,
            archive.std,
            local_size=choices.local_size,
            settings=_render_settings(config, choices),
        )
        open_run(run.path, config.model_dump(mode="json"), ignored=PRESENTATION)
        start = _record(run, archive, choices, start)
        return cls(config, archive, run, choices, method, generator, start)

    @property
    def layout(self) -> Layout:
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
        found = (*self.config.warnings, *self.layout.warnings(self.method))
        if share < _WORTH_A_WARNING:
            return found
        height, width = self.archive.shape[1:]
        is_canvas_full = bool((boxes[:, 2] == height).any() or (boxes[:, 3] == width).any())
        remedy = "pack at a larger pack.canvas, or make" if is_canvas_full else "make"
        return (
            *found,
            f"{share:.0%} of the views enlarge their crop, so that the crop dial also sets the "
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
            stop=self.choices.total_steps,
            rank=ranks.rank,
            ranks=ranks.count,
            parts=self.config.accumulate,
        )

    def start_line(self, first: int) -> str:
        """What begins, in one line."""
        config, schedule = self.config, self.choices.schedule
        begins = f"resuming at step {first:,} of" if first else "pretraining for"
        return (
            f"{begins} {schedule.total_steps:,} steps of {config.batch_size} scans "
            f"{self.layout.in_words(self.method)}"
            f"({len(self.archive):,} in the archive): {config.method.name}, "
            f"{config.backbone.in_words}, {self._sizes()}, scale {self.generator.scale}, "
            f"{self.choices.precision}, learning rate {schedule.peak:.3g} after a warm-up of "
            f"{schedule.warmup_steps:,} steps ({schedule.reason})"
            + "".join(f"\n  {reason}" for reason in self._reasons(first))
        )

    def _reasons(self, first: int) -> tuple[str, ...]:
        begun = () if first or self.start is None else (f"begins from {self.start.in_words}",)
        return (*begun, *self.choices.reasons)

    def _sizes(self) -> str:
        plan, size = self.method.plan, f"{self.config.views.size} px"
        if not plan.local_views:
            return size
        return f"{plan.global_views} x {size} + {plan.local_views} x {self.choices.local_size} px"


def layout_of(config: PretrainConfig) -> Layout:
    """Where a run trains, in how many processes.

    Raises:
        ScanlearnError: See `Layout.of`.
    """
    return Layout.of(config, training_device(config.device))


def _render_settings(config: PretrainConfig, choices: Choices) -> RenderSettings:
    # A CPU that trains in bf16 has matrix units for it; a GPU is fast either way.
    has_units = choices.precision == "bf16" and training_device(config.device).type == "cpu"
    return RenderSettings(
        scale_blur=config.views.scale_blur, resampler="matrices" if has_units else "bands"
    )


def _earlier(run: RunFolder) -> Choices | None:
    """What an earlier start of the run chose; None where there was none."""
    if not run.provenance.is_file():
        return None
    return Choices.from_plain(json.loads(run.provenance.read_text())["chosen"])


def _record(
    run: RunFolder, archive: Archive, choices: Choices, start: StartWeights | None
) -> StartWeights | None:
    """Writes the provenance of a new run; checks an earlier start's.

    Returns:
        What the run began from, be it now or at its earlier start.
    """
    if not run.provenance.is_file():
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
            "start": None if start is None else start.model_dump(mode="json"),
            "chosen": choices.plain(),
        }
        write_atomically(run.provenance, json.dumps(content, indent=2) + "\n")
        return start
    before: Mapping[str, Any] = json.loads(run.provenance.read_text())
    if before["archive"]["hash"] != archive.content_hash:
        raise ScanlearnError(
            f"{run.path} was started on an archive of {before['archive']['scans']} scans whose "
            f"content differs from the one given ({len(archive)} scans): "
            "name another output folder, or give the archive it was started on."
        )
    earlier = before.get("start")
    begun = None if earlier is None else StartWeights.model_validate(earlier)
    if start is not None and begun is not None and start.weights_hash != begun.weights_hash:
        raise ScanlearnError(
            f"{run.path} was started from {begun.in_words}, and backbone.weights now holds others: "
            "name another output folder, or give the weights it was started from."
        )
    return begun
