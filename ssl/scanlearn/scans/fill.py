"""Filling an archive: every scan of a manifest, from wherever an earlier process had come."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Generator, Iterator
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path

from scanlearn.runs import track
from scanlearn.scans.archive import ArchiveWriter
from scanlearn.scans.manifest import Manifest
from scanlearn.scans.pool import ordered_map
from scanlearn.scans.prepare import Job, Outcome, Plan, Prepared, Refused, prepare
from scanlearn.scans.survey import Survey
from scanlearn.scans.tasks import (
    ManifestRow,
    bytes_per_chunk,
    frames_per_chunk,
    num_scans,
    pieces,
    scan_id,
    tasks,
)

SERIES = "series"
EMPTY = "empty slices left out"
_SHORT_NAME = 2
_CRASHED = "brings down the process that decodes it"

Task = tuple[Job | Refused, ManifestRow]


def fill(
    writer: ArchiveWriter, manifest: Manifest, plan: Plan, found: Survey, workers: int
) -> dict[str, int]:
    """Writes every scan of a manifest and returns how often each note was made.

    What an earlier process finished is not decoded again. Of a scan nothing is kept in memory.

    Args:
        writer: The archive.
        manifest: The files.
        plan: What every scan is brought to.
        found: What the headers say.
        workers: Processes that decode; with 1 this one does.
    """
    filling = _Filling(writer, manifest)
    num_jobs = sum(1 for _ in pieces(found, plan)) - filling.num_done
    waiting: deque[Task] = deque()

    def jobs() -> Iterator[Job | Refused]:
        for task in islice(tasks(manifest, found, plan), filling.num_done, None):
            waiting.append(task)
            yield task[0]

    outcomes = _prepared(plan, jobs(), workers)
    with track(num_jobs, "packing") as progress, closing(outcomes):
        for of_job in outcomes:
            filling.take(*waiting.popleft(), of_job)
            progress.advance(rejected=str(writer.num_rejected))
    return {note: times for note, times in sorted(filling.notes.items()) if times}


def _prepared(
    plan: Plan, jobs: Iterator[Job | Refused], workers: int
) -> Generator[tuple[Outcome, ...], None, None]:
    """Yields what becomes of each job: its scans hold until the next is asked for."""
    work = partial(prepare, plan)
    if workers == 1:
        yield from map(work, jobs)
        return
    crashed: tuple[Outcome, ...] = (Refused(_CRASHED),)
    # A decoder may bring its process down, which must never be this one.
    yield from ordered_map(
        work,
        jobs,
        workers=workers,
        crashed=crashed,
        chunk=frames_per_chunk(plan),
        chunk_bytes=bytes_per_chunk(plan),
        weigh=num_scans,
    )


class _Filling:
    """How far an archive is filled.

    Args:
        writer: The archive; an earlier process may have begun it.
        manifest: The files.
    """

    def __init__(self, writer: ArchiveWriter, manifest: Manifest) -> None:
        reached = writer.resumed
        self._writer = writer
        self._manifest = manifest
        self.num_done: int = reached.get("num_done", 0)
        self._num_outcomes: int = reached.get("num_outcomes", 0)
        self._last: list[str] = reached.get("last", ["", ""])
        self.notes: Counter[str] = Counter(reached.get("notes", {}))

    def take(self, job: Job | Refused, row: ManifestRow, outcomes: tuple[Outcome, ...]) -> None:
        """Writes what became of a job; an earlier process may have written the first part of it."""
        file = self._writer.list_file(row[0] or "")
        for outcome in outcomes[self._num_outcomes :]:
            self._num_outcomes += 1
            if isinstance(outcome, Refused):
                verdict = [scan_id(file, outcome.frame), _nameless(outcome.reason, row)]
                # A file done in several pieces is set aside once for the same reason.
                if not (isinstance(job, Job) and job.frames.start and verdict == self._last):
                    self._writer.reject(*verdict)
                self._last = verdict
                continue
            self.notes.update(outcome.notes)
            if self._add(row, file, outcome):
                self._checkpoint()
        if isinstance(job, Job) and not any(isinstance(one, Refused) for one in outcomes):
            self.notes[EMPTY] += len(job.frames) - len(outcomes)
        self.num_done += 1
        self._num_outcomes = 0

    def _checkpoint(self) -> None:
        self._writer.checkpoint(
            {
                "num_done": self.num_done,
                "num_outcomes": self._num_outcomes,
                "last": self._last,
                "notes": dict(self.notes),
            }
        )

    def _add(self, row: ManifestRow, file: str, scan: Prepared) -> bool:
        """Writes a scan under hashes: a file that names no patient stands for its own."""
        _, patient, labels = row
        whose = self._writer.identities
        assert whose is not None
        if self._manifest.patients_known:
            person = whose.patient(patient or "")
        else:
            person = whose.patient(scan.patient, scan.issuer) if scan.patient else file
        series = None if scan.series is None else whose.series(scan.series)
        return self._writer.add(
            scan.pixels,
            scan_id=scan_id(file, scan.frame),
            patient=person,
            valid_box=scan.valid_box,
            spacing_mm=scan.spacing_mm,
            value_range=scan.value_range,
            mask=scan.mask,
            labels={SERIES: series} | labels,
            tally=scan.tally,
        )


def _nameless(reason: str, row: ManifestRow) -> str:
    """Returns a reason without the file's name, which decoders like to give."""
    name = Path(row[0] or "").name
    return reason.replace(name, "the file") if len(name) > _SHORT_NAME else reason
