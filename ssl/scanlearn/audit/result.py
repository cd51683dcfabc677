"""What an audit compares and finds, without paths and patients: on a terminal, as CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64, Shaped

from scanlearn.archive.identity import patient_codes
from scanlearn.archive.reader import Archive
from scanlearn.archive.spellings import Respelled, has_spellings
from scanlearn.audit.fingerprint import TURNS
from scanlearn.errors import ScanlearnError
from scanlearn.files import csv_cell, make_folder, write_atomically

FACTS_FILE, TABLE_FILE, SHEET_FILE = "audit.json", "audit.csv", "audit.png"
# For their owner alone.
PAIR_PATHS_FILE = "paths.csv"
# Side of a split that is tested.
TEST = "test"
KINDS = ("patient", "identical", "near")
PATIENT, IDENTICAL, NEAR = range(len(KINDS))
# A pair takes 23 bytes: an archive audited against itself is as many pairs as it has scans.
PAIR = np.dtype(
    [
        ("kind", "i1"),
        ("first", "i8"),
        ("second", "i8"),
        ("turn", "i1"),
        ("correlation", "f4"),
        ("is_tested", "?"),
    ]
)
_COLUMNS = (
    *("kind", "first", "first_scan", "second", "second_scan", "turn", "correlation"),
    "is_invalid",
)


@dataclass(frozen=True)
class ScanSet:
    """Scans of an archive that take part in an audit.

    Args:
        name: What it is called in tables and files: never a path.
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


def why_patients_not_compared(first: ScanSet, second: ScanSet) -> str:
    """Returns why patients of two archives cannot be compared; empty where they can."""
    sets = (first, second)
    unchecked = f"Patient overlap of {first.name} and {second.name} was not checked"
    if any(each.archive.synthetic_phantom for each in sets):
        return f"{unchecked}: synthetic scans have no patients."
    for each in sets:
        if not each.archive.patients_known:
            return f"{unchecked}: the patients of {each.name} are unknown."
    for each in sets:
        if each.archive.info.get("key") is None:
            return f"{unchecked}: {each.name} was packed without a key; pack it again."
    if first.archive.info["key"] != second.archive.info["key"]:
        return f"{unchecked}: they were packed under different keys; pack both under one key."
    return ""


def issuers_differ_by_default(first: ScanSet, second: ScanSet) -> bool:
    """Returns whether equal numbers count as two people only since folders have two names."""
    one, other = first.archive.info, second.archive.info
    is_given = one.get("issuer_given", False) and other.get("issuer_given", False)
    return one.get("issuer") != other.get("issuer") and not is_given


def issuer_notes(first: ScanSet, second: ScanSet) -> tuple[str, ...]:
    """Returns what may keep a patient of two archives from being recognised."""
    if first.archive.info.get("issuer") != second.archive.info.get("issuer"):
        return (
            f"{first.name} and {second.name} have different issuers, so equal patient numbers count"
            " as different people; if they are the same people, pack both with the same issuer=.",
        )
    earlier = [each.name for each in (first, second) if not has_spellings(each.archive)]
    if earlier:
        return (
            f"Whether patients of {first.name} and {second.name} agree but for leading zeros or the"
            f" like was not checked: {' and '.join(earlier)} was packed by an earlier release; pack"
            " it again (a cached copy: remove it from the cache).",
        )
    return ()


