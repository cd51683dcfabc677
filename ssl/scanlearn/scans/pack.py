"""`pack`: any pile of scans, decoded once, into a memory-mapped archive."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from scanlearn.core import ScanlearnError
from scanlearn.runs import say, track, warn_user
from scanlearn.scans.archive import Archive, ArchiveWriter, is_archive
from scanlearn.scans.atomic import require_free
from scanlearn.scans.manifest import Manifest, read_manifest
from scanlearn.scans.pool import num_cores, ordered_map
from scanlearn.scans.prepare import Plan, Prepared, Refused, make_plan, prepare

_TIMED_SCANS = 64
_SECONDS_WORTH_PROCESSES = 6.0
_MAX_CHUNK_BYTES = 4 * 2**20
_CRASHED = "brings down the process that decodes it"


class PackSettings(BaseModel):
    """How scans are packed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    canvas: PositiveInt | tuple[PositiveInt, PositiveInt] = Field(
        default=256,
        description="Side of the canvas in pixels, or [height, width]; scans are never enlarged.",
    )
    channels: Literal[1, 3, "auto"] = Field(
        default="auto",
        description="1 (colour becomes luma), 3 (gray is repeated), or auto: 3 where scans have"
        " colour.",
    )
    intensity: Literal["full", "percentile"] = Field(
        default="full",
        description="What becomes 0 and 1: the full range of 8 or 16 bits, or each scan's .5 and"
        " 99.5 percentiles.",
    )
    path_column: str | None = Field(
        default=None, description="Column of a table with the paths; null finds a usual name."
    )
    patient_column: str | None = Field(
        default=None, description="Column of a table with the patients; null finds a usual name."
    )
    workers: int = Field(
        default=0, ge=0, description="Processes that decode; 0 takes one for each core."
    )

    def fingerprint(self) -> dict[str, Any]:
        """Returns the settings that the packed bytes depend on."""
        return self.model_dump(mode="json", exclude={"workers"})


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
    plan = make_plan(
        (manifest.root / (path or "") for path, _, _ in manifest.rows()),
        canvas=(canvas, canvas) if isinstance(canvas, int) else canvas,
        channels=settings.channels,
        intensity=settings.intensity,
    )
    with ArchiveWriter(
        target,
        shape=(plan.channels, *plan.canvas),
        dtype=plan.dtype,
        label_columns=manifest.label_columns,
        patients_known=manifest.patients_known,
        source_hash=source_hash,
        settings=settings.fingerprint(),
    ) as writer:
        notes = _write(writer, manifest, plan, settings.workers or num_cores())
        if len(writer.rejected) == len(manifest):
            path, reason = writer.rejected[0]
            raise ScanlearnError(
                f"{manifest.root}: none of {len(manifest):,} scans can be read (the first,"
                f" {path!r}: {reason}); give a source with PNG or JPEG scans"
            )
        packed = writer.close(notes=notes)
    _report(packed, manifest)
    return packed


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


def _jobs(manifest: Manifest) -> Iterator[Path | Refused]:
    seen: set[str] = set()
    for path, patient, _ in manifest.rows():
        if path is None:
            yield Refused("the table gives no path")
        elif patient is None:
            yield Refused("the table gives no patient")
        elif path in seen:
            yield Refused("an earlier row of the table has the same path")
        else:
            yield manifest.root / path
        seen.add(path or "")


def _outcomes(
    manifest: Manifest, plan: Plan, workers: int
) -> Generator[Prepared | Refused, None, None]:
    """Yields what becomes of each row, in order.

    The first scans are decoded here and timed: processes, which take seconds to start, come in
    where they save more than that.
    """
    jobs = _jobs(manifest)
    one = partial(prepare, plan)
    seconds = 0.0
    for job in islice(jobs, _TIMED_SCANS):
        start = perf_counter()
        outcome = one(job)
        seconds += perf_counter() - start
        yield outcome
    left = len(manifest) - _TIMED_SCANS
    if workers == 1 or left <= 0 or left * seconds / _TIMED_SCANS < _SECONDS_WORTH_PROCESSES:
        yield from map(one, jobs)
        return
    scan_bytes = plan.channels * plan.canvas[0] * plan.canvas[1] * plan.dtype.itemsize
    crashed: Prepared | Refused = Refused(_CRASHED)
    yield from ordered_map(
        one,
        jobs,
        workers=workers,
        crashed=crashed,
        chunk=max(1, min(16, _MAX_CHUNK_BYTES // scan_bytes)),
    )


def _write(writer: ArchiveWriter, manifest: Manifest, plan: Plan, workers: int) -> dict[str, int]:
    """Writes every scan of a manifest; returns how often each note was made."""
    notes: Counter[str] = Counter()
    outcomes = _outcomes(manifest, plan, workers)
    with track(len(manifest), "packing") as progress, closing(outcomes):
        for (path, patient, labels), outcome in zip(manifest.rows(), outcomes, strict=True):
            if isinstance(outcome, Refused):
                writer.reject(path or "", outcome.reason)
            else:
                notes.update(outcome.notes)
                writer.add(
                    outcome.pixels,
                    scan_id=path or "",
                    patient=patient or "",
                    valid_box=outcome.valid_box,
                    spacing_mm=outcome.spacing_mm,
                    value_range=outcome.value_range,
                    labels=labels,
                )
            progress.advance(rejected=str(len(writer.rejected)))
    return dict(sorted(notes.items()))


def _report(archive: Archive, manifest: Manifest) -> None:
    channels, height, width = archive.shape
    whose = (
        f"of {archive.info['patients']:,} patients"
        if archive.patients_known
        else "of unknown patients (each counts as its own)"
    )
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
        say(f"{note} in {times:,} scans")
