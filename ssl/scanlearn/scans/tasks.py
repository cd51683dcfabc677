"""From rows of a manifest to pieces of work: a file may give several scans."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from scanlearn.scans.manifest import Manifest
from scanlearn.scans.prepare import Job, Plan, Refused, Survey

_MAX_CHUNK_BYTES = 4 * 2**20
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
    seen: set[str] = set()
    by_row = groupby(pieces(found, plan), key=lambda piece: piece[0])
    for row, (_, of_row) in zip(manifest.rows(), by_row, strict=True):
        path, patient, _ = row
        refused = None
        if path is None:
            refused = Refused("the table gives no path")
        elif patient is None:
            refused = Refused("the table gives no patient")
        elif path in seen:
            refused = Refused("an earlier row of the table has the same path")
        seen.add(path or "")
        if refused is not None:
            yield refused, row
            continue
        for _, frames, num_frames in of_row:
            yield Job(manifest.root / str(path), frames, num_frames), row


def _scan_bytes(plan: Plan) -> int:
    return plan.channels * plan.canvas[0] * plan.canvas[1] * plan.dtype.itemsize


def scan_id(row: ManifestRow, frame: int | None) -> str:
    """Returns the path, and for one of several scans of a file its number, as ``a.dcm#3``."""
    path = row[0] or ""
    return path if frame is None else f"{path}#{frame}"


def jobs_per_chunk(found: Survey, plan: Plan) -> int:
    """Returns how many jobs a process is given at a time: at most 4 MiB of packed scans."""
    most_frames = min(max(found.num_frames), _frames_per_job(plan))
    return max(1, min(16, _MAX_CHUNK_BYTES // (_scan_bytes(plan) * most_frames)))


def _frames_per_job(plan: Plan) -> int:
    return max(1, _MAX_CHUNK_BYTES // _scan_bytes(plan))