@dataclass(frozen=True)
class Comparison:
    """Two sets of scans, or one across its split, and the pairs that should not be there.

    Args:
        second: Name of the second set; equal to the first where one was compared across its split.
        num_patients: Patients in both, or on both sides of the split; None where that cannot be
            known.
        respelled: Patients of the second who agree with another one of the first but for how the
            number is written; None where there are none, or where they cannot be known.
        has_patients: False where scans were drawn, of nobody.
        num_blank: Scans of both without contrast, which are checked for equal pixels only.
        notes: What could not be compared, a sentence each.
        pairs: ``[p]`` of `PAIR`: kind, rows of both scans in their archives, how the second must
            be turned to look like the first, correlation (NaN for patients), and whether a test
            may fall on one of them.
        leaking: ``[r]`` rows of the first set that a network must not learn from: all scans of
            patients, and all copies of scans, that may be tested in the second.
    """

    first: str
    second: str
    num_scans: tuple[int, int]
    num_patients: int | None
    num_proposed: int
    num_blank: int
    notes: tuple[str, ...]
    pairs: Shaped[np.ndarray, " p"]
    first_ids: Shaped[np.ndarray, " p"]
    second_ids: Shaped[np.ndarray, " p"]
    respelled: Respelled | None = None
    has_patients: bool = True
    leaking: Int64[np.ndarray, " r"] = field(default_factory=lambda: np.zeros(0, np.int64))

    @property
    def title(self) -> str:
        """Which sets, in words."""
        return f"within {self.first}" if self.is_within else f"{self.first} and {self.second}"

    @property
    def is_within(self) -> bool:
        """Whether one set was compared across its split."""
        return self.first == self.second

    def count(self, kind: int) -> int:
        """Returns how many pairs are of a kind."""
        return int((self.pairs["kind"] == kind).sum())

    @property
    def num_invalid(self) -> int:
        """Scans of the second set in pairs that make a result invalid.

        A patient or equal pixels of a test scan are where they must not be.
        """
        invalid = self.pairs["is_tested"] & (self.pairs["kind"] != NEAR)
        return len(np.unique(self.pairs["second"][invalid]))

    def near_by_turn(self) -> dict[str, int]:
        """Near-duplicates by how one scan was flipped or turned."""
        turns = self.pairs["turn"][self.pairs["kind"] == NEAR]
        counts = np.bincount(turns, minlength=len(TURNS)).tolist()
        return {name: count for name, count in zip(TURNS, counts, strict=True) if count}

    def facts(self) -> dict[str, Any]:
        """Returns the counts as plain values."""
        return {
            "first": self.first,
            "second": self.second,
            "first_scans": self.num_scans[0],
            "second_scans": self.num_scans[1],
            "patients": self.num_patients,
            "respelled": self.respelled.num_patients if self.respelled else 0,
            "respelled_scans": list(self.respelled.scans) if self.respelled else [],
            "identical": self.count(IDENTICAL),
            "near": self.count(NEAR),
            "near_by_turn": self.near_by_turn(),
            "proposed": self.num_proposed,
            "without_contrast": self.num_blank,
            "invalid_scans": self.num_invalid,
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class Audit:
    """All comparisons of an audit."""

    comparisons: tuple[Comparison, ...]

    @property
    def is_invalid(self) -> bool:
        """Whether something was found that makes a result on the labels invalid."""
        return any(comparison.num_invalid for comparison in self.comparisons)

    def lines(self) -> Iterator[str]:
        """Yields the table, then notes, then the verdict, for a terminal."""
        width = max(len(comparison.title) for comparison in self.comparisons)
        heads = ("patients", "identical", "near", "proposed")
        yield f"{'':{width}}" + "".join(f"{head:>12}" for head in heads)
        for comparison in self.comparisons:
            facts = comparison.facts()
            cells = ("?" if facts[head] is None else f"{facts[head]:,}" for head in heads)
            yield f"{comparison.title:{width}}" + "".join(f"{cell:>12}" for cell in cells)
        for comparison in self.comparisons:
            turned = comparison.near_by_turn()
            if set(turned) - {TURNS[0]}:
                listed = ", ".join(f"{count:,} {name}" for name, count in turned.items())
                yield f"{comparison.title}: near-duplicates {listed}."
            if comparison.num_blank:
                yield (
                    f"{comparison.title}: {comparison.num_blank:,} scans have almost no contrast "
                    "and were not checked for near-duplicates."
                )
        yield from dict.fromkeys(note for each in self.comparisons for note in each.notes)
        yield self.verdict()

    def warnings(self) -> Iterator[str]:
        """Yields which patients may be one person, for the owner's eyes."""
        for comparison in self.comparisons:
            if comparison.respelled is not None:
                yield (
                    f"{comparison.title}: {comparison.respelled.told()}; they count as different"
                    " people: write their numbers in one way and pack again"
                )

    def verdict(self) -> str:
        """Returns in one sentence whether a result on the labels can be believed."""
        if self.is_invalid:
            return (
                "Results on these labels would be invalid: the network or the probe learns from "
                "patients or exact copies of test scans. output=FOLDER lists them; where they are "
                "in the archive, scantune compare with leaks=drop trains without them."
            )
        near = sum(comparison.count(NEAR) for comparison in self.comparisons)
        doubts = list(self._doubts())
        if doubts:
            # "No leak was found" was said of patients that nobody had compared.
            by_eye = f"; check the {near:,} near-duplicates by eye" if near else ""
            return f"No leak of pixels was found, but {'; '.join(doubts)}{by_eye}."
        if near:
            return f"No leak was found; check the {near:,} near-duplicates by eye."
        return "No leak was found."

    def _doubts(self) -> Iterator[str]:
        for comparison in self.comparisons:
            if comparison.respelled is not None:
                yield (
                    f"{comparison.respelled.num_patients:,} patients {_of(comparison)} may be"
                    " the same people as others"
                )
            elif comparison.num_patients is None and comparison.has_patients:
                yield f"patients {_of(comparison)} were not compared"

    def write(self, folder: Path, archives: Mapping[str, Archive] | None = None) -> None:
        """Writes ``audit.csv``, a row per pair, ``audit.json``, the counts, and ``paths.csv``.

        The last, readable by its owner alone, has the files of each pair; it is not written where
        the archives, by name, do not know them.
        """
        make_folder(folder)
        write_atomically(folder / TABLE_FILE, self._table())
        paths = "" if archives is None else self._paths(archives)
        if paths:
            write_atomically(folder / PAIR_PATHS_FILE, paths, mode=0o600)
        facts = {
            "format": 1,
            "is_invalid": self.is_invalid,
            "comparisons": [comparison.facts() for comparison in self.comparisons],
        }
        write_atomically(folder / FACTS_FILE, json.dumps(facts, indent=1) + "\n")

    def _table(self) -> str:
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(_COLUMNS)
        for comparison in self.comparisons:
            ids = zip(comparison.first_ids.tolist(), comparison.second_ids.tolist(), strict=True)
            for pair, (first_id, second_id) in zip(comparison.pairs, ids, strict=True):
                kind, r = pair["kind"], pair["correlation"]
                likeness = ("", "") if kind == PATIENT else (TURNS[pair["turn"]], f"{r:.4f}")
                names = (comparison.first, first_id, comparison.second, second_id)
                is_invalid = int(pair["is_tested"] and kind != NEAR)
                cells = (KINDS[kind], *names, *likeness, is_invalid)
                rows.writerow(map(csv_cell, cells))
        return text.getvalue()

    def _paths(self, archives: Mapping[str, Archive]) -> str:
        """Returns the files of all pairs as CSV; nothing where no archive knows its own."""
        of_scan = {name: _paths_if_known(archive) for name, archive in archives.items()}
        if not any(paths is not None for paths in of_scan.values()):
            return ""
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(("kind", "first", "first_path", "second", "second_path"))
        for comparison in self.comparisons:
            names = comparison.first, comparison.second
            for pair in comparison.pairs:
                cells = [KINDS[pair["kind"]]]
                for name, key in zip(names, ("first", "second"), strict=True):
                    paths = of_scan[name]
                    cells += [name, "" if paths is None else paths[pair[key]]]
                rows.writerow(map(csv_cell, cells))
        return text.getvalue()


def _paths_if_known(archive: Archive) -> Shaped[np.ndarray, " n"] | None:
    try:
        return archive.paths()
    except ScanlearnError:  # shared without its list of paths, or made from no files
        return None


def _of(comparison: Comparison) -> str:
    return comparison.title if comparison.is_within else f"of {comparison.title}"
