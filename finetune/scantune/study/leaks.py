"""Whether test patients and test scans are among those that the arms or the probes learn from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from pydantic import BaseModel

from scanlearn.archive.reader import Archive
from scanlearn.archive.spellings import agreeing
from scanlearn.audit.leaks import find_leaks
from scanlearn.audit.result import FACTS_FILE, ScanSet
from scanlearn.config.reading import read_json
from scanlearn.console import say, warn_user
from scanlearn.errors import ScanlearnError
from scanlearn.files import write_atomically
from scantune.labels.labeled_set import LabeledSet
from scantune.study.folder import StudyFolder
from scantune.study.plan import CompareConfig
from scantune.study.results import Leak

UNLABELED = "unlabeled"


def find_study_leaks(
    config: CompareConfig,
    folder: StudyFolder,
    unlabeled: Archive,
    archives: tuple[Archive, ...],
    tasks: Mapping[str, LabeledSet],
) -> tuple[Leak, ...]:
    """Audits the scans of a study once, and reads back what was found when it goes on.

    Scans without a label for any task are neither learned from by a probe nor tested, and count
    as unlabeled ones only where they are among these.

    Args:
        archives: The labeled scans, and the external test set where there is one; that these two
            share no patient and no pixels was made sure when the labels were read.

    Raises:
        ScanlearnError: A test patient or the pixels of a test scan are among the scans learned
            from, and the plan does not say to go on.
    """
    path = folder.leaks / FACTS_FILE
    if not (path.is_file() and folder.leaking.is_file()):
        with folder.timed("leak audit"):
            labeled = [
                _labeled(source, archive, tasks.values()) for source, archive in enumerate(archives)
            ]
            first = ScanSet.unlabeled(UNLABELED, unlabeled)
            audit = find_leaks(first, labeled)
            rows = [found.leaking for found in audit.comparisons if found.first == UNLABELED]
            names = unlabeled.scan_ids[np.unique(np.concatenate(rows))].tolist()
            audit.write(folder.leaks, {scans.name: scans.archive for scans in (first, *labeled)})
            leaking = "".join(f"{name}\n" for name in names)
            _check_dropped(config, folder, leaking)
            # Last: where it is, the audit is complete.
            write_atomically(folder.leaking, leaking)
            folder.leaking_before.unlink(missing_ok=True)
        for line in audit.lines():
            say(line)
    leaks = read_leaks(folder)
    # What lies within the labels cannot be mended by training on fewer scans.
    refused = {"refuse": leaks, "warn": (), "drop": [leak for leak in leaks if leak.is_within]}
    invalid = "; ".join(_invalid(refused[config.leaks]))
    if invalid:
        drop = ", or leaks=drop to train without those unlabeled scans"
        raise ScanlearnError(
            f"{invalid}: remove the scans listed in {folder.leaks} from either set, or set "
            "leaks=warn to continue, with a warning in the report"
            f"{'' if config.leaks == 'drop' else drop}"
        )
    for warning in leak_warnings(leaks, num_dropped=len(dropped(config, folder))):
        warn_user(warning)
    return leaks


def _check_dropped(config: CompareConfig, folder: StudyFolder, leaking: str) -> None:
    """Refuses tasks for which arms that are trained should have been trained on other scans."""
    before = folder.leaking_before
    is_same = not before.is_file() or before.read_text(encoding="utf-8") == leaking
    if config.leaks == "drop" and not is_same and any(folder.path.glob("arms/*/*/config.yaml")):
        raise ScanlearnError(
            f"{folder.path}: with these tasks other unlabeled scans may be tested, and leaks=drop "
            "would train on other scans than those of the networks that are there: restore tasks, "
            "or name another output folder"
        )


class _Facts(BaseModel):
    comparisons: tuple[Leak, ...]


def read_leaks(folder: StudyFolder) -> tuple[Leak, ...]:
    """Returns what the audit of a study found.

    Raises:
        ScanlearnError: ``audit.json`` is damaged.
    """
    return read_json(
        folder.leaks / FACTS_FILE,
        _Facts,
        what="does not hold what the audit found",
        remedy="delete it to audit the scans again",
    ).comparisons


def dropped(config: CompareConfig, folder: StudyFolder) -> list[str]:
    """Returns the ids of the unlabeled scans that no arm trains on, as the plan asks."""
    if config.leaks != "drop":
        return []
    return folder.leaking.read_text(encoding="utf-8").split()


def leak_warnings(leaks: Sequence[Leak], num_dropped: int = 0) -> tuple[str, ...]:
    """What a reader must know of the leaks that were found.

    Args:
        num_dropped: Unlabeled scans that were left out of pretraining for them.
    """
    dropped_text = (
        f"{num_dropped:,} unlabeled scans were left out of pretraining: their patients, or "
        "copies of them, may be tested (leaks/leaking.txt).",
    )
    # Patients of another spelling are not dropped: nobody knows whether they are the same.
    left = [leak for leak in leaks if leak.is_within] if num_dropped else leaks
    respelled = (
        f"{leak.title}: {agreeing(leak.respelled, leak.respelled_scans)}; they count as different"
        " people: write their numbers in one way."
        for leak in leaks
        if leak.respelled
    )
    near = (
        f"{leak.title}: {leak.near:,} pairs of near-duplicates, listed in leaks/audit.csv."
        for leak in left
        if leak.near
    )
    return (
        *(dropped_text if num_dropped else ()),
        *(f"{told}." for told in _invalid(left)),
        *respelled,
        *near,
    )


def _invalid(leaks: Sequence[Leak]) -> Iterator[str]:
    for leak in leaks:
        if leak.invalid_scans:
            shared = f"{leak.patients:,} patients and " if leak.patients else ""
            yield (
                f"{leak.title}: {leak.invalid_scans:,} scans make the result invalid ({shared}"
                f"{leak.identical:,} scans with identical pixels)"
            )


def _labeled(source: int, archive: Archive, tasks: Iterable[LabeledSet]) -> ScanSet:
    """Returns the scans of one archive that have a label for some task, and their sides."""
    is_labeled = np.zeros(len(archive), np.bool_)
    split = np.full(len(archive), "", dtype="<U5")
    for labeled in tasks:
        of_archive = labeled.sources == source if labeled.sources is not None else slice(None)
        rows = labeled.rows[of_archive]
        is_labeled[rows] = True
        if labeled.split is not None:
            split[rows] = labeled.split[of_archive]
    rows = np.flatnonzero(is_labeled)
    sides = split[rows]
    return ScanSet.labeled(
        ("labels", "test")[source],
        archive,
        rows=rows,
        split=sides if (sides != "").all() else None,
    )
