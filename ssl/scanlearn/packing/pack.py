"""`pack`: any pile of scans, decoded once, into a memory-mapped archive."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from scanlearn.archive.count import Count
from scanlearn.archive.identity import (
    Identities,
    names_nobody,
    plain_number,
    read_identities,
    source_name,
)
from scanlearn.archive.layout import Origin, is_archive
from scanlearn.archive.reader import Archive
from scanlearn.archive.spellings import agreeing, respelled_within
from scanlearn.archive.summary import refresh_summary
from scanlearn.archive.writer import ArchiveWriter
from scanlearn.config.calls import checked
from scanlearn.console import counted, doing, say, track, warn_user
from scanlearn.errors import Interrupted, ScanlearnError, did_you_mean
from scanlearn.files import require_free
from scanlearn.locks import beside, held, sweep
from scanlearn.packing.chest_wall import MIRRORED
from scanlearn.packing.filters import make_selection
from scanlearn.packing.headers import LEFT_OUT, HeaderScan, scan_headers
from scanlearn.packing.parallel import get_ready, num_cores, ordered_map
from scanlearn.packing.prepare import (
    DARK,
    NOT_DARK,
    Outcome,
    PackPlan,
    Prepared,
    Refused,
    WorkItem,
    any_has_colour,
    make_plan,
    num_scans,
    pieces,
    prepare,
    scan_name,
    work_items,
)
from scanlearn.packing.settings import PackSettings
from scanlearn.readers.dicom_tags import NO_PICTURE
from scanlearn.readers.readers import libraries
from scanlearn.tables.manifest import Manifest, ManifestRow, read_manifest
from scanlearn.tables.merge import JOINED, MERGED
from scanlearn.tables.settings import TABLE_SETTINGS

SERIES = "series"
MIRROR = "mirrored"
EMPTY = "empty slices left out"
ASIDE = "files set aside that are no pictures of a patient (masks, doses, reports)"
CONTRADICTING = "PatientID of the file is not the table's patient"
_NOBODY = "the file's PatientID names nobody ('unknown' or the like) and was left out"
_OF_ITS_OWN = "each counts as a patient of its own: write each number in one way"
_MOST_DIGITS = 15
_FAR_MORE = 3
_SHORT_NAME = 2
_CRASHED = "brings down the process that decodes it"
# What reads the kinds of the first files is loaded while processes start.
_PROBED_NAMES = 1000


@checked
def pack(
    source: Path | str | Manifest, archive: Path | str, *, settings: PackSettings | None = None
) -> Archive:
    """Decode scans once into a memory-mapped archive.

    Scans that cannot be read are listed in ``rejected.csv`` with the reason. The archive appears
    at its path when it is complete, with a contact sheet and a summary page (see `summary`). The
    same scans and settings give the same bytes, and packing them again returns the existing
    archive.

    Patients, series and files are stored as hashes under the user's key (see `read_identities`).
    ``paths.csv`` says which file a scan is from; only its owner can read it, and nothing else
    needs it.

    Args:
        source: Folder of scans, table (see `read_manifest`), or a manifest already read.

    Raises:
        BusyError: Another process writes the same archive.
        Interrupted: Ctrl-C; what is in finished shards is kept for the next start.
        ScanlearnError: The source cannot be used, none of its scans can be read, another archive
            lies at the path, or the disk is full.

    Example:
        >>> archive = pack("scans", "packed/scans")                # doctest: +SKIP
    """
    settings = settings or PackSettings()
    target = Path(archive).expanduser()
    manifest = source if isinstance(source, Manifest) else manifest_of(source, settings)
    check_columns(manifest, settings)
    packed = pack_listed(manifest, target, settings)
    warn_of_patients(packed, manifest)
    return packed


def check_columns(manifest: Manifest, settings: PackSettings) -> None:
    """Refuses a column to be kept that the table has not.

    Raises:
        ScanlearnError: There is one.
    """
    for name in settings.allow_columns:
        if name not in manifest.label_columns:
            near = did_you_mean(name, manifest.label_columns)
            raise ScanlearnError(
                f"{manifest.root}: allow_columns names {name!r}, which is no label column{near};"
                " name columns of the table that are to be kept"
            )


def pack_listed(
    manifest: Manifest,
    target: Path,
    settings: PackSettings,
    job: PackJob | None = None,
    parts: Sequence[Path] = (),
) -> Archive:
    """Packs the files of a manifest, or finds that done, and says what became of them.

    Args:
        job: As `plan_job` returns it; None to make it.
        parts: See `pack_job`.

    Raises:
        ScanlearnError: As `pack` does.
    """
    with held(beside(target), target, wait=settings.wait):
        if not target.exists() and job is None:
            _get_ready(manifest, settings)
        source_hash = job.source_hash if job else manifest.content_hash()
        existing = _existing(target, source_hash, settings, identities_for(manifest, settings))
        if existing is not None:
            sweep(target)
            refresh_summary(existing)
            say(f"{target} already holds these {len(existing):,} scans")
            return existing
        job = job or plan_job(manifest, settings, source_hash=source_hash)
        packed = pack_job(job, target, parts)
        refresh_summary(packed)
    _report(packed, manifest)
    return packed


@dataclass(frozen=True)
class PackJob:
    """All that packing the files of a manifest takes, decided from their headers.

    Args:
        columns: Label columns of the archive.
        contradicting: Files that name another patient than the table, as a note, if there are any.
        grows: Whether the scans are to go to an archive that is there.
    """

    manifest: Manifest
    headers: HeaderScan
    plan: PackPlan
    columns: tuple[str, ...]
    settings: PackSettings
    source_hash: str
    contradicting: Mapping[str, int]
    grows: bool = False

    def writer(self, target: Path, parts: Sequence[Path] = ()) -> ArchiveWriter:
        """Returns a writer of the archive, or of a part of it; see `ArchiveWriter`."""
        plan, manifest = self.plan, self.manifest
        return ArchiveWriter(
            target,
            shape=(plan.channels, *plan.canvas),
            dtype=plan.dtype,
            label_columns=self.columns,
            has_mask=plan.preprocess.has_mask,
            patients_known=manifest.patients_known or self.headers.has_patients,
            source_hash=self.source_hash,
            settings=self.settings.fingerprint(),
            identities=identities_for(manifest, self.settings),
            parts=parts,
        )


def plan_job(
    manifest: Manifest, settings: PackSettings, *, source_hash: str, like: Archive | None = None
) -> PackJob:
    """Reads all headers and returns what packing takes; ``like`` is an archive that it must fit.

    Raises:
        ScanlearnError: A filter leaves no file, or they do not fit.
    """
    canvas, channels, read = settings.canvas, settings.channels, settings.reading()
    if like is not None:
        channels = 1 if like.shape[0] == 1 else 3
    selection = make_selection(settings.keep, settings.drop, manifest.label_columns)
    workers = workers_of(settings)
    _get_ready(manifest, settings)
    manifest, headers = scan_headers(manifest, read, selection=selection, workers=workers)
    contradicting = {}
    if headers.num_contradicting:
        contradicting[CONTRADICTING] = headers.num_contradicting
        warn_user(
            f"{CONTRADICTING} in {headers.num_contradicting:,} files (first"
            f" {headers.contradiction}); the table's counts"
        )
    plan = make_plan(
        headers,
        canvas=(canvas, canvas) if isinstance(canvas, int) else canvas,
        channels=channels,
        preprocess=settings.preprocess(),
        settings=read,
        workers=workers,
    )
    if plan.channels == 1 and channels == 1 and any_has_colour(headers, read, workers):
        kept = "an archive of their own keeps it"
        if like is None:
            kept = "channels=3 or auto keeps it"
        warn_user(
            f"{headers.num_colour:,} of {len(manifest):,} files store colour, which channels=1"
            f" turns into gray; {kept}"
        )
    if like is not None:
        if plan.dtype.itemsize > like.dtype.itemsize:
            raise ScanlearnError(
                f"{like.path}: holds 8-bit scans, and some of these files have more bits, which"
                " would be lost; pack them into an archive of their own"
            )
        plan = replace(plan, dtype=like.dtype)
    columns = manifest.label_columns
    if headers.has_series and SERIES not in columns:
        columns = (*columns, SERIES)
    if settings.chest_wall and MIRROR not in columns:
        columns = (*columns, MIRROR)
    grows = like is not None
    return PackJob(manifest, headers, plan, columns, settings, source_hash, contradicting, grows)


def pack_job(job: PackJob, target: Path, parts: Sequence[Path] = ()) -> Archive:
    """Packs the files of a job into an archive.

    Args:
        parts: All parts of it, where they are packed already; see `pack_rows`.

    Raises:
        ScanlearnError: No file can be read, or the disk is full.
    """
    manifest, settings = job.manifest, job.settings
    with job.writer(target, parts) as writer:
        if writer.resumed and not parts:
            say(f"resuming after {writer.num_scans:,} scans that were packed before")
        loop = _write_scans(writer, job, range(len(manifest)))
        if writer.num_scans == 0:
            reason = writer.first_reason
            path, _, _ = next(manifest.rows())
            raise ScanlearnError(
                f"{manifest.root}: none of {len(manifest):,} scans can be read (the first,"
                f" {path!r}: {reason}); give a source with images, DICOM files or volumes"
            )
        notes = {note: times for note, times in sorted(loop.notes.items()) if times}
        num_dark = notes.get(DARK, 0)
        if notes.pop(NOT_DARK, 0):
            notes.pop(DARK, None)  # One that passes it shows that all 16 bits are in use.
        elif num_dark:
            warn_user(
                "16-bit scans without a value above a sixteenth of 16 bits (12 bits stored in 16?):"
                f" {num_dark:,}; they are shown nearly black, pack them with intensity=percentile"
            )
        facts = {"summary": True} if settings.summary and not job.grows else {}
        of_rows = {} if manifest.merged is None else manifest.merged.notes
        return writer.close(
            notes={**job.headers.left_out, **job.contradicting, **notes, **of_rows},
            examined=dict(sorted(loop.examined.items())),
            pixels=job.plan.preprocess.described(),
            issuer_given=settings.issuer is not None or job.headers.has_issuers,
            **facts,
        )


def pack_rows(job: PackJob, rows: range, part: Path) -> None:
    """Packs the files of some rows into a part of an archive, which `pack_job` joins to others.

    Raises:
        ScanlearnError: The disk is full.
    """
    with job.writer(part) as writer:
        writer.close_part(_write_scans(writer, job, rows).reached)


def _get_ready(manifest: Manifest, settings: PackSettings) -> None:
    names = manifest.table.column("path").slice(0, _PROBED_NAMES).to_pylist()
    get_ready(workers_of(settings), libraries(name for name in names if name))


def workers_of(settings: PackSettings) -> int:
    """Returns how many processes decode."""
    # Where there is but one core, two: what brings a process down must not end packing.
    return settings.workers or max(2, num_cores())


def identities_for(manifest: Manifest, settings: PackSettings) -> Identities:
    """Returns what hashes patients and files of a source: under this user's key, by its issuer."""
    return read_identities(settings.issuer or source_name(manifest.root))


