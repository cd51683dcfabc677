"""`predict`: a kept classifier on new scans."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from jaxtyping import Float, Int
from pydantic import Field

from scanlearn.archive.reader import Archive
from scanlearn.config.calls import checked
from scanlearn.console import counted, loading, say, warn_user
from scanlearn.errors import ScanlearnError
from scanlearn.files import check_exists, csv_cell, disk_errors, make_folder, write_atomically
from scanlearn.packing.headers import LEFT_OUT
from scanlearn.packing.settings import FILTERS, PackSettings, pixel_settings
from scanlearn.packing.sources import check_source, open_archive
from scanlearn.readers.dicom_tags import value_representation
from scanlearn.tables.settings import DEFAULT_TABLE, Table
from scantune.labels.truth import Truth

if TYPE_CHECKING:
    from scantune.evaluation.classifier import ClassifierCard


@checked
def predict(
    model: Annotated[str | Path, Field(description="Folder of a classifier that evaluate kept.")],
    scans: Annotated[str | Path, Field(description="An archive, a folder or a table.")],
    *,
    output: Annotated[
        str | Path, Field(description="The CSV to write.", examples=["predictions.csv"])
    ],
    files: Annotated[
        bool, Field(description="Whether the CSV names each scan's file; false: its hash alone.")
    ] = True,
    filters: Annotated[
        bool,
        Field(
            description="Whether scans that are not packed yet are chosen by the filters on DICOM"
            " tags (keep, drop) that the classifier's training scans were packed with."
        ),
    ] = True,
    table: Table = DEFAULT_TABLE,
) -> Float[np.ndarray, "n k"]:
    """Score new scans with a saved classifier and write a CSV.

    Scans that are not packed yet are packed as the classifier's training scans were, and chosen by
    the same filters on DICOM tags. Where a filter was not applied, a warning names it.

    The CSV has a row per scan: its hash, its file, a probability per class, the most probable class
    (not of findings) and whether each class is called at its threshold.

    Returns:
        ``[n k]`` the probabilities.

    Raises:
        ScanlearnError: The classifier or the scans cannot be used, or the disk is full.

    Example:
        >>> predict("scores/classifier", "new", output=Path("new.csv"))    # doctest: +SKIP
    """
    check_exists(Path(model).expanduser())
    check_source(scans)
    # Here, since the settings are read without torch and timm, which take seconds.
    with loading("torch", "timm"):
        from scanlearn.backbones.device import preferred_device
        from scanlearn.features.extract import all_square, extract
        from scantune.evaluation.classifier import Classifier

    classifier = Classifier(Path(model).expanduser())
    card, backbone = classifier.card, classifier.backbone
    # Cards of earlier versions hold how a phantom was drawn, too.
    packing = {**pixel_settings(card.packing), "channels": backbone.channels}
    if filters:
        packing |= _tag_filters(card)
    archive = open_archive(scans, settings=PackSettings.of_table(table, **packing))
    if archive.shape[0] != backbone.channels:
        raise ScanlearnError(
            f"{archive.path}: the scans have {archive.shape[0]} channels, but the classifier takes "
            f"{backbone.channels}; pack them with channels={backbone.channels}"
        )
    if filters:
        _tell_of_filters(archive, card)
    # Asked for before the features are computed: a copied archive may hold no paths.
    paths = _paths(archive) if files and archive.info.get("key") else None
    backbone = backbone.eval().to(preferred_device())
    if card.framing == "squeeze" and not all_square(archive):
        warn_user(
            f"{model}: an earlier version fitted it on scans squeezed into a square, and so it "
            "sees these; run evaluate again for one that sees them in their own aspect"
        )
    features = extract(
        backbone, archive, size=card.size, mean=card.mean, std=card.std, framing=card.framing
    )
    probabilities = classifier.probabilities(features)
    output = Path(output).expanduser()
    with disk_errors(output.parent):
        make_folder(output.parent)
    write_atomically(output, _table(archive, card, probabilities, paths))
    say(f"{len(archive):,} scans {_in_words(card, probabilities)}: {output}")
    if archive.num_rejected:
        where = archive.path / "rejected.csv"
        told = f"{counted(archive.num_rejected, 'scan')} could not be read and got no row"
        warn_user(f"{told}; see {where}")
    return probabilities


def _tag_filters(card: ClassifierCard) -> dict[str, dict[str, Any]]:
    """Returns the filters on DICOM tags; columns of the labels' table are not in new scans."""
    return {
        kind: {
            name: patterns
            for name, patterns in card.packing.get(kind, {}).items()
            if value_representation(name) is not None
        }
        for kind in FILTERS
    }


