"""Whether test patients and test scans are among those that the arms or the probes learn from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from scanlearn.archive.reader import Archive
from scanlearn.archive.spellings import agreeing
from scanlearn.audit.leaks import find_leaks
from scanlearn.audit.result import FACTS_FILE, ScanSet
from scanlearn.console import say, warn_user
from scanlearn.errors import ScanlearnError
from scantune.comparison.folder import StudyFolder
from scantune.comparison.plan import CompareConfig
from scantune.comparison.results import Leak
from scantune.labels.labeled_set import LabeledSet


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
    if not path.is_file():
        with folder.timed("leak audit"):
            labeled = [
                _labeled(source, archive, tasks.values()) for source, archive in enumerate(archives)
            ]
            audit = find_leaks(ScanSet.unlabeled("unlabeled", unlabeled), labeled)
            audit.write(folder.leaks)
        for line in audit.lines():
            say(line)
    facts = json.loads(path.read_text(encoding="utf-8"))["comparisons"]
    leaks = tuple(Leak.model_validate(fact) for fact in facts)
    invalid = "; ".join(_invalid(leaks))
    if invalid and config.leaks == "refuse":
        raise ScanlearnError(
            f"{invalid}: remove the scans listed in {folder.leaks} from either set, or set "
            "leaks=warn to continue, with a warning in the report"
        )
    for warning in leak_warnings(leaks):
        warn_user(warning)
    return leaks


def leak_warnings(leaks: Sequence[Leak]) -> tuple[str, ...]:
    """What a reader must know of the leaks that were found."""
    near = (
        f"{leak.title}: {leak.near:,} pairs of near-duplicates, listed in leaks/audit.csv."
        for leak in leaks
        if leak.near
    )
    respelled = (
        f"{leak.title}: {agreeing(leak.respelled, leak.respelled_scans)}; they count as different"
        " people: write their numbers in one way."
        for leak in leaks
        if leak.respelled
    )
    return (*(f"{told}." for told in _invalid(leaks)), *respelled, *near)


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
