"""From rows of a manifest to pieces of work: a file may give several scans."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

import numpy as np
from jaxtyping import Bool

from scanlearn.scans.manifest import Manifest
from scanlearn.scans.prepare import Job, Plan, Refused
from scanlearn.scans.survey import Survey

_MAX_CHUNK_BYTES = 4 * 2**20
_MOST_AT_ONCE = 64
# Path, patient and labels.
ManifestRow = tuple[str | None, str | None, dict[str, str | None]]


def pieces(found: Survey, plan: Plan) -> Iterator[tuple[int, range, int]]:
    """Yields row, frames and all frames of its file for each piece of work, in order."""
    size = _frames_per_job(plan)
    for row, num_frames in enumerate(found.num_frames):
        for start in range(0, num_frames, size):
            yield row, range(start, min(start + size, num_frames)), num_frames


def tasks(
    manifest: Manifest, found: Survey, plan: Plan
) -> Iterator[tuple[Job | Refused, ManifestRow]]:
    """Yields each piece of work with the row of the manifest that it belongs to."""
    is_repeated = _is_repeated(manifest)
    by_row = groupby(pieces(found, plan), key=lambda piece: piece[0])
    for number, (row, (_, of_row)) in enumerate(zip(manifest.rows(), by_row, strict=True)):
        path, patient, _ = row
        refused = None
        if path is None:
            refused = Refused("the table gives no path")
        elif path in manifest.refused:
            refused = Refused(manifest.refused[path])
        elif patient is None:
            refused = Refused("the table gives no patient")
        elif is_repeated[number]:
            refused = Refused("an earlier row of the table has the same path")
        if refused is not None:
            yield refused, row
            continue
        for _, frames, num_frames in of_row:
            yield Job(manifest.root / str(path), frames, num_frames), row


def _is_repeated(manifest: Manifest) -> Bool[np.ndarray, " n"]:
    """Returns of each row whether an earlier one has the same path, ``[n]``.

    Arrow numbers paths as they first appear; a set of a million of them would take 200 MB.
    """
    paths = manifest.table.column("path").combine_chunks()
    numbers = paths.dictionary_encode().indices.fill_null(-1).to_numpy(zero_copy_only=False)
    seen_before = np.maximum.accumulate(numbers)
    repeated: Bool[np.ndarray, " n"] = np.append(False, numbers[1:] <= seen_before[:-1])
    return repeated


def _scan_bytes(plan: Plan) -> int:
    return plan.channels * plan.canvas[0] * plan.canvas[1] * plan.dtype.itemsize


def scan_id(file: str, frame: int | None) -> str:
    """Returns a file's name, and for one of several scans of it the number, as ``3fa9...#3``."""
    return file if frame is None else f"{file}#{frame}"


def frames_per_chunk(plan: Plan) -> int:
    """Returns how many scans a process is given at a time: 64, at most 4 MiB of packed ones."""
    return min(_MOST_AT_ONCE, _frames_per_job(plan))


def bytes_per_chunk(plan: Plan) -> int:
    """Returns what memory the largest piece of work takes when it is done."""
    mask_bytes = plan.canvas[0] * plan.canvas[1] if plan.treatment.has_mask else 0
    # Arrays begin at multiples of 64 bytes.
    return _frames_per_job(plan) * (_scan_bytes(plan) + mask_bytes + 2 * 64)


def num_scans(job: Job | Refused) -> int:
    """Returns how many scans a piece of work may give."""
    return len(job.frames) if isinstance(job, Job) else 1


def _frames_per_job(plan: Plan) -> int:
    return max(1, _MAX_CHUNK_BYTES // _scan_bytes(plan))
