"""`evaluate`: what one backbone is worth on a small labeled set.

Five phases: open the backbone and the labels, extract features, fit every learner in every fold,
score what they predict, write the results.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from jaxtyping import Float32

from scanlearn.archive.reader import Archive
from scanlearn.backbones.card import Card
from scanlearn.config.calls import checked
from scanlearn.config.loading import check_settings
from scanlearn.console import Progressor, say, track
from scanlearn.errors import ScanlearnError
from scanlearn.features.extract import all_square
from scanlearn.files import features_folder, remove_torn
from scanlearn.locks import held, inside
from scanlearn.packing.settings import FILTERS, PackSettings, pixel_settings
from scanlearn.tables.settings import TABLE_SETTINGS
from scanlearn.threads import computing_with, free_threads
from scanlearn.views.of_archive import left_out_in_words
from scantune.evaluation.backbone import EvaluatedBackbone, open_backbone, packing_of_backbone
from scantune.evaluation.classifier import SEED, describe, keep_classifier, keep_network
from scantune.evaluation.outputs import check_output, write
from scantune.evaluation.results import Evaluation, interval_notes, remarks, say_table, score_table
from scantune.evaluation.settings import (
    RANDOM,
    THUMBNAIL,
    UNTRAINED,
    EvaluateConfig,
    EvaluateOptions,
    ScoringSettings,
)
from scantune.labels.labeled_set import LabeledSet
from scantune.labels.open import (
    LabeledArchives,
    Question,
    open_archives,
    read_question,
    single_columns,
)
from scantune.learners.by_name import frozen_learner, kept_learner, learners_by_name, stopping_notes
from scantune.learners.frozen import LinearFit
from scantune.learners.learner import Fit, LabeledScans
from scantune.learners.table import LEARNERS
from scantune.learners.tuned import tune_network
from scantune.scores import Scores
from scantune.scoring import check_features, score_learners
from scantune.wording import dial_text


@checked
def evaluate(
    backbone: str | Path, labels: str | Path, **options: Unpack[EvaluateOptions]
) -> Evaluation:
    """Score one backbone on labeled scans.

    It is frozen or fine-tuned; no patient trains and is tested.
    Prints the table: AUROC within each fold, averaged over folds and label seeds, with an
    interval over patients. Folds are stratified by class; a patient with scans of several classes
    counts as one of the rarest of them.

    Args:
        backbone: A backbone folder; a run folder; ``thumbnail``, the reference every backbone
            must beat; ``random:NAME`` or ``random:NAME:SEED``, an untrained timm network; or
            anything else that ``load_backbone`` takes.
        labels: An archive, a folder of scans, a table or a phantom.
        options: The settings of ``EvaluateConfig``, as ``scantune config evaluate`` prints them;
            ``target`` is required. A target is a column of classes, a column of findings
            separated by ``|``, as NIH lists them, or several columns of one finding each: 0, 1,
            -1 where a report is not sure, or blank. A finding that is not known of a scan is
            masked there.

    Raises:
        ScanlearnError: If the backbone, the labels or the options cannot be used.

    Example:
        >>> evaluate("backbones/weak", "labels.csv", target="pneumonia")   # doctest: +SKIP
    """
    return evaluate_with(backbone, labels, check_settings(EvaluateConfig, options, "evaluate"))


def evaluate_with(backbone: str | Path, labels: str | Path, settings: EvaluateConfig) -> Evaluation:
    """Does what `evaluate` does, by settings that are checked."""
    if settings.output is not None:
        # A shell leaves "output=~/scores" as it is: a folder called "~" was made.
        settings = settings.model_copy(update={"output": settings.output.expanduser()})
    if settings.output is None:
        return _evaluate(backbone, labels, settings)
    with held(inside(settings.output), settings.output, wait=settings.wait):
        remove_torn(settings.output)
        return _evaluate(backbone, labels, settings)


def _evaluate(backbone: str | Path, labels: str | Path, settings: EvaluateConfig) -> Evaluation:
    task = _open(backbone, labels, settings)
    settings = task.settings
    archives, labeled = task.labels.archives, task.labels.labeled
    features = _features(task.backbone, task.labels)
    check_features(features, labeled)
    with track(num_fits(settings, labeled), "learning") as progress:
        scores = fit_learners(task.backbone, task.scans, features, settings, progress)
    references, left_out = _score_references(task, settings)
    table = score_table(scores, {name: of_it for name, (_, of_it) in references.items()})
    notes = (
        *interval_notes(table),
        *remarks(table, labeled.design),
        *task.backbone.notes,
        *scores.notes,
        *task.labels.caveats,
        *stopping_notes(scores, settings.tune),
        *left_out,
    )
    evaluation = Evaluation(
        task.inputs,
        table,
        labeled,
        scores,
        notes,
        named=task.named,
        references={name: described for name, (described, _) in references.items()},
    )
    say_table(evaluation)
    if settings.output is not None:
        write(evaluation, archives, settings.output, worst=settings.worst)
        if settings.keep:
            _keep(task, settings, settings.output / "classifier")
    return evaluation


def _features(backbone: EvaluatedBackbone, labels: LabeledArchives) -> Float32[np.ndarray, "n d"]:
    return labels.labeled.gathered(
        lambda source, rows: backbone.features(labels.archives[source], rows)
    )


@dataclass(frozen=True)
class _Task:
    """The backbone and the labeled scans of one evaluation, and both in words.

    Args:
        settings: With the backbone's modality in ``tune``.
    """

    settings: EvaluateConfig
    backbone: EvaluatedBackbone
    labels: LabeledArchives
    inputs: dict[str, Any]
    named: dict[str, str]

    @property
    def scans(self) -> LabeledScans:
        """The labeled scans as the backbone sees them."""
        cache = features_folder()
        return LabeledScans(self.labels.archives, self.labels.labeled, self.backbone.view, cache)


def _open(backbone: str | Path, labels: str | Path, settings: EvaluateConfig) -> _Task:
    question = Question(
        settings.target,
        settings.classes,
        settings.ordinal,
        settings.multilabel,
        settings.split_column,
        settings.synthetic_column,
    )
    packing = PackSettings(
        **packing_of_backbone(backbone),
        folder_labels=settings.folder_labels,
        **settings.model_dump(include=set(TABLE_SETTINGS)),
        allow_columns=question.columns,
    )
    single = single_columns(
        (settings.target,),
        settings.multilabel,
        settings.split_column,
        settings.synthetic_column,
    )
    archives = open_archives(labels, settings.test, packing, single)
    labeled = read_question(archives, question, labels, settings.test)
    opened = open_backbone(backbone, labeled.archives[0], settings.size)
    settings = settings.under(opened.card.views_modality if opened.card else None)
    inputs = {
        "backbone": opened.described,
        "labels": labeled.described,
        "learners": list(settings.learners),
        "budgets": [str(budget) for budget in settings.budgets],
        "folds": settings.folds if labeled.labeled.split is None else 1,
        "label_seeds": settings.label_seeds,
        "split_column": settings.split_column,
        "synthetic_column": settings.synthetic_column,
        "tune": settings.tune.model_dump(mode="json", exclude_defaults=True),
    }
    if not all(map(all_square, labeled.archives)):
        # Told apart from the evaluation of an earlier version, which squeezed them.
        inputs["framing"] = "pad"
    if settings.output is not None:
        check_output(settings.output, inputs)
    if settings.trained_on_views:
        say(f"{', '.join(settings.trained_on_views)}: {settings.views_in_words}")
        for words in left_out_in_words(settings.tune.left_out(labeled.archives[0])):
            say(words)
    named = _named(opened, backbone, labels, settings)
    return _Task(settings, opened, labeled, inputs, named)


def _named(
    opened: EvaluatedBackbone, backbone: str | Path, labels: str | Path, settings: EvaluateConfig
) -> dict[str, str]:
    """Returns what was evaluated as a person calls it, without the user's folders."""
    named = {"data set": Path(labels).expanduser().name}
    if settings.test is not None:
        named["external test set"] = Path(settings.test).expanduser().name
    folder = opened.folder
    named["backbone"] = str(backbone)
    if folder is not None:
        # A run's own folder has the name that somebody gave it.
        is_of_run = folder.name == "backbone" and (folder.parent / "config.yaml").is_file()
        named["backbone"] = (folder.parent if is_of_run else folder).absolute().name
    return named | _origin(opened.card)


