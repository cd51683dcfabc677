"""How many scans of how many patients a set holds, and what nobody knows of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64, Shaped

from scanlearn.archive.reader import Archive


def unknown_patients(
    scan_ids: Shaped[np.ndarray, " n"], patients: Shaped[np.ndarray, " n"], *, is_known: bool
) -> Bool[np.ndarray, " n"]:
    """Returns of which scans nobody knows the patient, ``[n]``.

    Packing lets the file of such a scan stand for its patient; frames of a file are numbered.

    Args:
        is_known: Whether the archive says that it knows the patient of every scan.
    """
    files = scan_ids.astype(np.str_)
    is_frame = np.char.find(files, "#") >= 0
    files[is_frame] = [name.partition("#")[0] for name in files[is_frame].tolist()]
    is_unknown: Bool[np.ndarray, " n"] = files == patients.astype(np.str_)
    # An archive that was written by other means names what stands for a patient otherwise.
    return is_unknown if is_known or is_unknown.any() else np.ones(len(scan_ids), np.bool_)


@dataclass(frozen=True)
class Count:
    """Scans and their patients; one number for both silently took each scan for a patient.

    Args:
        patients: Patients that are known.
        unknown: Scans whose patient is unknown.
        stand_ins: Patients that those scans count as: one for each scan, or for each file.
    """

    scans: int
    patients: int
    unknown: int = 0
    stand_ins: int = 0

    @classmethod
    def of(cls, patients: Shaped[np.ndarray, " n"], is_unknown: Bool[np.ndarray, " n"]) -> Count:
        """Returns the count of scans by their patients."""
        known, others = (len(np.unique(patients[side])) for side in (~is_unknown, is_unknown))
        return cls(len(patients), known, int(is_unknown.sum()), others)

    @classmethod
    def of_archive(cls, archive: Archive, rows: Int64[np.ndarray, " n"] | None = None) -> Count:
        """Returns the count of an archive's scans, of all or of those in some rows."""
        patients, scan_ids = archive.patients, archive.scan_ids
        is_unknown = unknown_patients(scan_ids, patients, is_known=archive.patients_known)
        rows = np.arange(len(archive)) if rows is None else rows
        return cls.of(patients[rows], is_unknown[rows])

    @property
    def known_patients(self) -> int | None:
        """Patients that are known; None where no scan has one."""
        return None if self.unknown and not self.patients else self.patients

    @property
    def in_words(self) -> str:
        """``12 scans of 5 patients``, with what is not known."""
        scans = _number(self.scans, "scan")
        if not self.unknown:
            return f"{scans} of {_number(self.patients, 'patient')}"
        if not self.patients:
            return f"{scans}, {self.caveat}"
        known = f"{self.scans - self.unknown:,} of {_number(self.patients, 'patient')}"
        return f"{scans}: {known}, {self.caveat}"

    @property
    def caveat(self) -> str:
        """What is not known of the patients; empty where all are known."""
        if not self.unknown:
            return ""
        each = "scan" if self.stand_ins == self.unknown else "file"
        if not self.patients:
            return f"patients unknown; each {each} counted as one"
        return f"patients of {self.unknown:,} unknown; each {each} of these counted as one"

    @property
    def units(self) -> str:
        """What is resampled and split: ``patients``, or ``scans`` where no patient is known."""
        if self.known_patients is not None:
            return "patients"
        return "scans" if self.stand_ins == self.unknown else "files"


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