def manifest_of(source: Path | str, settings: PackSettings) -> Manifest:
    """Returns the files that a folder or a table lists, read as the settings say."""
    if is_archive(Path(source).expanduser()):
        raise ScanlearnError(f"{source}: is an archive already; use it without packing")
    with doing(f"looking through {source}"):
        return read_manifest(
            source,
            **settings.model_dump(include=set(TABLE_SETTINGS) - {"issuer"}),
            follow_links=settings.follow_links,
            open_containers=settings.open_containers,
            folder_labels=settings.folder_labels,
            allow_columns=settings.allow_columns,
        )


def _write_scans(writer: ArchiveWriter, job: PackJob, rows: range) -> _WriteLoop:
    """Writes every scan of some rows, and returns how far that came: to their end.

    What an earlier process finished is not decoded again. Of a scan nothing is kept in memory.
    """
    loop, plan = _WriteLoop(writer, job.manifest), job.plan
    num_items = sum(row in rows for row, *_ in pieces(job.headers, plan)) - loop.num_done
    waiting: deque[tuple[WorkItem | Refused, ManifestRow]] = deque()

    def items() -> Iterator[WorkItem | Refused]:
        work = work_items(job.manifest, job.headers, plan, rows)
        for item, row in islice(work, loop.num_done, None):
            waiting.append((item, row))
            yield item

    outcomes = _prepared(plan, items(), workers_of(job.settings))
    try:
        with track(num_items, "packing") as progress, closing(outcomes):
            for of_item in outcomes:
                loop.take(*waiting.popleft(), of_item)
                progress.advance(rejected=str(writer.num_rejected))
    except KeyboardInterrupt:
        kept = "stopped before a shard of scans was complete: the same command starts anew"
        if writer.num_kept:
            kept = (
                f"stopped; {writer.num_kept:,} scans in finished shards are kept: run the same"
                " command again to pack the rest"
            )
        raise Interrupted(kept) from None
    return loop


