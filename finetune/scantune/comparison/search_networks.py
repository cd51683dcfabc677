"""The networks of a search: each trained to a rung, measured without labels, and scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from pydantic import Field

from scanlearn.archive.reader import Archive
from scanlearn.backbones.backbone import Backbone
from scanlearn.backbones.start import check_start
from scanlearn.config.reading import read_json
from scanlearn.config.settings import Settings
from scanlearn.console import track, warn_user
from scanlearn.errors import NotFiniteError, ScanlearnError
from scanlearn.features.labelfree import rotation_accuracy
from scanlearn.features.panel import Panel
from scanlearn.files import features_folder, make_folder, write_atomically
from scanlearn.training.resolved import Resolved
from scantune.comparison.search_plan import SearchConfig
from scantune.comparison.search_results import ALL
from scantune.evaluation.backbone import EvaluatedBackbone
from scantune.evaluation.classifier import View
from scantune.evaluation.evaluate import fit_learners, num_fits
from scantune.labels.labeled_set import LabeledSet
from scantune.learners.learner import LabeledScans
from scantune.scores import Scores
from scantune.splits import budget_rows, folds_of, patient_folds
from scantune.statistics.intervals import Estimate, estimate, patient_weights
from scantune.study.arms import train_until
from scantune.study.facts import COLLAPSED
from scantune.study.folder import StudyFolder, check_archives, open_study
from scantune.study.label_free import COMMON_SCALE, common_views, measures_of
from scantune.study.leaks import dropped, find_study_leaks, leak_warnings
from scantune.study.plan import CompareConfig
from scantune.study.resolving import resolve_once
from scantune.study.run import canvas_chosen, open_study_archives
from scantune.study.scores import read_tasks

# Under these views the last networks are ranked by LiDAR; the common one is that of every rung.
PROBED_SCALES = (0.25, COMMON_SCALE, 1.0)
# Before the last rung: the spread of strong views falls at first and rises again, to .18 and .35 of
# SimCLR on chest X-rays.
_HOPELESS = 0.1
# Above this accuracy quarter turns rank nothing: nearly all networks tell .99 of chest X-rays'.
_SATURATED = 0.97
_REPORT = "report"


class Measured(Settings):
    """What was measured on one network of one rung, without labels.

    ``limit`` is the spread of embeddings under which it counts as collapsed.
    ``lidar`` is by the scale of the views; ``embedding_std`` is of the training, whose loss looks
    at it; ``patches`` is the harder probe, None where quarter turns rank; ``problem`` says why
    there is nothing else.
    """

    embedding_std: float = 0.0
    limit: float = COLLAPSED
    panel: dict[str, float] = Field(default={})
    lidar: dict[str, float] = Field(default={})
    rotation: float = 0.0
    patches: float | None = None
    problem: str = ""

    @property
    def is_collapsed(self) -> bool:
        """Whether nothing can be made of the network."""
        return bool(self.problem) or not self.embedding_std >= self.limit

    @property
    def rung_lidar(self) -> float:
        """LiDAR under the views of every rung."""
        return self.lidar[f"{COMMON_SCALE:g}"]


@dataclass(frozen=True)
class Stage:
    """The run of a scale with one pretraining seed, after so many steps."""

    arm: str
    step: int
    seed: int


@dataclass(frozen=True)
class Networks:
    """All that networks of a search are trained on, measured on and scored on."""

    plan: SearchConfig
    study: CompareConfig
    folder: StudyFolder
    unlabeled: Archive
    archives: tuple[Archive, ...]
    labeled: LabeledSet
    resolved: Resolved
    warnings: tuple[str, ...]

    @classmethod
    def opened(cls, plan: SearchConfig) -> Networks:
        """Opens the folder and the scans, and resolves how networks are trained."""
        study = plan.study()
        check_start(study.pretrain.backbone, is_new=not Path(study.output).exists())
        folder = open_study(study)
        study = canvas_chosen(study, folder)
        unlabeled, archives = open_study_archives(study)
        tasks = read_tasks(study, archives)
        named = dict(zip(("unlabeled", "labels"), (unlabeled, *archives), strict=True))
        check_archives(folder, {name: archive.content_hash for name, archive in named.items()})
        leaks = find_study_leaks(study, folder, unlabeled, archives, tasks)
        left_out = dropped(study, folder)
        if left_out:
            unlabeled = unlabeled.without(left_out)
        on_devices, resolved = resolve_once(study, folder, unlabeled)
        on_devices.under(resolved.modality)  # tune may not fit the modality
        return cls(
            plan,
            on_devices,
            folder,
            unlabeled,
            archives,
            tasks[plan.task],
            resolved,
            leak_warnings(leaks, len(left_out)),
        )

    @cached_property
    def voters(self) -> dict[str, np.ndarray]:
        """Rows of the labeled set on which a choice is made, by who makes it; all come first.

        The halves are left out where they are too few for folds, with a warning.
        """
        labeled, scoring = self.labeled, self.plan.evaluation
        if labeled.split is not None:
            return {ALL: np.flatnonzero(labeled.split == "train")}
        voters = {ALL: np.arange(len(labeled))}
        try:
            halves = patient_folds(labeled.truth, labeled.patients, 2, 0)
            rows = {f"half {number + 1}": fold.train for number, fold in enumerate(halves)}
            for seed in range(scoring.label_seeds):
                for of_part in map(self.labeled.__getitem__, rows.values()):
                    for fold in folds_of(of_part, scoring.folds, seed):
                        args = (of_part.truth, of_part.patients, scoring.budgets[0], seed)
                        budget_rows(fold.train, *args)
        except ScanlearnError as error:
            warn_user(
                f"the labeled patients are too few to choose on one half and report on the other "
                f"({error}): the AUROC of what is chosen is that of the patients that chose it"
            )
            return voters
        return voters | rows

    def measured(self, stage: Stage) -> Measured:
        """Trains, measures and scores a network, or reads back what was measured."""
        path = self._place(stage, "measured.json")
        if path.is_file():
            return read_json(
                path,
                Measured,
                what="does not hold what was measured",
                remedy="name another output folder, since the run has gone on",
            )
        study, resolved = self.study, self.resolved
        try:
            with self.folder.timed("pretraining"):
                network, spread = train_until(
                    study, self.folder, self.unlabeled, stage.arm, stage.step, resolved, stage.seed
                )
        except NotFiniteError as error:
            found = Measured(problem=str(error))
        else:
            is_last = stage.step == resolved.total_steps
            found = self._without_labels(network, spread, is_last=is_last)
            if not found.is_collapsed:
                self._score(stage, network)
        make_folder(path.parent)
        # Last: where it is, the network was scored.
        write_atomically(path, found.model_dump_json(indent=1) + "\n")
        return found

    def estimate(self, who: str, stage: Stage) -> Estimate:
        """The AUROC of a scored network over the patients of a voter."""
        return self._estimate(Scores.load(self._place(stage, f"{who}.npz")))

    def report(self, chosen: Sequence[Stage]) -> tuple[Estimate, str] | None:
        """The AUROC of what was chosen over patients that did not choose it, and how; or None.

        Args:
            chosen: By all patients, then by each half.
        """
        if self.labeled.split is not None:
            scores = Scores.load(self._place(chosen[0], f"{_REPORT}.npz"))
            return self._estimate(
                scores
            ), "on the test patients of the given split, which chose nothing"
        if len(chosen) < 2:
            return None
        # A fold is tested by models of the other half, which chose the network too.
        parts = [Scores.load(self._place(stage, f"{_REPORT}.npz")) for stage in chosen[1:]]
        fold_of = parts[0].fold_of[:, :, None]
        values = np.where(fold_of == 0, parts[0].values, parts[1].values)
        scores = replace(parts[0], values=values, refits=None)
        how = "each half of the patients scored by what the other half chose and taught"
        return self._estimate(scores), how

    def _place(self, stage: Stage, name: str) -> Path:
        folder = self.folder.path / "rungs" / f"{stage.step}" / stage.arm
        return (folder if stage.seed == self.plan.seed else folder / f"seed-{stage.seed}") / name

    def _estimate(self, scores: Scores) -> Estimate:
        # All networks of a voter share labels and folds, and by them the resamples.
        weights = patient_weights(scores, replicates=self.study.evaluation.replicates)
        scoring = self.plan.evaluation
        return estimate(scores, scoring.learners[0], scoring.budgets[0], weights)

    def _without_labels(self, network: Backbone, spread: float, *, is_last: bool) -> Measured:
        training = self.study.under(self.resolved.modality).pretrain
        recipe = training.build_recipe(left_out=self.resolved.left_out)
        lidar, panel, rotation, patches = {}, {}, 0.0, None
        try:
            for scale in PROBED_SCALES if is_last else (COMMON_SCALE,):
                probing = common_views(training.views, recipe, self.unlabeled, scale)
                if scale == COMMON_SCALE:
                    panel = measures_of(network, self.unlabeled, probing)
                    rotation = panel.pop("rotation")
                    lidar[f"{scale:g}"] = panel["lidar"]
                    if rotation >= _SATURATED:
                        patches = rotation_accuracy(probing.swapped(network, self.unlabeled))
                else:
                    views = probing.features(network, self.unlabeled)
                    lidar[f"{scale:g}"] = Panel.of(views).lidar
        except ScanlearnError as error:
            # Features that overflow in evaluation mode veto a scale and end no search.
            return Measured(problem=str(error))
        return Measured(
            embedding_std=spread,
            limit=COLLAPSED if is_last else _HOPELESS,
            panel=panel,
            lidar=lidar,
            rotation=rotation,
            patches=patches,
        )

    def _score(self, stage: Stage, network: Backbone) -> None:
        """Scores a network for every voter, and once for the report, and keeps the scores."""
        view = View(self.plan.pretrain.views.size, self.unlabeled.mean, self.unlabeled.std)
        backbone = EvaluatedBackbone({"kind": stage.arm}, network, None, view)
        scoring = self.study.evaluation
        everyone = np.arange(len(self.labeled))
        jobs = [
            (who, rows, replace(self.labeled[rows], split=None), scoring)
            for who, rows in self.voters.items()
        ]
        if self.labeled.split is not None:
            jobs.append((_REPORT, everyone, self.labeled, scoring))
        elif len(self.voters) > 1:
            once = scoring.model_copy(update={"folds": 2, "label_seeds": 1})
            jobs.append((_REPORT, everyone, self.labeled, once))
        fits = sum(num_fits(settings, labeled) for *_, labeled, settings in jobs)
        with self.folder.timed("probes"), track(fits, f"scoring {stage.arm}") as progress:
            features = self.labeled.gathered(
                lambda source, rows: backbone.features(self.archives[source], rows)
            )
            for name, rows, labeled, settings in jobs:
                scans = LabeledScans(self.archives, labeled, view, features_folder())
                scores = fit_learners(backbone, scans, features[rows], settings, progress)
                path = self._place(stage, f"{name}.npz")
                make_folder(path.parent)
                scores.save(path)