def _origin(card: Card | None) -> dict[str, str]:
    if card is None:
        return {}
    words = {
        "method": card.method,
        "recipe": card.recipe,
        "pretraining modality": card.modality,
        "scale": None if card.scale is None else dial_text(card.scale),
        "pretraining seed": None if card.seed is None else str(card.seed),
        "weights it began from": None if card.start is None else card.start.in_words,
    }
    return {name: text for name, text in words.items() if text}


def _score_references(
    task: _Task, settings: EvaluateConfig
) -> tuple[dict[str, tuple[dict[str, Any], Scores]], tuple[str, ...]]:
    """Scores the references by the same frozen learners, folds and budgets.

    Returns:
        What each is and its scores, by name; and a sentence for each that cannot be had.
    """
    backbone, labeled, frozen = task.backbone, task.labels.labeled, settings.frozen()
    if not frozen.learners or not settings.references or backbone.network is None:
        return {}, ()
    sources = {THUMBNAIL: THUMBNAIL, UNTRAINED: f"{RANDOM}{backbone.network.name}"}
    chosen = [
        name for name in settings.references if name == THUMBNAIL or backbone.card is not None
    ]
    if chosen:
        say(f"scored beside the backbone: {', '.join(chosen)} (references=[] leaves them out)")
    scored: dict[str, tuple[dict[str, Any], Scores]] = {}
    notes = []
    for name in chosen:
        size = None if name == THUMBNAIL else backbone.view.size
        try:
            reference = open_backbone(sources[name], task.labels.archives[0], size)
        except ScanlearnError as error:
            notes.append(f"the untrained network is not scored beside the backbone: {error}")
            continue
        scans = replace(task, backbone=reference).scans
        features = _features(reference, task.labels)
        with track(num_fits(frozen, labeled), name) as progress:
            scores = fit_learners(reference, scans, features, frozen, progress)
        scored[name] = (reference.described, scores)
    return scored, tuple(notes)