def _prepared(
    plan: PackPlan, items: Iterator[WorkItem | Refused], workers: int
) -> Generator[tuple[Outcome, ...], None, None]:
    """Yields what becomes of each piece of work: its scans hold until the next is asked for."""
    work = partial(prepare, plan)
    if workers == 1:
        yield from map(work, items)
        return
    crashed: tuple[Outcome, ...] = (Refused(_CRASHED),)
    # A decoder may bring its process down, which must never be this one.
    yield from ordered_map(
        work,
        items,
        workers=workers,
        crashed=crashed,
        chunk=plan.frames_per_chunk,
        chunk_bytes=plan.bytes_per_chunk,
        weigh=num_scans,
    )


class _WriteLoop:
    """How far an archive is filled, which an earlier process may have begun."""

    def __init__(self, writer: ArchiveWriter, manifest: Manifest) -> None:
        parts = writer.resumed.get("parts", [writer.resumed])
        self._writer = writer
        self._manifest = manifest
        self.num_done: int = sum(part.get("num_done", 0) for part in parts)
        self._num_outcomes: int = parts[-1].get("num_outcomes", 0)
        self._last: list[str] = parts[-1].get("last", ["", ""])
        self.notes: Counter[str] = Counter()
        self.examined: Counter[str] = Counter()
        for part in parts:
            self.notes.update(part.get("notes", {}))
            self.examined.update(part.get("examined", {}))
        # What was begun before has given a scan, at which its packing was noted.
        self._is_blank = False

    @property
    def reached(self) -> dict[str, Any]:
        """What another process needs to go on from here."""
        return {
            "num_done": self.num_done,
            "num_outcomes": self._num_outcomes,
            "last": self._last,
            "notes": dict(self.notes),
            "examined": dict(self.examined),
        }

    def take(
        self, item: WorkItem | Refused, row: ManifestRow, outcomes: tuple[Outcome, ...]
    ) -> None:
        """Writes what became of a piece of work, but for what an earlier process has written."""
        hashes = self._writer.identities
        assert hashes is not None
        scans = (outcome for outcome in outcomes if isinstance(outcome, Prepared))
        named = next((scan.identifiers for scan in scans), ())
        file = self._writer.list_file(
            row[0] or "", [hashes.identifier(kind, value) for kind, value in named]
        )
        frames, of = (item.frames, item.of) if isinstance(item, WorkItem) else (range(1), 1)
        self._is_blank = not outcomes and (self._is_blank or frames.start == 0)
        if self._is_blank and frames.stop == of:
            # Its slices were only counted: a volume with one absurd voxel was lost without a word.
            reason = f"every slice is empty ({of:,} with less foreground than empty_below)"
            outcomes = (Refused(reason),)
            self.notes[EMPTY] += len(frames)
        for outcome in outcomes[self._num_outcomes :]:
            self._num_outcomes += 1
            if isinstance(outcome, Refused):
                verdict = [scan_name(file, outcome.page), _nameless(outcome.reason, row)]
                # A file done in several pieces is set aside once for the same reason.
                if not (frames.start and verdict == self._last):
                    self._writer.reject(*verdict)
                    self.notes[ASIDE] += outcome.reason.endswith(NO_PICTURE)
                self._last = verdict
                continue
            self.notes.update(outcome.notes)
            self.examined[outcome.examined] += 1
            if self._add(row, file, outcome):
                self._writer.checkpoint(self.reached)
        if not any(isinstance(outcome, Refused) for outcome in outcomes):
            self.notes[EMPTY] += len(frames) - len(outcomes)
        self.num_done += 1
        self._num_outcomes = 0

    def _add(self, row: ManifestRow, file: str, outcome: Prepared) -> bool:
        """Writes a scan under hashes: a file that names no patient stands for its own."""
        _, patient, labels = row
        hashes = self._writer.identities
        assert hashes is not None
        number, issuer = patient, None
        if not self._manifest.patients_known:
            number, issuer = outcome.patient, outcome.issuer
        if number and names_nobody(number):
            number = None
            self.notes[_NOBODY] += 1
        patient = hashes.patient(number, issuer) if number else file
        spelling = hashes.spelling(number, issuer) if number else None
        series = None if outcome.series is None else hashes.series(outcome.series)
        name = scan_name(file, outcome.page)
        mirror = "yes" if MIRRORED in outcome.notes else "no"
        labels = {SERIES: series, MIRROR: mirror} | labels
        origin = Origin(scan_id=name, patient=patient, labels=labels, spelling=spelling)
        return self._writer.add(outcome.scan, origin)


