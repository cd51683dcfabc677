"""`pack` in parts: tasks of a cluster pack them, and the last one joins them to an archive.

Which parts there are follows from the headers of all files, read once by the command that submits
them. A part that is there is whole: what a killed task left is packed again, alone.
"""

from __future__ import annotations

import os
import pickle
import shutil
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import numpy as np

from scanlearn.archive.layout import is_archive
from scanlearn.cluster import Task, submit
from scanlearn.console import say
from scanlearn.errors import ScanlearnError
from scanlearn.files import disk_errors, require_free, write_atomically
from scanlearn.locks import BusyError, Lock, beside, held
from scanlearn.packing.pack import (
    PackJob,
    check_columns,
    identities_for,
    manifest_of,
    pack_listed,
    pack_rows,
    plan_job,
    warn_of_patients,
)
from scanlearn.packing.settings import PackArraySettings
from scanlearn.tables.manifest import Manifest

_JOB_FILE, _KEY_FILE, _LOGS = "job.pickle", "job.txt", "tasks"


@dataclass(frozen=True)
class PartsFolder:
    """Where the parts of an archive are packed: beside it, and open to its owner alone."""

    path: Path

    @property
    def logs(self) -> Path:
        """What the tasks print."""
        return self.path / _LOGS

    def job(self) -> PackArray:
        """Reads the job, from a folder and file that nobody else can have written to.

        Raises:
            ScanlearnError: Another user could have.
        """
        file = self.path / _JOB_FILE
        for place in (self.path, file):
            status = place.stat()
            is_own = not hasattr(os, "getuid") or status.st_uid == os.getuid()
            if not is_own or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise ScanlearnError(
                    f"{place}: belongs to another user, or others may write to it; remove "
                    f"{self.path} and run the same command again"
                )
        # Unpickling can run code: only what this user's own command wrote is read.
        array = pickle.loads(file.read_bytes())
        assert isinstance(array, PackArray)
        return array

    def part(self, rows: range) -> Path:
        """Where the part with some rows of the manifest is when it is packed."""
        return self.path / f"rows-{rows.start}-{rows.stop}"

    def missing(self, cuts: Sequence[range]) -> list[range]:
        """Returns the parts that are not packed."""
        return [rows for rows in cuts if not self.part(rows).is_dir()]


@dataclass(frozen=True)
class PackArray:
    """A job cut into parts, as the tasks read it."""

    job: PackJob
    target: Path
    cuts: tuple[range, ...]
    key: str


def pack_array(source: Path | str, archive: Path | str, settings: PackArraySettings) -> Path:
    """Packs a source in parts, and returns where the archive is, or will be with a launcher.

    Without a launcher this command packs the parts that no other command is packing, one after the
    other. With one they are submitted as tasks of an array, and this command ends. The last to end
    joins them: the archive has the hash of one packed at once. Run again, it packs what is missing.

    Raises:
        ScanlearnError: See `pack`; or there is no such cluster here.
    """
    target = Path(archive).expanduser().absolute()
    folder = PartsFolder(target.parent / f".{target.name}.parts")
    manifest = manifest_of(source, settings)
    check_columns(manifest, settings)
    if is_archive(target):
        pack_listed(manifest, target, settings)
        shutil.rmtree(folder.path, ignore_errors=True)
        return target
    array = begin(folder, manifest, target, settings)
    missing = folder.missing(array.cuts)
    if settings.launcher is None or not missing:
        work_on(folder.path, missing)
        return target
    free = [rows for rows in missing if not _is_busy(folder.part(rows))]
    if len(free) < len(missing):
        say(f"{len(missing) - len(free)} parts are being packed")
    tasks = [Task(work_on, folder.path, [rows]) for rows in free]
    if tasks:
        names = submit(
            tasks, settings.launcher, settings.cluster, name="scanlearn", logs=folder.logs
        )
        say(f"submitted {', '.join(names)} for {len(free)} of {len(array.cuts)} parts")
        say(f"they write to {folder.logs}, and the last one leaves {target}")
    return target


def begin(
    folder: PartsFolder, manifest: Manifest, target: Path, settings: PackArraySettings
) -> PackArray:
    """Writes the job that tasks read; parts of other scans or settings are removed."""
    require_free(target)
    job = plan_job(manifest, settings, source_hash=manifest.content_hash())
    array = PackArray(job, target, cut(job, settings.parts), _key_of(job))
    key = folder.path / _KEY_FILE
    with disk_errors(target.parent):
        if folder.path.is_dir() and (not key.is_file() or key.read_text("utf-8") != array.key):
            shutil.rmtree(folder.path)
        folder.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(folder.path / _JOB_FILE, pickle.dumps(array), mode=0o600)
        write_atomically(key, array.key, mode=0o600)
    return array


def cut(job: PackJob, parts: int) -> tuple[range, ...]:
    """Returns the rows of each part: about as many scans in each, and no file in two."""
    ends = np.cumsum(job.headers.num_frames)
    num_scans, num_rows = int(ends[-1]), len(ends)
    starts = {int(np.searchsorted(ends, num_scans * k / parts, "right")) for k in range(parts)}
    edges = sorted({*starts, 0, num_rows})
    return tuple(range(*pair) for pair in pairwise(edges))


def work_on(path: Path, rows_of_parts: Sequence[range]) -> Path:
    """Packs parts that no other command is packing, and joins all where it was the last.

    Args:
        path: Folder of the parts.

    Returns:
        The archive, or where it will be.

    Raises:
        ScanlearnError: See `pack`; or patients would be hashed under another key.
    """
    folder = PartsFolder(path)
    array = folder.job()
    job, target = array.job, array.target
    if array.key != _key_of(job):
        raise ScanlearnError(
            f"{target}: its parts are packed with another release, or patients hashed under "
            "another key than here; run the command again here, or start the task as that command"
        )
    for rows in rows_of_parts:
        part = folder.part(rows)
        with suppress(BusyError), held(beside(part), part):
            if not part.is_dir():
                pack_rows(job, rows, part)
                say(f"packed the part with rows {rows.start:,} to {rows.stop:,}")
    left = folder.missing(array.cuts)
    if left:
        say(f"{len(left)} of {len(array.cuts)} parts are not packed; the last command joins all")
        return target
    parts = [folder.part(rows) for rows in array.cuts]
    waiting = job.settings.model_copy(update={"wait": True})
    packed = pack_listed(job.manifest, target, waiting, job, parts)
    warn_of_patients(packed, job.manifest)
    # What the tasks print stays for whoever waits for them.
    (path / _JOB_FILE).unlink(missing_ok=True)
    for part in parts:
        shutil.rmtree(part, ignore_errors=True)
    return target


def _key_of(job: PackJob) -> str:
    """Returns what parts must have in common: their scans, settings, release and key."""
    identities = identities_for(job.manifest, job.settings)
    names = (identities.fingerprint, identities.issuer_hash)
    return repr((job.source_hash, job.settings.fingerprint(), version("scanlearn"), names))


def _is_busy(part: Path) -> bool:
    try:
        Lock(beside(part), part).release()
    except BusyError:
        return True
    return False
