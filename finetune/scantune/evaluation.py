"""`evaluate`: what one backbone is worth on a small labeled set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from jaxtyping import Float32
from pydantic import Field

from scanlearn.backbones.build import BackboneConfig, build_backbone, weights_hash
from scanlearn.backbones.weights import load_backbone
from scanlearn.core import ScanlearnError
from scanlearn.features import extract, thumbnail_features
from scanlearn.runs import say, track, warn_user
from scanlearn.scans.archive import Archive
from scanlearn.scans.settings import PackSettings, pixel_settings
from scanlearn.scans.source import cache_folder, open_archive
from scantune.classifier import View, keep_classifier
from scantune.evaluation_results import Evaluation, check_output, say_table, score_table, write
from scantune.labels import LabeledSet, read_labels
from scantune.probe import Name, score_features
from scantune.splits import Budget

THUMBNAIL = "thumbnail"
_RANDOM = "random:"
_RANDOM_SIZE = 64


def evaluate(
    backbone: Annotated[str | Path, Field(description="A backbone folder, a run or thumbnail.")],
    labels: Annotated[str | Path, Field(description="An archive, a folder or a table.")],
    *,
    target: Annotated[str, Field(description="The label column.", examples=["diagnosis"])],
    learners: Annotated[
        tuple[Name, ...], Field(min_length=1, description="knn and linear (probe).")
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
        Field(description="All values of the label column, in order; null takes those found."),
    ] = None,
    split_column: Annotated[
        str | None, Field(description="Column of train and test, instead of folds.")
    ] = None,
    patient_column: Annotated[
        str | None, Field(description="Column of a table with the patients; null finds it.")
    ] = None,
    size: Annotated[
        int | None, Field(ge=8, description="Side of a view in pixels; null is the backbone's.")
    ] = None,
    keep: Annotated[
        bool, Field(description="Keep a probe fitted on all labels in output, for predict.")
    ] = True,
    output: Annotated[
        Path | None, Field(description="Folder for metrics, predictions and figures; null: none.")
    ] = None,
) -> Evaluation:
    """Scores a backbone's frozen features on labeled scans, patients never on both sides.

    Prints the table: AUROC within each fold, averaged over folds and label seeds, with an
    interval over patients.

    Args:
        backbone: A backbone folder; a run folder; ``thumbnail``, the reference every backbone
            must beat; ``random:NAME`` or ``random:NAME:SEED``, an untrained timm network; or what
            else ``load_backbone`` takes.
        labels: An archive, a folder of scans, a table or a phantom.
        target: The label column.
        learners: Of "knn" and "linear".
        budgets: Scans in the training folds, reached in whole patients, or "all".
        folds: Patient-level folds.
        label_seeds: Repetitions.
        classes: The values allowed, in order; a label outside them is an error.
        split_column: A column of "train" and "test".
        patient_column: The patients' column of a table.
        size: Side of a view in pixels.
        keep: Whether a linear probe of a backbone's folder, fitted on all labeled scans, is kept
            in the output as ``classifier``, for `predict`.
        output: Folder to write to; it may hold nothing but an evaluation of the same.

    Raises:
        ScanlearnError: If the backbone, the labels or the options cannot be used.

    Example:
        >>> evaluate("backbones/weak", "labels.csv", target="pneumonia")   # doctest: +SKIP
    """
    archive = open_archive(labels, settings=_packing(backbone, patient_column))
    labeled = read_labels(
        archive, target, classes=classes, split_column=split_column, source=Path(labels).name
    )
    described, features_of, view = _source(backbone, archive, size)
    inputs = {
        "backbone": described,
        "labels": {"archive": archive.content_hash, "target": target},
        "learners": list(learners),
        "budgets": [str(budget) for budget in budgets],
        "folds": 1 if split_column else folds,
        "label_seeds": label_seeds,
        "split_column": split_column,
    }
    if output is not None:
        check_output(Path(output), inputs)
    _say_labeled(labeled, archive)
    features = features_of(labeled.rows)
    fits = len(learners) * len(budgets) * label_seeds * (1 if split_column else folds)
    with track(fits, "probing") as progress:
        scores = score_features(
            features,
            labeled,
            learners=learners,
            budgets=budgets,
            folds=folds,
            label_seeds=label_seeds,
            on_fit=progress.advance,
        )
    notes = (*scores.notes, *_caveats(archive))
    evaluation = Evaluation(inputs, score_table(scores), labeled, scores, notes)
    say_table(evaluation)
    if output is not None:
        write(evaluation, archive, Path(output))
        folder = None if str(backbone) == THUMBNAIL else _backbone_folder(backbone)
        if keep and folder is not None:
            packing = pixel_settings(archive.info["settings"])
            kept = keep_classifier(
                Path(output) / "classifier", features, labeled, folder, view=view, packing=packing
            )
            say(f"kept: {kept}, a linear probe fitted on all labels; scantune predict uses it")
    return evaluation


def _packing(backbone: str | Path, patient_column: str | None) -> PackSettings:
    """Returns settings that pack a table with the channels the backbone was trained on."""
    folder = _backbone_folder(backbone)
    channels = None if folder is None else load_backbone(folder)[1].channels
    return PackSettings(
        channels=1 if channels == 1 else 3 if channels == 3 else "auto",
        patient_column=patient_column,
    )


def _backbone_folder(backbone: str | Path) -> Path | None:
    """Returns the folder that holds the weights; None where the name is no folder on disk."""
    folder = Path(str(backbone).removeprefix("local-dir:")).expanduser()
    if not folder.is_dir():
        return None
    if (folder / "backbone").is_dir():
        return folder / "backbone"
    if (folder / "config.yaml").is_file() and not (folder / "card.json").is_file():
        raise ScanlearnError(
            f"{folder}: this run has no backbone yet; finish it with scanlearn pretrain"
        )
    return folder


def _source(
    backbone: str | Path, archive: Archive, size: int | None
) -> tuple[dict[str, Any], Callable[[np.ndarray], Float32[np.ndarray, "n d"]], View]:
    """Returns what the backbone is, what computes its features of some rows, and their views."""
    if str(backbone) == THUMBNAIL:
        side = size or 16
        return (
            {"kind": THUMBNAIL, "size": side},
            lambda rows: thumbnail_features(archive, rows, side=side),
            (side, archive.mean, archive.std),
        )
    folder = _backbone_folder(backbone)
    if folder is None and str(backbone).startswith(_RANDOM):
        name, _, seed = str(backbone).removeprefix(_RANDOM).partition(":")
        if seed and not seed.isdecimal():
            raise ScanlearnError(f"{backbone}: '{seed}' is no seed; write {_RANDOM}{name}:0")
        kind, side, mean, std = "random", size or _RANDOM_SIZE, archive.mean, archive.std
        network = build_backbone(
            BackboneConfig(name=name), archive.shape[0], int(seed or 0), size=side
        )
    else:
        network, card = load_backbone(folder or backbone, channels=archive.shape[0])
        kind, side, mean, std = "loaded", size or card.size, card.mean, card.std
    described = {
        "kind": kind,
        "architecture": network.name,
        "weights": weights_hash(network),
        "size": side,
    }
    network = network.eval().to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    cache = cache_folder() / "features"

    def features_of(rows: np.ndarray) -> Float32[np.ndarray, "n d"]:
        return extract(network, archive, rows, size=side, mean=mean, std=std, cache=cache)

    return described, features_of, (side, mean, std)


def _caveats(archive: Archive) -> tuple[str, ...]:
    notes = []
    if archive.synthetic_phantom:
        notes.append("these scans are drawn by a program: no evidence about real scans")
    if archive.num_rejected:
        notes.append(f"{archive.num_rejected} scans could not be read and were left out")
    return tuple(notes)


def _say_labeled(labeled: LabeledSet, archive: Archive) -> None:
    counts = ", ".join(f"{name}: {count}" for name, count in labeled.counts.items())
    left_out = {"without a label": labeled.num_blank, "uncertain (-1)": labeled.num_uncertain}
    blank = "".join(f"; {number} {why} left out" for why, number in left_out.items() if number)
    say(
        f"{labeled.target}: {len(labeled)} scans of {labeled.num_patients} patients "
        f"({counts}){blank}"
    )
    if not archive.patients_known:
        warn_user(
            "no patient column was found: each scan counts as a patient of its own, and folds may "
            "share patients; name it with patient_column="
        )