def _nameless(reason: str, row: ManifestRow) -> str:
    """Returns a reason without the file's name, which decoders like to give."""
    name = Path(row[0] or "").name
    return reason.replace(name, "the file") if len(name) > _SHORT_NAME else reason


def warn_of_patients(archive: Archive, manifest: Manifest | None = None) -> None:
    """Warns of patients who may be one person, or several people under one number.

    Args:
        manifest: What was packed; None where that is not all of the archive.
    """
    if manifest is None or not manifest.patients_known:
        respelled = respelled_within(archive)
        if respelled is not None:
            warn_user(f"{respelled.told()}; {_OF_ITS_OWN}")
        return
    counts = {
        each["values"].strip(): each["counts"]
        for each in manifest.table.column("patient").value_counts().to_pylist()
        if each["values"] and not names_nobody(each["values"])
    }
    by_plain: dict[str, list[str]] = defaultdict(list)
    for number in counts:
        by_plain[plain_number(number)].append(number)
    same = [numbers for numbers in by_plain.values() if len(numbers) > 1]
    if same:
        num_patients = sum(map(len, same)) - len(same)
        warn_user(f"{agreeing(num_patients, [*map(repr, same[0][:2])])}; {_OF_ITS_OWN}")
    long = [number for number in counts if number.isdigit() and len(number) > _MOST_DIGITS]
    if len(long) > 1 and not any(number[_MOST_DIGITS:].strip("0") for number in long):
        warn_user(
            f"{len(long):,} patients have numbers of more than {_MOST_DIGITS} digits that end in"
            f" zeros (first {long[0]}), as spreadsheets make of long ones; several patients may"
            " have become one"
        )
    most, *others = sorted(counts, key=lambda number: -counts[number])[:2]
    if others and not most.strip("0-.") and counts[most] > _FAR_MORE * counts[others[0]]:
        warn_user(
            f"patient {most!r} has {counts[most]:,} scans, no other more than"
            f" {counts[others[0]]:,}; if it stands for unknown patients, leave the cells blank"
        )


