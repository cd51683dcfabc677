"""What an audit found: counts for a person, tables for a script, and no path or patient in them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from scanlearn.runs import write_atomically
from scanlearn.scans.fingerprint import TURNS

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
FACTS_FILE, TABLE_FILE, SHEET_FILE = "audit.json", "audit.csv", "audit.png"


@dataclass(frozen=True)
class Comparison:
    """Two sets of scans, or one across its split, and the pairs that should not be there.

    Args:
        first: Name of the first set.
        second: Name of the second set; equal to the first where one was compared across its split.
        num_scans: Scans of either set.
        num_patients: Patients in both, or on both sides of the split; None where that cannot be
            known.
        num_proposed: Pairs whose hashes are close.
        num_blank: Scans of both without contrast, which look like nothing.
        notes: What stands in the way of the comparison, a sentence each.
        pairs: ``[p]`` of `PAIR`: kind, rows of both scans in their archives, how the second must
            be turned to look like the first, correlation (NaN for patients), and whether a test
            may fall on one of them.
        first_ids: ``[p]`` name of the first scan of each pair.
        second_ids: ``[p]`` name of the second.
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
                    f"{comparison.title}: {comparison.num_blank:,} scans show nothing, and are "
                    "compared with none."
                )
        yield from dict.fromkeys(note for found in self.comparisons for note in found.notes)
        yield self.verdict()

    def verdict(self) -> str:
        """Returns in one sentence whether a result on the labels can be believed."""
        if self.is_invalid:
            return (
                "A result on these labels would be invalid: patients or equal pixels of test scans "
                "are where the network or the probe learns."
            )
        near = sum(comparison.count(NEAR) for comparison in self.comparisons)
        if near:
            return f"Nothing makes a result invalid; look at the {near:,} near-duplicates."
        return "Nothing was found."

    def write(self, folder: Path) -> None:
        """Writes ``audit.csv``, a row per pair, and ``audit.json``, the counts."""
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / TABLE_FILE, self._table())
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
        for found in self.comparisons:
            ids = zip(found.first_ids.tolist(), found.second_ids.tolist(), strict=True)
            for (kind, _, _, turn, r, tested), (one, other) in zip(
                found.pairs.tolist(), ids, strict=True
            ):
                shown = ("", "") if kind == PATIENT else (TURNS[turn], f"{r:.4f}")
                invalid = int(tested and kind != NEAR)
                rows.writerow((KINDS[kind], found.first, one, found.second, other, *shown, invalid))
        return text.getvalue()
