"""`predict`: a kept classifier on new scans."""

from __future__ import annotations

import csv
import io
from collections import Counter
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field

from scanlearn.core import ScanlearnError
from scanlearn.features import extract
from scanlearn.runs import say, warn_user, write_atomically
from scanlearn.scans.archive import Archive
from scanlearn.scans.atomic import disk_errors
from scanlearn.scans.settings import PackSettings
from scanlearn.scans.source import open_archive
from scantune.classifier import Classifier, ClassifierCard


def predict(
    model: Annotated[str | Path, Field(description="A classifier's folder.")],
    scans: Annotated[str | Path, Field(description="An archive, a folder or a table.")],
    *,
    output: Annotated[Path, Field(description="The CSV to write.", examples=["predictions.csv"])],
    files: Annotated[
        bool, Field(description="Whether the CSV names each scan's file; false: its hash alone.")
    ] = True,
) -> Float[np.ndarray, "n k"]:
    """Writes the probability of each class for every scan, in the order of the archive.

    Scans that are not packed yet are packed as the classifier's own were.

    Args:
        model: Folder of a classifier that `evaluate` kept.
        scans: An archive, a folder of scans or a table.
        output: The CSV: a row per scan with its hash, its file, a probability per class, the most
            probable class and whether each class is called at its threshold.
        files: Whether files are named.

    Returns:
        ``[n k]`` the probabilities.

    Raises:
        ScanlearnError: The classifier or the scans cannot be used, or the disk is full.

    Example:
        >>> predict("scores/classifier", "new", output=Path("new.csv"))    # doctest: +SKIP
    """
    classifier = Classifier(Path(model).expanduser())
    card, backbone = classifier.card, classifier.backbone
    settings = PackSettings.model_validate({**card.packing, "channels": backbone.channels})
    archive = open_archive(scans, settings=settings)
    if archive.shape[0] != backbone.channels:
        raise ScanlearnError(
            f"{archive.path}: the scans have {archive.shape[0]} channels, but the classifier takes "
            f"{backbone.channels}; pack them with channels={backbone.channels}"
        )
    # Asked for before the features are computed: a copied archive may hold no paths.
    paths = _paths(archive) if files and archive.info.get("key") else None
    backbone = backbone.eval().to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    features = extract(backbone, archive, size=card.size, mean=card.mean, std=card.std)
    probabilities = classifier.probabilities(features)
    with disk_errors(output.parent):
        output.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(output, _table(archive, card, probabilities, paths))
    counts = Counter(card.classes[code] for code in probabilities.argmax(axis=1))
    listed = ", ".join(f"{name}: {counts[name]:,}" for name in card.classes)
    say(f"{len(archive):,} scans by their most probable {card.target} ({listed}): {output}")
    if archive.num_rejected:
        where = archive.path / "rejected.csv"
        warn_user(f"{archive.num_rejected:,} scans could not be read and have no row: {where}")
    return probabilities


def _paths(archive: Archive) -> np.ndarray:
    try:
        return archive.paths()
    except ScanlearnError as error:
        raise ScanlearnError(f"{error}; files=false leaves them out") from error


def _table(
    archive: Archive,
    card: ClassifierCard,
    probabilities: Float[np.ndarray, "n k"],
    paths: np.ndarray | None,
) -> str:
    called = [(c, t) for c, t in enumerate(card.thresholds) if t is not None]
    if len(card.classes) == 2:
        called = [pair for pair in called if pair[0] == 1]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(
        [
            *(["scan"] if paths is None else ["scan", "file"]),
            *(f"probability_{name}" for name in card.classes),
            "most_probable",
            *(f"called_{card.classes[code]}" for code, _ in called),
        ]
    )
    names = zip(archive.scan_ids, *(() if paths is None else (paths,)), strict=True)
    for name, values in zip(names, probabilities, strict=True):
        table.writerow(
            [
                *name,
                *(f"{value:.6g}" for value in values),
                card.classes[int(values.argmax())],
                *(int(values[code] >= threshold) for code, threshold in called),
            ]
        )
    return text.getvalue()
