"""Which scans of an archive take part in an audit, and whose they are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64, Shaped

from scanlearn.scans.identity import patient_codes
from scanlearn.scans.reader import Archive

TEST = "test"


@dataclass(frozen=True)
class ScanSet:
    """Scans of an archive that take part in an audit.

    Args:
        name: What it is called in tables and files: never a path.
        archive: Where the scans are.
        rows: ``[n]`` which of them.
        groups: ``[n]`` the side of the split each is on; equal pictures within a group are no leak.
        is_tested: ``[n]`` whether a test may fall on the scan.
        has_split: Whether the groups are sides of a given split; else they are the patients,
            which folds may part and do not cut.
    """

    name: str
    archive: Archive
    rows: Int64[np.ndarray, " n"]
    groups: Int64[np.ndarray, " n"]
    is_tested: Bool[np.ndarray, " n"]
    has_split: bool = False

    @classmethod
    def unlabeled(cls, name: str, archive: Archive) -> ScanSet:
        """Returns all scans of an archive that a network learns from."""
        rows = np.arange(len(archive))
        return cls(name, archive, rows, np.zeros_like(rows), np.zeros(len(rows), np.bool_))

    @classmethod
    def labeled(
        cls,
        name: str,
        archive: Archive,
        *,
        rows: Int64[np.ndarray, " n"] | None = None,
        split: Shaped[np.ndarray, " n"] | None = None,
    ) -> ScanSet:
        """Returns scans that a probe learns from and is tested on.

        Args:
            name: What the set is called.
            archive: Where the scans are.
            rows: ``[n]`` those that have a label; None for all.
            split: ``[n]`` the side of each, "test" or another; None where every scan may be tested
                and folds keep patients together.
        """
        rows = np.arange(len(archive)) if rows is None else rows
        if split is not None:
            groups = np.unique(split, return_inverse=True)[1].astype(np.int64)
            return cls(name, archive, rows, groups, split == TEST, has_split=True)
        groups = patient_codes(archive.patients[rows]) if archive.patients_known else rows
        return cls(name, archive, rows, groups, np.ones(len(rows), np.bool_))


def hindrance(first: ScanSet, second: ScanSet) -> str:
    """Returns why patients of two archives cannot be compared; nothing where they can."""
    both = f"{first.name} and {second.name}"
    if first.archive.synthetic_phantom or second.archive.synthetic_phantom:
        return f"Patients of {both} are not compared: those of drawn scans are nobody."
    for one in (first, second):
        if not one.archive.patients_known:
            return f"Patients of {both} cannot be compared: those of {one.name} are not known."
    keys = [one.archive.info.get("key") for one in (first, second)]
    if None in keys:
        return (
            f"Patients of {both} cannot be compared, since one was packed without a key; pack it "
            "again."
        )
    if keys[0] != keys[1]:
        return (
            f"Patients of {both} cannot be compared, since they were packed under different keys; "
            "pack both under one."
        )
    return ""


def unknown(one: ScanSet) -> str:
    """Returns that nobody knows whose scans these are."""
    return f"Patients of {one.name} are not known: each scan counts as its own."


def issuer_notes(first: ScanSet, second: ScanSet) -> tuple[str, ...]:
    """Returns what may keep one patient of two archives from being recognised."""
    issuers = [one.archive.info.get("issuer") for one in (first, second)]
    if issuers[0] == issuers[1]:
        return ()
    return (
        f"{first.name} and {second.name} have different issuers, so that equal patient numbers "
        "count as other people; where they are the same people, pack both with one issuer.",
    )
