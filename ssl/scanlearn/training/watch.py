"""Validation while a network trains: the label-free panel, and a labeled probe."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int, Int64

from scanlearn.archive.count import Count
from scanlearn.archive.identity import patient_codes
from scanlearn.archive.reader import Archive
from scanlearn.backbones.backbone import Backbone
from scanlearn.console import say, warn_user
from scanlearn.core import Progress, ViewPlan
from scanlearn.errors import ScanlearnError
from scanlearn.features.auroc import asked_classes, macro_auroc, mean_of_defined, one_hot
from scanlearn.features.extract import extract, in_evaluation
from scanlearn.features.fixed_views import Probing
from scanlearn.features.panel import Panel
from scanlearn.packing.settings import PackSettings
from scanlearn.packing.sources import open_archive
from scanlearn.tables.reading import cell_text
from scanlearn.tables.settings import TABLE_SETTINGS
from scanlearn.training.folder import MetricsCsv
from scanlearn.training.run import Run
from scanlearn.training.settings import WatchConfig
from scanlearn.views.generator import ViewGenerator
from scanlearn.views.scale import Scale
from scanlearn.views.settings import RenderSettings

# The labeled probe.
FOLDS = 5
NEIGHBOURS = 20
KNN_TEMPERATURE = 0.07
# A fixed penalty: a probe follows one run, and its best penalty would move from epoch to epoch.
LINEAR_C = 0.01
_MOST_CLASSES = 20


@dataclass(frozen=True)
class ProbeScore:
    """Macro AUROC over patient-grouped folds, the mean of the folds."""

    knn_auroc: float
    linear_auroc: float


@dataclass(frozen=True)
class LabeledProbe:
    """Labeled scans by row, their folds fixed once.

    Args:
        y: Class of each, from 0.
        fold_of: Fold in which each is tested; a patient's scans share one.
    """

    archive: Archive
    rows: Int64[np.ndarray, " n"]
    y: Int[np.ndarray, " n"]
    classes: tuple[str, ...]
    fold_of: Int[np.ndarray, " n"]
    target: str

    @classmethod
    def of(cls, archive: Archive, column: str) -> LabeledProbe:
        """Reads a label column and makes the folds; blank labels are left out.

        Raises:
            ScanlearnError: The column is missing, is blank, holds one class only or no classes at
                all, or a class has too few patients for two folds.
        """
        texts = [cell_text(value) for value in archive.labels(column)]
        rows = np.array([row for row, text in enumerate(texts) if text is not None], np.int64)
        counts = Counter(text for text in texts if text is not None)
        classes = tuple(sorted(counts))
        if len(classes) < 2:
            content = f"one class only, '{classes[0]}'" if classes else "no label"
            raise ScanlearnError(
                f"watch.probe: column '{column}' holds {content} in {len(archive)} scans; name a "
                "column with two classes or more."
            )
        if len(classes) > _MOST_CLASSES:
            raise ScanlearnError(
                f"watch.probe: column '{column}' holds {len(classes)} different values such as "
                f"'{classes[0]}', which are too many for classes; name another column"
            )
        y = np.array([classes.index(str(texts[row])) for row in rows])
        patients = archive.patients[rows]
        people = {name: len(set(patients[y == code])) for code, name in enumerate(classes)}
        rarest = min(people, key=people.__getitem__)
        if people[rarest] < 2:
            raise ScanlearnError(
                f"watch.probe: class '{rarest}' of '{column}' has one patient only, and folds keep "
                "patients together; add patients or leave its labels blank."
            )
        fold_of = _folds(y, patients, min(FOLDS, people[rarest]))
        return cls(archive, rows, y, classes, fold_of, column)

    def in_words(self) -> str:
        """What it is made of, in one line."""
        counts = ", ".join(
            f"{name}: {int((self.y == code).sum()):,}" for code, name in enumerate(self.classes)
        )
        count = Count.of_archive(self.archive, self.rows)
        return f"{self.target} of {count.in_words} ({counts}), {int(self.fold_of.max()) + 1} folds"

    def warnings(self, training: Archive) -> tuple[str, ...]:
        """What deserves a look: scans or patients that the training sees as well."""
        texts = []
        if not self.archive.patients_known:
            texts.append(
                "watch.probe: no patient column was found, so its folds may share patients"
            )
        if self.archive.info.get("key") != training.info.get("key"):
            texts.append(
                "watch.probe: it was packed with another patient key than the archive, so shared "
                "patients cannot be found; pack both with one key"
            )
            return tuple(texts)
        names = ("patients", self.archive.patients[self.rows], training.patients)
        if not (self.archive.patients_known and training.patients_known):
            names = ("scans", self.archive.scan_ids[self.rows], training.scan_ids)
        shared = set(names[1]) & set(names[2])
        if shared:
            texts.append(
                f"watch.probe: {len(shared):,} of its {names[0]} are also in the training archive, "
                f"such as '{min(shared)}': its AUROC does not estimate that of new patients"
            )
        return tuple(texts)

    def score(self, features: Float32[np.ndarray, "n d"]) -> ProbeScore:
        """Returns what the features of the labeled scans tell of their labels."""
        from sklearn.linear_model import LogisticRegression
        from sklearn.neighbors import KNeighborsClassifier
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        linear = make_pipeline(StandardScaler(), LogisticRegression(C=LINEAR_C, max_iter=1000))
        fewest = int(np.bincount(self.fold_of).max())
        knn = KNeighborsClassifier(
            min(NEIGHBOURS, len(self.y) - fewest), metric="cosine", weights=_votes
        )
        return ProbeScore(self._auroc(knn, features), self._auroc(linear, features))

    def _auroc(self, learner: Any, features: Float32[np.ndarray, "n d"]) -> float:
        aurocs = []
        codes = list(asked_classes(len(self.classes)))
        for fold in range(int(self.fold_of.max()) + 1):
            train, test = self.fold_of != fold, self.fold_of == fold
            learner.fit(features[train].astype(np.float64), self.y[train])
            scores = np.zeros((int(test.sum()), len(self.classes)))
            probabilities = learner.predict_proba(features[test].astype(np.float64))
            scores[:, learner.classes_] = probabilities
            truth = one_hot(self.y[test], len(self.classes))
            aurocs.append(macro_auroc(scores[:, codes], truth[:, codes]).auroc)
        return float(mean_of_defined(np.array(aurocs)))


def _votes(distance: Float[np.ndarray, "u k"]) -> Float[np.ndarray, "u k"]:
    """Weights of neighbours at a cosine distance: exp(cosine / .07).

    Source: Wu et al. 2018, section 3.4, as in DINO's released kNN evaluation.
    """
    weights: np.ndarray = np.exp((1 - distance) / KNN_TEMPERATURE)
    return weights


def _folds(y: Int[np.ndarray, " n"], patients: np.ndarray, folds: int) -> Int[np.ndarray, " n"]:
    """Returns the fold of each scan, by class and patient; the same for the same labels."""
    from sklearn.model_selection import StratifiedGroupKFold

    fold_of = np.zeros(len(y), dtype=np.int64)
    dealer = StratifiedGroupKFold(folds, shuffle=True, random_state=0)
    for fold, (_, test) in enumerate(dealer.split(y[:, None], y, patient_codes(patients))):
        fold_of[test] = fold
    return fold_of


PANEL_COLUMNS = tuple(field.name for field in fields(Panel))
FIGURES = (*PANEL_COLUMNS, *(field.name for field in fields(ProbeScore)))
WATCH_COLUMNS = ("step", "epoch", *FIGURES)


@dataclass(frozen=True)
class ValidationCallback:
    """Evaluates the backbone of a run after some of its epochs and after its last step.

    Training goes on as if nothing had happened: no global random state, running statistic or mode
    is changed.

    Args:
        probing: The panel's views, of which the labeled probe takes size, mean and std.
    """

    config: WatchConfig
    rows: MetricsCsv
    archive: Archive
    probing: Probing
    probe: LabeledProbe | None
    start: Progress

    def row(self, backbone: Backbone, step: int) -> dict[str, float]:
        """Evaluates the backbone, left as it was, where a row is due after a step, and writes it.

        Returns:
            The figures by name; empty where nothing is due.

        Raises:
            ScanlearnError: The disk is full.
        """
        figures: dict[str, float] = {}
        nothing = dict.fromkeys(FIGURES, float("nan"))
        try:
            if self._is_due(self.config.panel_epochs, step):
                figures |= asdict(Panel.of(self.probing.features(backbone, self.archive)))
            if self.probe is not None and self._is_due(self.config.probe_epochs, step):
                figures |= asdict(self.probe.score(self._probe_features(backbone, self.probe)))
        except ScanlearnError as error:
            # Features that overflow in evaluation mode are to be seen, not to end the run.
            warn_user(f"step {step:,}: {error}")
            figures = nothing
        if figures:
            epoch = step / self.start.steps_per_epoch
            self.rows.append({"step": step, "epoch": epoch, **nothing, **figures})
        return figures

    def _is_due(self, epochs: int | None, step: int) -> bool:
        if epochs is None:
            return False
        is_last = step == self.start.total_steps
        return is_last or step % (epochs * self.start.steps_per_epoch) == 0

    def _probe_features(
        self, backbone: Backbone, probe: LabeledProbe
    ) -> Float32[np.ndarray, "n d"]:
        generator = self.probing.generator
        with in_evaluation(backbone):
            return extract(
                backbone,
                probe.archive,
                probe.rows,
                size=generator.size,
                mean=generator.mean,
                std=generator.std,
                batch_size=self.probing.batch_size,
                visible=False,
            )


def open_validation(run: Run, first: int) -> ValidationCallback | None:
    """Returns the validation of a run; None where none is asked for.

    Args:
        first: The step it starts with; rows of an earlier start beyond it are dropped.

    Raises:
        ScanlearnError: The labeled probe cannot be used.
    """
    config, generator = run.config.watch, run.generator
    if not config.is_on:
        return None
    views = ViewGenerator(
        generator.recipe,
        Scale.WEAK,
        ViewPlan(2),
        generator.size,
        generator.mean,
        generator.std,
        settings=RenderSettings(scale_blur=generator.settings.scale_blur),
    )
    return ValidationCallback(
        config,
        MetricsCsv(run.folder.panel, WATCH_COLUMNS, after=first),
        archive=run.archive,
        probing=Probing(views, visible=False),
        probe=_read_probe(config, run.archive, run.config.pack),
        start=Progress(first, run.resolved.total_steps, run.resolved.steps_per_epoch),
    )


def _read_probe(
    config: WatchConfig, archive: Archive, settings: PackSettings
) -> LabeledProbe | None:
    if config.probe is None or config.probe_label is None:
        return None
    channels = archive.shape[0]
    # The table of the scans to pretrain on may be read in ways that are not those of this one.
    changes = {"channels": channels, **dict.fromkeys({*TABLE_SETTINGS} - {"issuer"})}
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