def _existing(
    target: Path, source_hash: str, settings: PackSettings, identities: Identities
) -> Archive | None:
    if not is_archive(target):
        require_free(target)
        return None
    existing = Archive(target)
    key_and_issuer = (existing.info.get("key"), existing.info.get("issuer"))
    content = "an archive of other scans"
    if existing.info["source_hash"] == source_hash:
        content = "the same scans packed with other settings"
        if existing.info["settings"] == settings.fingerprint():
            if key_and_issuer == (identities.fingerprint, identities.issuer_hash):
                return existing
            content = "the same scans with patients hashed under another key or issuer"
    raise ScanlearnError(f"{target}: already holds {content}; remove it or choose another path")


def _report(archive: Archive, manifest: Manifest) -> None:
    channels, height, width = archive.shape
    patients = f"of {archive.info['patients']:,} patients"
    if not archive.patients_known:
        count = Count.of_archive(archive)
        patients = f"of unknown patients (each {count.units[:-1]} counts as a patient of its own)"
        if count.patients:
            known = f"{len(archive) - count.unknown:,} of {count.patients:,} known ones"
            patients = (
                f"of partly unknown patients ({known}; a file without a patient counts as its own)"
            )
    say(
        f"packed {counted(len(archive), 'scan')} {patients} into {archive.path}: "
        f"{channels} x {height} x {width}, {archive.dtype.name}"
    )
    if archive.num_rejected:
        where = archive.path / "rejected.csv"
        told = counted(archive.num_rejected, "scan")
        warn_user(f"{told} could not be packed; {where} lists the reasons")
    if manifest.ignored:
        listed = ", ".join(f"{n:,} {suffix}" for suffix, n in manifest.ignored[:5])
        say(f"ignored files that are not scans: {listed}")
    if manifest.withheld:
        listed = ", ".join(
            f"{name} (values that look like {looks_like})" if looks_like else name
            for name, looks_like in manifest.withheld.items()
        )
        say(
            f"columns left out because they may identify a person or a file: {listed};"
            " allow_columns=[NAME] keeps one that is a label"
        )
    for note, times in archive.info["notes"].items():
        if note == DARK or note.startswith((JOINED, MERGED)):  # Said before.
            continue
        counts_itself = note in (EMPTY, ASIDE) or note.startswith(LEFT_OUT)
        say(f"{note}: {times:,}" if counts_itself else f"{note} in {times:,} scans")
