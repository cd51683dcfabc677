"""A run, resolved: what it trains on what, and whether its folder may be used."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scanlearn.backbones.build import build_backbone
from scanlearn.core import ScanlearnError
from scanlearn.methods import Method
from scanlearn.runs import provenance, write_atomically
from scanlearn.scans.archive import Archive
from scanlearn.training.choices import Choices, choose, training_device
from scanlearn.training.folder import RunFolder, open_run
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

    @classmethod
    def of(cls, config: PretrainConfig, archive: Archive) -> Job:
        """Resolves a configuration; creates or opens the run folder last.

        Raises:
            ScanlearnError: See `pretrain`.
        """
        channels, size = archive.shape[0], config.views.size
        backbone = build_backbone(config.backbone, channels, config.seed, size=size)
        choices = choose(config, archive, backbone)
        method = config.method.build(backbone, config.seed)
        generator = ViewGenerator(
            config.views.build_recipe(),
            Scale.parse(config.views.scale),
            method.plan,
            size,
            archive.mean,
            archive.std,
        )
        run = open_run(Path(config.output), config.model_dump(mode="json"), ignored=PRESENTATION)
        # What an earlier start chose holds, whatever this machine would choose.
        choices = _recorded(run, archive, choices)
        generator.settings = _render_settings(config, choices)
        return cls(config, archive, run, choices, method, generator)

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
        found = self.config.views.warnings
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

    def start_line(self, first: int) -> str:
        """What begins, in one line."""
        config, schedule = self.config, self.choices.schedule
        begins = f"resuming at step {first:,} of" if first else "pretraining for"
        return (
            f"{begins} {schedule.total_steps:,} steps of {config.batch_size} scans "
            f"({len(self.archive):,} in the archive): {config.method.name}, "
            f"{config.backbone.name}, {config.views.size} px, scale {self.generator.scale}, "
            f"{self.choices.precision}, learning rate {schedule.peak:.3g} after a warm-up of "
            f"{schedule.warmup_steps:,} steps ({schedule.reason})"
        )


def _render_settings(config: PretrainConfig, choices: Choices) -> RenderSettings:
    # A CPU that trains in bf16 has matrix units for it; a GPU is fast either way.
    has_units = choices.precision == "bf16" and training_device(config.device).type == "cpu"
    return RenderSettings(
        scale_blur=config.views.scale_blur, resampler="matrices" if has_units else "bands"
    )


def _recorded(run: RunFolder, archive: Archive, choices: Choices) -> Choices:
    """Writes the provenance of a new run; checks an earlier start's and takes up its choices."""
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
            "chosen": choices.plain(),
        }
        write_atomically(run.provenance, json.dumps(content, indent=2) + "\n")
        return choices
    before: Mapping[str, Any] = json.loads(run.provenance.read_text())
    if before["archive"]["hash"] != archive.content_hash:
        raise ScanlearnError(
            f"{run.path} was started on an archive of {before['archive']['scans']} scans whose "
            f"content differs from the one given ({len(archive)} scans): "
            "name another output folder, or give the archive it was started on."
        )
    return Choices.from_plain(before["chosen"])
