"""`pack`: any pile of scans, decoded once, into a memory-mapped archive."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path
from time import perf_counter

from scanlearn.core import ScanlearnError
from scanlearn.runs import say, track, warn_user
from scanlearn.scans.archive import Archive, ArchiveWriter, is_archive
from scanlearn.scans.atomic import require_free
from scanlearn.scans.files import ReadSettings
from scanlearn.scans.manifest import Manifest, read_manifest
from scanlearn.scans.pool import num_cores, ordered_map
from scanlearn.scans.prepare import (
    Job,
    Outcome,
    Plan,
    Prepared,
    Refused,
    Survey,
    make_plan,
    prepare,
    survey,
)
from scanlearn.scans.settings import PackSettings
from scanlearn.scans.tasks import ManifestRow, jobs_per_chunk, pieces, scan_id, tasks

_TIMED_SCANS = 64
_SECONDS_WORTH_PROCESSES = 6.0
SERIES = "series"
_EMPTY = "empty slices left out"
_CRASHED = "brings down the process that decodes it"


def pack(
    source: Path | str | Manifest, archive: Path | str, *, settings: PackSettings | None = None
) -> Archive:
    """Decodes scans once and returns the archive they are packed into.

    A scan that cannot be read is set aside in ``rejected.csv`` with the reason. The archive
    appears at its path when it is complete; the same scans and settings give the same bytes, and
    packing them again returns the archive that is there.

    Args:
        source: Folder of scans, table (see `read_manifest`), or a manifest already read.
        archive: Folder to write.
        settings: None for the defaults.

    Raises:
        ScanlearnError: The source cannot be used, none of its scans can be read, another archive
            lies at the path, or the disk is full.

    Example:
        >>> archive = pack("scans", "packed/scans")                # doctest: +SKIP
    """
    settings = settings or PackSettings()
    target = Path(archive).expanduser()
    manifest = source if isinstance(source, Manifest) else _manifest(source, settings)
    source_hash = manifest.content_hash()
    found = _existing(target, source_hash, settings)
    if found is not None:
        say(f"{target} holds these {len(found):,} scans already")
        return found
    canvas = settings.canvas
    read = ReadSettings(axis=settings.axis, empty_below=settings.empty_below)
    found_out = survey((manifest.root / (path or "") for path, _, _ in manifest.rows()), read)
    plan = make_plan(
        found_out,
        canvas=(canvas, canvas) if isinstance(canvas, int) else canvas,
        channels=settings.channels,
        intensity=settings.intensity,
        settings=read,
    )
    with ArchiveWriter(
        target,
        shape=(plan.channels, *plan.canvas),
        dtype=plan.dtype,
        label_columns=_label_columns(manifest, found_out),
        patients_known=manifest.patients_known or found_out.has_patients,
        source_hash=source_hash,
        settings=settings.fingerprint(),
    ) as writer:
        num_packed, notes = _write(
            writer, manifest, plan, found_out, settings.workers or num_cores()
        )
        if num_packed == 0:
            path, reason = (*writer.rejected, ("", "every slice is empty"))[0]
            raise ScanlearnError(
                f"{manifest.root}: none of {len(manifest):,} scans can be read (the first,"
                f" {path!r}: {reason}); give a source with pictures, DICOM files or volumes"
            )
        packed = writer.close(notes=notes)
    _report(packed, manifest)
    return packed


def _label_columns(manifest: Manifest, found: Survey) -> tuple[str, ...]:
    """Returns the table's columns, and one for the series where files name it."""
    known = manifest.label_columns
    return (*known, SERIES) if found.has_series and SERIES not in known else known


def _manifest(source: Path | str, settings: PackSettings) -> Manifest:
    if is_archive(Path(source).expanduser()):
        raise ScanlearnError(f"{source}: is an archive already; use it as it is")
    return read_manifest(
        source, path_column=settings.path_column, patient_column=settings.patient_column
    )


def _existing(target: Path, source_hash: str, settings: PackSettings) -> Archive | None:
    if not is_archive(target):
        require_free(target)
        return None
    found = Archive(target)
    same_scans = found.info["source_hash"] == source_hash
    same_settings = found.info["settings"] == settings.fingerprint()
    if same_scans and same_settings:
        return found
    what = "the same scans with other settings" if same_scans else "an archive of other scans"
    raise ScanlearnError(f"{target}: holds {what} already; remove it or choose another path")


