"""`evaluate`: what one backbone is worth on a small labeled set."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BeforeValidator, Field

from scanlearn.console import Progressor, say, track
from scanlearn.errors import ScanlearnError
from scanlearn.packing.settings import PackSettings, pixel_settings
from scanlearn.packing.sources import cache_folder
from scantune.evaluation.backbone import Subject, channels_of, find_subject
from scantune.evaluation.classifier import SEED, keep_classifier, keep_network
from scantune.evaluation.outputs import check_output, write
from scantune.evaluation.results import Evaluation, say_table, score_table
from scantune.labels.open import Question, open_labels
from scantune.learners.by_name import (
    frozen_learner,
    kept_learner,
    learners_by_name,
    stopping_notes,
)
from scantune.learners.frozen import LinearFit
from scantune.learners.learner import Fit, LabeledScans
from scantune.learners.settings import DEFAULT, TuneConfig
from scantune.learners.table import LEARNERS, LEARNERS_HELP, LearnerName
from scantune.learners.tuned import tune_network
from scantune.scoring import check_features, score_learners
from scantune.splits import Budget


def _as_written(given: Any) -> Any:
    """Takes the numbers of a list, such as grades, for texts."""
    if not isinstance(given, list | tuple):
        return given
    return [str(one) if type(one) in (int, float) else one for one in given]


def evaluate(
    backbone: Annotated[str | Path, Field(description="A backbone folder, a run or thumbnail.")],
    labels: Annotated[str | Path, Field(description="An archive, a folder or a table.")],
    *,
    target: Annotated[
        str | tuple[str, ...],
        Field(
            description="The label column, or a list of columns with a finding each.",
            examples=["diagnosis"],
        ),
    ],
    test: Annotated[
        str | Path | None,
        Field(description="Scans of other patients to test on, likewise; null tests on labels."),
    ] = None,
    learners: Annotated[
        tuple[LearnerName, ...],
        Field(
            min_length=1,
            description=LEARNERS_HELP,
        ),
    ] = ("knn", "linear"),
    budgets: Annotated[
        tuple[Budget, ...],
        Field(min_length=1, description="Labeled training scans: counts, or all."),
    ] = ("all",),
    folds: Annotated[
        int, Field(ge=2, description="Patient folds; unused with a split column.")
    ] = 5,
    label_seeds: Annotated[
        int, Field(ge=1, description="Repetitions with other folds and subsets.")
    ] = 3,
    classes: Annotated[
        tuple[str, ...] | None,
        BeforeValidator(_as_written),
        Field(description="All values of the label column, in order; null takes those found."),
    ] = None,
    ordinal: Annotated[
        bool, Field(description="Whether classes are grades, in numeric order or that of classes.")
    ] = False,
    multilabel: Annotated[
        bool | None,
        Field(description="Whether the column lists findings; null: where some value holds |."),
    ] = None,
    split_column: Annotated[
        str | None, Field(description="Column of train and test, instead of folds.")
    ] = None,
    synthetic_column: Annotated[
        str | None, Field(description="Column that marks scans to train on and never to test.")
    ] = None,
    patient_column: Annotated[
        str | None, Field(description="Column of a table with the patients; null finds it.")
    ] = None,
    folder_labels: Annotated[
        bool, Field(description="Read a folder per class, as the label column folder.")
    ] = False,
    size: Annotated[
        int | None, Field(ge=8, description="Side of a view in pixels; null is the backbone's.")
    ] = None,
    keep: Annotated[
        bool, Field(description="Keep the last learner, fitted on all labels, for predict.")
    ] = True,
    tune: Annotated[
        TuneConfig, Field(description="How learners train that do so by steps.")
    ] = DEFAULT,
    worst: Annotated[
        int,
        Field(ge=0, le=500, description="Scans of the worst errors to show in output; 0: none."),
    ] = 0,
    output: Annotated[
        Path | None, Field(description="Folder for metrics, predictions and figures; null: none.")
    ] = None,
) -> Evaluation:
    """Scores a backbone on labeled scans, frozen or tuned, patients never on both sides.

    Prints the table: AUROC within each fold, averaged over folds and label seeds, with an
    interval over patients. Folds are stratified by class; a patient with scans of several counts
    as one of the rarest of them.

    Args:
        backbone: A backbone folder; a run folder; ``thumbnail``, the reference every backbone
            must beat; ``random:NAME`` or ``random:NAME:SEED``, an untrained timm network; or what
            else ``load_backbone`` takes.
        labels: An archive, a folder of scans, a table or a phantom.
        target: The label column: of classes, or of findings separated by ``|``, as NIH lists them;
            or several columns of a finding each, 0, 1, -1 where a report is not sure, or blank. A
            finding that is not known of a scan is masked there.
        test: An external test set, with the same column or columns: all scans of ``labels`` train
            and all of these are tested. A patient or a picture in both is an error.
        learners: Names of rows of `learners.table`.
        budgets: Scans in the training folds, reached in whole patients, or "all".
        folds: Patient-level folds.
        label_seeds: Repetitions.
        classes: The values allowed, in order; a label outside them is an error. Of findings that a
            column lists, those to be scored.
        ordinal: Whether the classes are grades.
        multilabel: Whether the one column lists findings.
        split_column: A column of "train" and "test"; "val" is trained on too.
        synthetic_column: A column with 1, true or yes for scans made by a program: they are trained
            on where the patient they name is not tested, and no budget counts them.
        patient_column: The patients' column of a table.
        folder_labels: Whether the first folder below ``labels`` names the class of its scans.
        size: Side of a view in pixels.
        keep: Whether the last learner of which `predict` can make use, fitted on all labeled scans,
            is kept in the output as ``classifier``: a tuned network, or the linear probe of a
            backbone's folder.
        tune: How learners train that do so by steps, and how the probe's scans are mixed.
        worst: So many scans with the most confident wrong scores, of findings for each, are drawn
            into the output with their true class; 0 lets no scan leave the archive.
        output: Folder to write to; it may hold nothing but an evaluation of the same.

    Raises:
        ScanlearnError: If the backbone, the labels or the options cannot be used.

    Example:
        >>> evaluate("backbones/weak", "labels.csv", target="pneumonia")   # doctest: +SKIP
    """
    if worst and output is None:
        raise ScanlearnError(f"worst={worst} draws scans into the output; name one with output=")
    asked = Question(target, classes, ordinal, multilabel, split_column, synthetic_column)
    packing = PackSettings(
        channels=channels_of(backbone),
        patient_column=patient_column,
        folder_labels=folder_labels,
    )
    scans = open_labels(labels, test, packing, asked)
    labeled = scans.labeled
    subject = find_subject(backbone, scans.archives[0], size)
    num_folds = folds if labeled.split is None else 1
    inputs = {
        "backbone": subject.described,
        "labels": scans.described,
        "learners": list(learners),
        "budgets": [str(budget) for budget in budgets],
        "folds": num_folds,
        "label_seeds": label_seeds,
        "split_column": split_column,
        "synthetic_column": synthetic_column,
        "tune": tune.model_dump(mode="json", exclude_defaults=True),
    }
    if output is not None:
        check_output(Path(output), inputs)
    features = labeled.gathered(lambda source, rows: subject.features(scans.archives[source], rows))
    check_features(features, labeled)
    seen = LabeledScans(scans.archives, labeled, subject.view, cache_folder() / "features")
    fits = len(learners) * len(budgets) * label_seeds * num_folds
    with track(fits, "learning") as progress:
        shown = partial(_show, progress)
        scores = score_learners(
            learners_by_name(learners, subject.network, seen, features, tune, on_epoch=shown),
            labeled,
            budgets=budgets,
            folds=folds,
            label_seeds=label_seeds,
            on_fit=progress.advance,
        )
    notes = (*scores.notes, *scans.caveats, *stopping_notes(scores, tune))
    evaluation = Evaluation(inputs, score_table(scores), labeled, scores, notes)
    say_table(evaluation)
    if output is not None:
        write(evaluation, scans.archives, Path(output), worst=worst)
        if keep:
            _keep(Path(output) / "classifier", kept_learner(learners), seen, subject, tune)
    return evaluation


def _show(progress: Progressor, epoch: int, epochs: int, value: float) -> None:
    progress.advance(0, epoch=f"{epoch}/{epochs}", validation_auroc=f"{value:.3f}")


def _keep(
    folder: Path, learner: str, scans: LabeledScans, subject: Subject, tune: TuneConfig
) -> None:
    """Keeps a learner fitted on all labels, but those of an external test set."""
    labeled = scans.labeled
    own = np.arange(len(labeled))
    if labeled.sources is not None:
        own = np.flatnonzero(labeled.sources == 0)
    packing = pixel_settings(scans.archives[0].info["settings"])
    kind = LEARNERS[learner]
    if not kind.needs_network:
        if subject.folder is None:
            return
        features = subject.features(scans.archives[0], labeled.rows[own])
        rows = np.arange(len(own))
        probe = frozen_learner(learner, features, labeled[own], tune)(rows, rows[:0], SEED)
        assert isinstance(probe, LinearFit), f"{learner} keeps no classifier"
        keep_classifier(
            folder,
            probe,
            labeled[own],
            subject.folder,
            learner=learner,
            view=subject.view,
            packing=packing,
        )
    else:
        assert subject.network is not None, "learners_by_name has refused it"
        with track(1, f"{learner} on all labels") as progress:
            shown = partial(_show, progress)
            tuned = tune_network(
                subject.network, scans, tune, learner, own, seed=SEED, on_epoch=shown
            )
            progress.advance()
        fit = Fit(tuned.validation[:0], tuned.validation)
        keep_network(
            folder,
            tuned.network,
            fit,
            labeled[own],
            learner=learner,
            view=subject.view,
            packing=packing,
        )
    say(f"kept: {folder}, {kind.title} fitted on all labels; scantune predict uses it")
