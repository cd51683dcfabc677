"""What unlabeled and labeled scans share: patients, equal pixels and near-duplicates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Int64, Shaped

from scanlearn.archive.identity import patient_codes
from scanlearn.archive.reader import Archive
from scanlearn.archive.spellings import respelled_across, respelled_within
from scanlearn.audit import pairs
from scanlearn.audit.fingerprint import Fingerprints, fingerprint
from scanlearn.audit.kept import Arrays, kept
from scanlearn.audit.proposals import num_rounds, propose
from scanlearn.audit.result import (
    IDENTICAL,
    NEAR,
    PAIR,
    PATIENT,
    TEST,
    Audit,
    Comparison,
    ScanSet,
    issuer_notes,
    issuers_differ_by_default,
    why_patients_not_compared,
)
from scanlearn.console import Progressor, track
from scanlearn.errors import ScanlearnError
from scanlearn.tables.reading import cell_text

LEAST_CORRELATION = 0.99
LEAST_DETAIL = 0.8


def find_leaks(unlabeled: ScanSet, labeled: Sequence[ScanSet]) -> Audit:
    """Returns what is shared by unlabeled and labeled scans, and inside each labeled set.

    Besides 134 bytes a scan for the fingerprints, some 300 are held while pairs are looked for.
    """
    sets = (unlabeled, *labeled)
    with track(sum(len(scans.rows) for scans in sets), "fingerprints") as progress:
        prints = [_fingerprints(scans, progress) for scans in sets]
    comparisons = []
    for scans, its_prints in zip(labeled, prints[1:], strict=True):
        comparisons.append(_compare(unlabeled, scans, prints[0], its_prints))
        comparisons.append(_compare(scans, scans, its_prints, its_prints))
    return Audit(tuple(comparisons))


def _fingerprints(scans: ScanSet, progress: Progressor) -> Fingerprints:
    def make() -> Arrays:
        made = fingerprint(scans.archive, scans.rows, progress)
        return {
            "digests": made.digests,
            "spectra": made.spectra,
            "sample": made.sample.numpy(),
        }

    arrays = kept("fingerprints", (scans,), make, progress)
    return Fingerprints(arrays["digests"], arrays["spectra"], torch.from_numpy(arrays["sample"]))


def read_split(
    archive: Archive, column: str | None
) -> tuple[Int64[np.ndarray, " n"] | None, Shaped[np.ndarray, " n"] | None]:
    """Returns the rows that the split column names a side for, and that side."""
    if column is None:
        return None, None
    sides = np.array([(cell_text(value) or "").lower() for value in archive.labels(column)])
    rows = np.flatnonzero(sides != "")
    if TEST not in sides[rows]:
        known = ", ".join(np.unique(sides[rows])[:5].tolist()) or "blank"
        raise ScanlearnError(
            f"{archive.path.name}: split column '{column}' marks no scan as test (its values are "
            f"{known}); name another column or leave split_column out"
        )
    return rows, sides[rows]


def _compare(first: ScanSet, second: ScanSet, one: Fingerprints, other: Fingerprints) -> Comparison:
    is_within = first is second
    patients, num_patients, notes = _shared_patients(first, second)
    has_patients = not any(scans.archive.synthetic_phantom for scans in (first, second))
    respelled = None
    if has_patients and not why_patients_not_compared(first, second):
        respelled = (
            respelled_within(first.archive, first.rows)
            if is_within
            else respelled_across(first.archive, second.archive, first.rows, second.rows)
        )
    equal = (
        pairs.equal_across(one.digests, first.groups)
        if is_within
        else pairs.equal_pairs(one.digests, other.digests)
    )
    has_content = one.digests[equal[0]] != 0
    identical = _pairs(first, second, IDENTICAL, *(places[has_content] for places in equal))
    identical["correlation"] = 1.0
    near, num_proposed = _kept_near_duplicates(first, second, one, other)
    together = np.concatenate([patients, identical, near])
    leaking = np.zeros(0, np.int64)
    if not is_within:
        leaking = _leaking_rows(first, second, one, other, together)
    blank = sum(int((~each.has_contrast).sum()) for each in ((one,) if is_within else (one, other)))
    # Names are strings, read only where there is something to name.
    ids = [
        scans.archive.scan_ids[together[key]] if len(together) else np.array([], np.str_)
        for scans, key in ((first, "first"), (second, "second"))
    ]
    return Comparison(
        first=first.name,
        second=second.name,
        num_scans=(len(one), len(other)),
        num_patients=num_patients,
        num_proposed=num_proposed,
        num_blank=blank,
        notes=notes,
        pairs=together,
        first_ids=ids[0],
        second_ids=ids[1],
        respelled=respelled,
        has_patients=has_patients,
        leaking=leaking,
    )


def _leaking_rows(
    first: ScanSet,
    second: ScanSet,
    one: Fingerprints,
    other: Fingerprints,
    pairs: Shaped[np.ndarray, " p"],
) -> Int64[np.ndarray, " r"]:
    """Returns all rows of the first set with a patient or a copy that is tested in the second.

    A pair names only the first scan of a patient; here all of them count.
    """
    tested = second.is_tested
    digests = other.digests[tested]
    is_leaking = np.isin(one.digests, digests[digests != 0])
    if (pairs["kind"] == PATIENT).any():
        names = second.archive.patients[second.rows[tested]]
        is_leaking |= np.isin(first.archive.patients[first.rows], names)
    near = pairs["first"][(pairs["kind"] == NEAR) & pairs["is_tested"]]
    rows: Int64[np.ndarray, " r"] = np.union1d(first.rows[is_leaking], near)
    return rows


def _pairs(
    first: ScanSet,
    second: ScanSet,
    kind: int,
    one: Int64[np.ndarray, " p"],
    other: Int64[np.ndarray, " p"],
) -> Shaped[np.ndarray, " p"]:
    """Returns pairs of the scans in the given places of both sets."""
    made = np.zeros(len(one), PAIR)
    made["kind"], made["correlation"] = kind, np.nan
    made["first"], made["second"] = first.rows[one], second.rows[other]
    made["is_tested"] = first.is_tested[one] | second.is_tested[other]
    return made


def _kept_near_duplicates(
    first: ScanSet, second: ScanSet, one: Fingerprints, other: Fingerprints
) -> tuple[Shaped[np.ndarray, " p"], int]:
    def make() -> Arrays:
        near, num_proposed = _near_duplicates(first, second, one, other)
        return {"near": near, "proposed": np.array(num_proposed)}

    arrays = kept("near", (first, second), make, None)
    return arrays["near"], int(arrays["proposed"])


def _near_duplicates(
    first: ScanSet, second: ScanSet, one: Fingerprints, other: Fingerprints
) -> tuple[Shaped[np.ndarray, " p"], int]:
    """Returns the pairs that count, each in its best turn, and how many were proposed."""

    def may_pair(
        one_place: Int64[np.ndarray, " p"], other_place: Int64[np.ndarray, " p"]
    ) -> Bool[np.ndarray, " p"]:
        allowed: Bool[np.ndarray, " p"] = one.digests[one_place] != other.digests[other_place]
        if first is second:
            allowed &= one_place < other_place
            allowed &= first.groups[one_place] != first.groups[other_place]
        return allowed

    with track(num_rounds(other), "comparing hashes") as progress:
        proposed = propose(one, other, progress, may_pair)
    rows = replace(proposed, first=first.rows[proposed.first], second=second.rows[proposed.second])
    with track(len(rows), "comparing pixels") as progress:
        r, detail = pairs.correlations(first.archive, second.archive, rows, progress)
    # Of one pair in several turns the best stays: highest correlation first, then lowest turn.
    order = np.lexsort((proposed.turn, -r, proposed.second, proposed.first))
    code = proposed.first[order] * len(other) + proposed.second[order]
    best = order[np.unique(code, return_index=True)[1]]
    counted = best[(r[best] >= LEAST_CORRELATION) & (detail[best] >= LEAST_DETAIL)]
    made = _pairs(first, second, NEAR, proposed.first[counted], proposed.second[counted])
    made["turn"], made["correlation"] = proposed.turn[counted], np.minimum(r[counted], 1.0)
    return made, len(best)


def _shared_patients(
    first: ScanSet, second: ScanSet
) -> tuple[Shaped[np.ndarray, " p"], int | None, tuple[str, ...]]:
    """Returns a pair for each second scan of a shared patient, the patients' number, and notes."""
    none = np.zeros(0, PAIR)
    if first is second:
        if not first.archive.patients_known:
            unknown = f"The patients of {first.name} are unknown"
            return none, None, (f"{unknown}: each scan counts as a patient of its own.",)
        if not first.has_split:
            return none, 0, ()
        patients = patient_codes(first.archive.patients[first.rows])
        shared = pairs.equal_across(patients, first.groups)
        return _pairs(first, first, PATIENT, *shared), len(np.unique(patients[shared[1]])), ()
    reason = why_patients_not_compared(first, second)
    if reason:
        return none, None, (reason,)
    one, other = (scans.archive.patients[scans.rows] for scans in (first, second))
    shared = pairs.equal_pairs(one, other)
    made = _pairs(first, second, PATIENT, *shared)
    num_patients: int | None = len(np.unique(other[shared[1]]))
    if num_patients == 0 and issuers_differ_by_default(first, second):
        num_patients = None
    return made, num_patients, issuer_notes(first, second)