def _outcomes(
    jobs: Iterator[Job | Refused], num_jobs: int, plan: Plan, chunk: int, workers: int
) -> Generator[tuple[Outcome, ...], None, None]:
    """Yields what becomes of each job, in order.

    The first are done here and timed: processes, which take seconds to start, come in where they
    save more than that.
    """
    one = partial(prepare, plan)
    seconds = 0.0
    for job in islice(jobs, _TIMED_SCANS):
        start = perf_counter()
        outcomes = one(job)
        seconds += perf_counter() - start
        yield outcomes
    left = num_jobs - _TIMED_SCANS
    if workers == 1 or left <= 0 or left * seconds / _TIMED_SCANS < _SECONDS_WORTH_PROCESSES:
        yield from map(one, jobs)
        return
    crashed: tuple[Outcome, ...] = (Refused(_CRASHED),)
    yield from ordered_map(one, jobs, workers=workers, crashed=crashed, chunk=chunk)


def _write(
    writer: ArchiveWriter, manifest: Manifest, plan: Plan, found: Survey, workers: int
) -> tuple[int, dict[str, int]]:
    """Writes every scan of a manifest; returns their number and how often each note was made."""
    notes: Counter[str] = Counter()
    num_packed, last = 0, ("", "")
    num_jobs = sum(1 for _ in pieces(found, plan))
    chunk = jobs_per_chunk(found, plan)
    jobs = (job for job, _ in tasks(manifest, found, plan))
    with (
        track(num_jobs, "packing") as progress,
        closing(_outcomes(jobs, num_jobs, plan, chunk, workers)) as outcomes,
    ):
        for (job, row), of_job in zip(tasks(manifest, found, plan), outcomes, strict=True):
            if isinstance(job, Job) and not any(isinstance(one, Refused) for one in of_job):
                notes[_EMPTY] += len(job.frames) - len(of_job)
            for outcome in of_job:
                if isinstance(outcome, Refused):
                    verdict = (scan_id(row, outcome.frame), outcome.reason)
                    # A file done in several pieces is set aside once for the same reason.
                    if not (isinstance(job, Job) and job.frames.start and verdict == last):
                        writer.reject(*verdict)
                    last = verdict
                else:
                    notes.update(outcome.notes)
                    _add(writer, manifest, row, outcome)
                    num_packed += 1
            progress.advance(rejected=str(len(writer.rejected)))
    return num_packed, {note: times for note, times in sorted(notes.items()) if times}


def _add(writer: ArchiveWriter, manifest: Manifest, row: ManifestRow, scan: Prepared) -> None:
    _, patient, labels = row
    if not manifest.patients_known:
        patient = scan.patient or patient
    writer.add(
        scan.pixels,
        scan_id=scan_id(row, scan.frame),
        patient=patient or "",
        valid_box=scan.valid_box,
        spacing_mm=scan.spacing_mm,
        value_range=scan.value_range,
        labels={SERIES: scan.series} | labels,
    )


def _report(archive: Archive, manifest: Manifest) -> None:
    channels, height, width = archive.shape
    num_patients = archive.info["patients"]
    whose = f"of {num_patients:,} patients"
    if not archive.patients_known:
        whose = "of unknown patients (each counts as its own)"
        if num_patients < len(archive):
            whose = "of partly unknown patients (a file that names none counts as its own)"
    say(
        f"packed {len(archive):,} scans {whose} into {archive.path}: {channels} x {height} x"
        f" {width}, {archive.dtype.name}"
    )
    if archive.num_rejected:
        where = archive.path / "rejected.csv"
        noun = "scan" if archive.num_rejected == 1 else "scans"
        warn_user(
            f"{archive.num_rejected:,} {noun} could not be packed, for the reasons in {where}"
        )
    if manifest.ignored:
        listed = ", ".join(f"{n:,} {suffix}" for suffix, n in manifest.ignored[:5])
        say(f"files that are no scans were left alone: {listed}")
    for note, times in archive.info["notes"].items():
        say(f"{note}: {times:,}" if note == _EMPTY else f"{note} in {times:,} scans")
