"""The external test set: trained on one set of scans, tested on another."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import UInt64

from scanlearn.archive.identity import patient_codes
from scanlearn.archive.reader import Archive
from scanlearn.archive.spellings import respelled_across
from scanlearn.audit.fingerprint import batch_size, digests_of
from scanlearn.audit.pairs import equal_pairs
from scanlearn.audit.result import (
    ScanSet,
    issuer_notes,
    issuers_differ_by_default,
    why_patients_not_compared,
)
from scanlearn.errors import ScanlearnError
from scanlearn.packing.settings import SOURCE_SETTINGS, PackSettings, pixel_settings
from scanlearn.packing.sources import open_archive
from scanlearn.tables.merge import MERGED
from scantune.labels.classes import Check, Target, read_target
from scantune.labels.labeled_set import LabeledSet, label
from scantune.labels.table import NamedTable
from scantune.labels.truth import Truth

_OF_THE_CANVAS = frozenset({"canvas", "channels"})


def open_external(
    source: str | Path, like: Archive, settings: PackSettings, single: Collection[str] = ()
) -> Archive:
    """Returns the archive of a test set, packed as the labeled scans are if it is not packed yet.

    Args:
        single: Columns that must have one value for each scan.

    Raises:
        ScanlearnError: It cannot be used, or has other channels.
    """
    of_pixels = pixel_settings(like.info["settings"])
    of_source = settings.model_dump(include=set(SOURCE_SETTINGS))
    channels = like.shape[0]
    packing = PackSettings.model_validate({**of_source, **of_pixels, "channels": channels})
    archive = open_archive(source, settings=packing, single=single)
    if archive.shape[0] != channels:
        raise ScanlearnError(
            f"{source}: the test scans have {archive.shape[0]} channels, but the labeled ones "
            f"have {channels}; pack one of them again with the channels of the other"
        )
    return archive


def read_external(
    archive: Archive,
    labeled: LabeledSet,
    target: Target,
    *,
    is_chosen: bool,
    synthetic_column: str | None,
    source: str,
) -> LabeledSet:
    """Returns the scans of a test set that have a label for the same target.

    Args:
        labeled: The scans that train: their classes are those of the test set, which need not have
            them all.

    Raises:
        ScanlearnError: A column is missing, or a label is of a class that nobody trains on.
    """
    named = NamedTable(archive, source, is_numbered=MERGED not in archive.info.get("notes", {}))
    task = labeled.truth.task
    check: Check = "none" if is_chosen else "known"
    labels = read_target(named, target, task, classes=labeled.classes, check=check)
    column = synthetic_column if synthetic_column in archive.label_columns else None
    return label(named, labels, target, task, synthetic_column=column)


def join(
    labeled: LabeledSet, external: LabeledSet, archives: tuple[Archive, Archive]
) -> LabeledSet:
    """Returns both sets as one, split into the scans that train and those that test.

    Args:
        external: Scans to test on; synthetic ones among them are left out.

    Raises:
        ScanlearnError: A patient, or the pixels of a scan, are in both.
    """
    notes = [*labeled.notes, *packing_notes(archives)]
    if external.num_synthetic:
        notes.append(f"{external.num_synthetic:,} synthetic scans of the test set are left out")
        external = external[external.truth.is_real]
    real = labeled[labeled.truth.is_real]
    sets = [
        ScanSet.labeled(name, archive, rows=part.rows)
        for name, archive, part in zip(("labels", "test"), archives, (real, external), strict=True)
    ]
    reason = why_patients_not_compared(*sets)
    notes += [reason.rstrip(".")] if reason else [n.rstrip(".") for n in issuer_notes(*sets)]
    if not reason:
        _refuse_shared_patients(real, external, archives)
        respelled = respelled_across(*archives, real.rows, external.rows)
        if respelled is not None:
            notes.append(
                f"of the test set {respelled.told(is_owner=False)} in training; they count as"
                " different people: write their numbers in one way"
            )
    _refuse_equal_pixels(real, external, archives)
    both = (labeled, external)
    names = [archive.patients[part.rows] for part, archive in zip(both, archives, strict=True)]
    if reason:
        # Equal names are no sign of one patient then.
        names = [np.char.add(f"{place}:", patients) for place, patients in enumerate(names)]
    sizes = [len(labeled), len(external)]
    is_real = np.concatenate([part.truth.is_real for part in both])
    matrix = np.concatenate([part.truth.matrix for part in both])
    is_unknown = np.concatenate([part.unknown_patients for part in both])
    return replace(
        labeled,
        truth=Truth(matrix, labeled.truth.task, None if is_real.all() else ~is_real),
        patients=patient_codes(np.concatenate(names)),
        rows=np.concatenate([part.rows for part in both]),
        split=np.repeat(["train", "test"], sizes),
        num_blank=labeled.num_blank + external.num_blank,
        num_uncertain=labeled.num_uncertain + external.num_uncertain,
        uncertain=tuple(np.add(labeled.uncertain, external.uncertain).tolist()),
        sources=np.repeat([0, 1], sizes),
        is_unknown=is_unknown if is_unknown.any() else None,
        is_compared=not reason and not issuers_differ_by_default(*sets),
        notes=tuple(notes),
    )


def packing_notes(archives: tuple[Archive, Archive]) -> tuple[str, ...]:
    """Returns in what the pixels of both sets were treated differently, if in anything."""
    first, second = (pixel_settings(archive.info["settings"]) for archive in archives)
    if not first or not second:
        return ()
    keys = sorted({*first, *second} - _OF_THE_CANVAS)
    return tuple(
        f"labeled scans were packed with {key}={first.get(key)}, test scans with "
        f"{key}={second.get(key)}"
        for key in keys
        if first.get(key) != second.get(key)
    )


def _refuse_shared_patients(
    labeled: LabeledSet, external: LabeledSet, archives: tuple[Archive, Archive]
) -> None:
    patients = archives[1].patients[external.rows]
    is_shared = np.isin(patients, archives[0].patients[labeled.rows])
    if is_shared.any():
        raise ScanlearnError(
            f"{len(set(patients[is_shared]))} of {len(set(patients))} patients of the test set "
            f"also have labeled training scans, first that of test scan "
            f"{archives[1].scan_ids[external.rows[is_shared][0]]}; remove them from one of the sets"
        )


def _refuse_equal_pixels(
    labeled: LabeledSet, external: LabeledSet, archives: tuple[Archive, Archive]
) -> None:
    train, test = (
        _digests(archive, part.rows)
        for archive, part in zip(archives, (labeled, external), strict=True)
    )
    train_places, test_places = equal_pairs(train, test)
    is_digest = test[test_places] != 0
    train_places, test_places = train_places[is_digest], test_places[is_digest]
    if len(test_places):
        raise ScanlearnError(
            f"{len(test_places)} of {len(external)} scans of the test set equal labeled training "
            f"scans pixel by pixel, first {archives[1].scan_ids[external.rows[test_places[0]]]} "
            f"equals {archives[0].scan_ids[labeled.rows[train_places[0]]]}; remove them from one "
            "of the sets"
        )


def _digests(archive: Archive, rows: np.ndarray) -> UInt64[np.ndarray, " n"]:
    size = batch_size(archive)
    parts = [
        digests_of(archive.gather(rows[start : start + size]))
        for start in range(0, len(rows), size)
    ]
    return np.concatenate(parts)