def num_fits(settings: ScoringSettings, labeled: LabeledSet) -> int:
    """Returns how many models `fit_learners` fits."""
    folds = settings.folds if labeled.split is None else 1
    return len(settings.learners) * len(settings.budgets) * settings.label_seeds * folds


def fit_learners(
    backbone: EvaluatedBackbone,
    scans: LabeledScans,
    features: Float32[np.ndarray, "n d"],
    settings: ScoringSettings,
    progress: Progressor,
    label_seeds: Sequence[int] | None = None,
) -> Scores:
    """Returns out-of-fold scores of one backbone by all learners that the settings name.

    Errors are those of `learners_by_name` and `score_learners`; ``progress`` is advanced
    `num_fits` times.

    Args:
        label_seeds: Those to score; None for as many as the settings say.
    """
    # What learns from labels alone is trained as such, whatever the learner that it stands beside.
    stands_for = {
        name: "scratch" + name.removeprefix(LEARNERS[name].mode) if backbone.is_blank else name
        for name in settings.learners
    }
    built = learners_by_name(
        tuple(dict.fromkeys(stands_for.values())),
        backbone.network,
        scans,
        features,
        settings.tune,
        on_epoch=partial(_show_epoch, progress),
    )
    learners = {name: built[stands_for[name]] for name in settings.learners}
    is_training = any(LEARNERS[name].needs_network for name in settings.learners)
    # Beside busy processes a training on all cores is ten times slower than on one.
    with computing_with(free_threads() if is_training else None):
        return score_learners(
            learners,
            scans.labeled,
            budgets=settings.budgets,
            folds=settings.folds,
            label_seeds=settings.label_seeds if label_seeds is None else label_seeds,
            on_fit=progress.advance,
        )


def _packing(archive: Archive) -> dict[str, Any]:
    """Returns how new scans are packed as an archive's were: its pixels, and its filters."""
    settings = archive.info["settings"]
    filters = {kind: settings[kind] for kind in FILTERS if settings.get(kind)}
    return pixel_settings(settings) | filters


def _show_epoch(progress: Progressor, epoch: int, epochs: int, value: float) -> None:
    progress.advance(0, epoch=f"{epoch}/{epochs}", validation_auroc=f"{value:.3f}")


def _keep(task: _Task, settings: EvaluateConfig, folder: Path) -> None:
    """Keeps a learner fitted on all labels except those of an external test set."""
    labeled, backbone = task.labels.labeled, task.backbone
    kind = LEARNERS[kept_learner(settings.learners)]
    archive = task.labels.archives[0]
    rows = np.arange(len(labeled))
    if labeled.sources is not None:
        rows = np.flatnonzero(labeled.sources == 0)
    packing = _packing(archive)
    if not kind.needs_network:
        if backbone.folder is None:
            return
        features, everyone = backbone.features(archive, labeled.rows[rows]), np.arange(len(rows))
        learner = frozen_learner(kind.name, features, labeled[rows], settings.tune)
        fit = learner(everyone, everyone[:0], SEED)
        assert isinstance(fit, LinearFit), f"the row of {kind.name} says that it can be kept"
        card = describe(fit, labeled[rows], kind.name, backbone.view, packing)
        keep_classifier(folder, card, fit, backbone.folder)
    else:
        assert backbone.network is not None, "learners_by_name has refused it"
        with track(1, f"{kind.name} on all labels") as progress:
            tuned = tune_network(
                backbone.network,
                task.scans,
                settings.tune.of(kind.name),
                kind.mode,
                rows,
                seed=SEED,
                on_epoch=partial(_show_epoch, progress),
            )
            progress.advance()
        validated = Fit(tuned.validation[:0], tuned.validation)
        card = describe(validated, labeled[rows], kind.name, backbone.view, packing)
        if kind.name in settings.trained_on_views:
            card = card.model_copy(update=settings.tune.views_recorded(archive))
        keep_network(folder, card, tuned.network)
    say(f"kept: {folder}, {kind.title} fitted on all labels; use it with scantune predict")
