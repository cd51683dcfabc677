"""What is judged of a backbone now and then while it trains: the panel, and a labeled probe."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32
from pydantic import BaseModel, ConfigDict, Field, model_validator

from scanlearn.backbones.build import Backbone
from scanlearn.core import Progress, ScanlearnError, ViewPlan
from scanlearn.features import extract
from scanlearn.panel import Panel
from scanlearn.probing import Probing, in_evaluation
from scanlearn.runs import say, warn_user
from scanlearn.scans.archive import Archive
from scanlearn.scans.settings import PackSettings
from scanlearn.scans.source import open_archive
from scanlearn.training.folder import MetricsCsv
from scanlearn.training.labeled import LabeledProbe, ProbeScore
from scanlearn.views.generator import ViewGenerator
from scanlearn.views.render import RenderSettings
from scanlearn.views.scale import Scale

if TYPE_CHECKING:
    from scanlearn.training.job import Job

PANEL_COLUMNS = tuple(field.name for field in fields(Panel))
PROBE_COLUMNS = tuple(field.name for field in fields(ProbeScore))
WATCH_COLUMNS = ("step", "epoch", *PANEL_COLUMNS, *PROBE_COLUMNS)


class WatchConfig(BaseModel):
    """What is judged now and then; it changes nothing of what comes out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    panel_epochs: int | None = Field(
        default=None,
        ge=1,
        description="passes between two rows of the label-free panel, in panel.csv; null for none",
    )
    probe_epochs: int | None = Field(
        default=None, ge=1, description="passes between two AUROCs of the labeled probe"
    )
    probe: str | None = Field(
        default=None,
        description="labeled scans apart from the archive, a table or an archive; no test set, "
        "once anything is chosen by them",
    )
    probe_label: str | None = Field(default=None, description="its label column")

    @model_validator(mode="after")
    def _whole(self) -> WatchConfig:
        given = {
            name: getattr(self, name) is not None
            for name in ("probe", "probe_label", "probe_epochs")
        }
        if any(given.values()) and not all(given.values()):
            missing = " and ".join(name for name, is_given in given.items() if not is_given)
            raise ValueError(
                f"a labeled probe needs probe, probe_label and probe_epochs; give {missing} too"
            )
        return self

    @property
    def is_on(self) -> bool:
        """Whether anything is judged at all."""
        return self.panel_epochs is not None or self.probe_epochs is not None


class Watch:
    """Judges the backbone of a run after some of its epochs and after its last step.

    Training goes on as if nothing had happened: no global random state, running statistic or mode
    is changed.

    Args:
        config: How often.
        rows: The table, under `WATCH_COLUMNS`.
        archive: The training archive, for the panel.
        probing: The panel's views, of which the labeled probe takes size, mean and std.
        probe: The labeled probe; None for none.
        start: Where the run stands when it starts, for its numbers of steps.
    """

    def __init__(
        self,
        config: WatchConfig,
        rows: MetricsCsv,
        *,
        archive: Archive,
        probing: Probing,
        probe: LabeledProbe | None,
        start: Progress,
    ) -> None:
        self._rows = rows
        self._archive = archive
        self._probing = probing
        self._probe = probe
        self._config = config
        self._start = start

    def row(self, backbone: Backbone, step: int) -> dict[str, float]:
        """Judges the backbone where a row is due after a step, and keeps the row.

        Args:
            backbone: On the device it trains on; it is left as it was.
            step: Optimiser steps taken.

        Returns:
            The figures that were made, by name; empty where nothing is due.

        Raises:
            ScanlearnError: The disk is full.
        """
        made: dict[str, float] = {}
        try:
            if self._is_due(self._config.panel_epochs, step):
                made |= asdict(Panel.of(self._probing.features(backbone, self._archive)))
            if self._probe is not None and self._is_due(self._config.probe_epochs, step):
                made |= asdict(self._probe.score(self._probe_features(backbone, self._probe)))
        except ScanlearnError as error:
            # Features that overflow in evaluation mode are to be seen, not to end the run.
            warn_user(f"step {step:,}: {error}")
            made = dict.fromkeys((*PANEL_COLUMNS, *PROBE_COLUMNS), float("nan"))
        if made:
            nothing = dict.fromkeys((*PANEL_COLUMNS, *PROBE_COLUMNS), float("nan"))
            epoch = step / self._start.steps_per_epoch
            self._rows.append({"step": step, "epoch": epoch, **nothing, **made})
        return made

    def _is_due(self, epochs: int | None, step: int) -> bool:
        if epochs is None:
            return False
        is_last = step == self._start.total_steps
        return is_last or step % (epochs * self._start.steps_per_epoch) == 0

    def _probe_features(
        self, backbone: Backbone, probe: LabeledProbe
    ) -> Float32[np.ndarray, "n d"]:
        generator = self._probing.generator
        with in_evaluation(backbone):
            return extract(
                backbone,
                probe.archive,
                probe.rows,
                size=generator.size,
                mean=generator.mean,
                std=generator.std,
                batch_size=self._probing.batch_size,
                visible=False,
            )


def open_watch(job: Job, first: int) -> Watch | None:
    """Returns the watch of a run; None where nothing is to be judged.

    Args:
        job: The run.
        first: The step it starts with; rows of an earlier start beyond it are dropped.

    Raises:
        ScanlearnError: The labeled probe cannot be used.
    """
    config, made = job.config.watch, job.generator
    if not config.is_on:
        return None
    views = ViewGenerator(
        made.recipe,
        Scale.WEAK,
        ViewPlan(2),
        made.size,
        made.mean,
        made.std,
        settings=RenderSettings(scale_blur=made.settings.scale_blur),
    )
    return Watch(
        config,
        MetricsCsv(job.run.panel, WATCH_COLUMNS, after=first),
        archive=job.archive,
        probing=Probing(views, visible=False),
        probe=_read_probe(config, job.archive, job.config.pack),
        start=Progress(first, job.choices.total_steps, job.choices.steps_per_epoch),
    )


def _read_probe(
    config: WatchConfig, archive: Archive, settings: PackSettings
) -> LabeledProbe | None:
    if config.probe is None or config.probe_label is None:
        return None
    channels = archive.shape[0]
    changes = {"channels": channels, "path_column": None, "patient_column": None}
    labeled = open_archive(config.probe, settings=settings.model_copy(update=changes))
    if labeled.shape[0] != channels:
        raise ScanlearnError(
            f"watch.probe: its scans have {labeled.shape[0]} channels, those of the archive "
            f"{channels}; pack it with channels={channels}."
        )
    probe = LabeledProbe.of(labeled, config.probe_label)
    say(f"labeled probe: {probe.in_words()}")
    for warning in probe.warnings(archive):
        warn_user(warning)
    return probe