def _tell_of_filters(archive: Archive, card: ClassifierCard) -> None:
    """Says which filters of the classifier's training scans chose these scans, and which not."""
    applied = archive.info["settings"]
    rules = [(kind, name) for kind in FILTERS for name in card.packing.get(kind, {})]
    missing = [
        f"{kind}.{name}"
        for kind, name in rules
        if applied.get(kind, {}).get(name) != card.packing[kind][name]
    ]
    if missing:
        warn_user(
            f"{archive.path}: its scans were not chosen by {', '.join(missing)}, as the "
            "classifier's training scans were; see that they are of the same kind (filters=false "
            "leaves out this warning)"
        )
    counts = archive.info.get("notes", {})
    for setting in (f"{kind}.{name}" for kind, name in rules if f"{kind}.{name}" not in missing):
        if count := counts.get(f"{LEFT_OUT} {setting}"):
            warn_user(
                f"{count:,} files were left out by {setting}, as in the classifier's training "
                "scans, and have no row; filters=false scores them too"
            )


def _paths(archive: Archive) -> np.ndarray:
    try:
        return archive.paths()
    except ScanlearnError as error:
        raise ScanlearnError(f"{error}; files=false leaves them out") from error


def _in_words(card: ClassifierCard, probabilities: Float[np.ndarray, "n k"]) -> str:
    if card.task == "multilabel":
        by, counts = "with each finding at its threshold", _calls(card, probabilities).sum(axis=0)
        named = dict(zip((card.classes[code] for code in _called(card)), counts, strict=True))
    else:
        by = f"by their most probable {card.target}"
        counts = np.bincount(probabilities.argmax(axis=1), minlength=len(card.classes))
        named = dict(zip(card.classes, counts, strict=True))
    return f"{by} ({', '.join(f'{name}: {count:,}' for name, count in named.items())})"


def _called(card: ClassifierCard) -> list[int]:
    """Returns the classes that are called: those asked about that have a threshold."""
    asked = Truth(np.zeros((0, len(card.classes)), np.int8), card.task).asked
    return [code for code in asked if card.thresholds[code] is not None]


def _calls(card: ClassifierCard, probabilities: Float[np.ndarray, "n k"]) -> Int[np.ndarray, "n j"]:
    codes = _called(card)
    thresholds = np.array([card.thresholds[code] for code in codes], np.float64)
    return np.asarray((probabilities[:, codes] >= thresholds).astype(np.int64))


def _table(
    archive: Archive,
    card: ClassifierCard,
    probabilities: Float[np.ndarray, "n k"],
    paths: np.ndarray | None,
) -> str:
    # A scan may have any number of findings: none of them is "the" class.
    is_exclusive = card.task != "multilabel"
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(
        [
            *(["scan"] if paths is None else ["scan", "file"]),
            *(f"probability_{name}" for name in card.classes),
            *(["most_probable"] if is_exclusive else []),
            *(f"called_{card.classes[code]}" for code in _called(card)),
        ]
    )
    names = zip(archive.scan_ids, *(() if paths is None else (paths,)), strict=True)
    calls = _calls(card, probabilities)
    for name, values, called in zip(names, probabilities, calls, strict=True):
        table.writerow(
            [
                *map(csv_cell, name),
                *(f"{value:.6g}" for value in values),
                *([csv_cell(card.classes[int(values.argmax())])] if is_exclusive else []),
                *called,
            ]
        )
    return text.getvalue()
