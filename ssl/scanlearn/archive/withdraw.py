"""`withdraw`: the scans of a patient leave an archive, and the rest is not packed again."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from scanlearn.archive.changes import (
    changing,
    commit,
    described,
    files_of,
    free_number,
)
from scanlearn.archive.identity import read_identities
from scanlearn.archive.layout import REJECTED_FILE, shard_name
from scanlearn.archive.lists import rewrite_list
from scanlearn.archive.reader import Archive
from scanlearn.archive.shards import sync
from scanlearn.archive.summary import PAGE_FILE, SHEET_FILE, summary
from scanlearn.archive.table import arrow_column
from scanlearn.console import say
from scanlearn.errors import ScanlearnError
from scanlearn.files import sweep


def withdraw(
    archive: Path | str,
    patients: Sequence[str],
    *,
    issuer: Annotated[
        str | None,
        Field(
            description="Who gave the patients their numbers: what issuer= was when packing, or the"
            " packed folder's name; null where a patient is given by hash or path."
        ),
    ] = None,
) -> Archive:
    """Takes all scans of some patients out of an archive and returns it.

    Their pixels, labels and paths leave the disk (what a file system, a backup or a copy keeps of
    removed files is beyond this), mean, std and hash become those of the rest, and runs on the
    archive as it was cannot be gone on with. Scans of them that are added later stay out. A crash
    leaves the old archive or the new one; where it cut off the removal of old files, withdrawing
    again completes it.

    Args:
        archive: The archive's folder.
        patients: Numbers of the patients, as files or tables give them; where patients are unknown,
            the paths of files; or names as the archive stores them.
        issuer: Who gave them these numbers: what ``issuer`` was when packing, or the name of the
            packed folder. The archive does not hold it; a stored name or a path needs none.

    Raises:
        ScanlearnError: The archive holds no such patient, would be empty, or cannot be changed.
    """
    path = Path(archive).expanduser()
    with changing(path) as found:
        names = _stored_names(found, patients, issuer)
        names = [name for name in names if name not in withdrawn_from(found)["names"]]
        # What an addition that was cut off left may show them too.
        shutil.rmtree(aside_of(path), ignore_errors=True)
        sweep(aside_of(path))
        if not names:
            say(f"{path}: these patients have been withdrawn already")
            return found
        num_before = len(found)
        found = drop_patients(found, names)
    whose = "1 patient" if len(names) == 1 else f"{len(names):,} patients"
    say(f"withdrew {num_before - len(found):,} scans of {whose} from {path}")
    return found


def aside_of(path: Path) -> Path:
    """Returns where scans are packed before they are added to an archive."""
    return path.parent / f".{path.name}.added"


def withdrawn_from(archive: Archive) -> dict[str, Any]:
    """Returns how many patients and scans were withdrawn from an archive, and their names."""
    return dict(archive.info.get("withdrawn") or {"patients": 0, "scans": 0, "names": []})


def drop_patients(archive: Archive, names: list[str]) -> Archive:
    """Returns an archive without some patients; no other process may change it meanwhile.

    Args:
        archive: The archive.
        names: Patients as they are stored.

    Raises:
        ScanlearnError: No scan would be left.
    """
    before = withdrawn_from(archive)
    path, gone = archive.path, pa.array(names, pa.string())
    is_gone = pc.is_in(arrow_column(archive.table, "patient"), value_set=gone)
    removed = arrow_column(archive.table, "scan_id").filter(is_gone)
    if len(removed) == len(archive):
        raise ScanlearnError(
            f"{path}: every scan is of the patients that are withdrawn; remove the folder"
        )
    number, shards = free_number(path), []
    for shard in archive.info["shards"]:
        rest = _without(path, shard, gone, shard_name(number))
        number += rest is not shard
        shards.extend([rest] if rest else [])
    has_page = (path / PAGE_FILE).is_file()
    for file in (PAGE_FILE, SHEET_FILE):  # They show pixels, perhaps those of the patient.
        (path / file).unlink(missing_ok=True)
    files = set(files_of(removed).to_pylist())
    changed = commit(
        archive,
        shards,
        {
            "rejected": rewrite_list(path / REJECTED_FILE, files),
            "withdrawn": {
                "patients": before["patients"] + len(names),
                "scans": before["scans"] + len(removed),
                "names": sorted({*before["names"], *names}),
            },
        },
    )
    if has_page:
        summary(changed)
    return changed


def _stored_names(archive: Archive, patients: Sequence[str], issuer: str | None) -> list[str]:
    """Returns the names under which an archive stores patients, each once."""
    known = arrow_column(archive.table, "patient")
    before = withdrawn_from(archive)["names"]
    whose = read_identities(issuer or "") if archive.info["key"] else None
    if whose is not None and whose.fingerprint != archive.info["key"]:
        raise ScanlearnError(
            f"{archive.path}: its patients are hashed under another key; set SCANLEARN_KEY to that"
        )
    names: dict[str, None] = {}
    for patient in patients:
        candidates = [patient]
        if whose is not None:
            candidates += [whose.patient(patient), whose.file(patient)]
        values = pa.array(candidates, pa.string())
        inside = [
            name
            for name, is_there in zip(
                candidates, pc.is_in(values, value_set=known).to_pylist(), strict=True
            )
            if is_there or name in before
        ]
        if not inside:
            raise ScanlearnError(
                f"{archive.path}: holds no patient {patient!r} of issuer {issuer or ''!r}; give"
                " issuer= as when packing, or the name of the folder that was packed"
            )
        names |= dict.fromkeys(inside)
    return list(names)


def _without(path: Path, shard: dict[str, Any], gone: pa.Array, name: str) -> dict[str, Any] | None:
    """Writes what is left of a shard to a new file; returns its entry, None where nothing is."""
    with pa.memory_map(str(path / shard["file"])) as source:
        file = pa.ipc.open_file(source)
        numbers = range(file.num_record_batches)
        kept = [
            pc.invert(pc.is_in(file.get_batch(number).column("patient"), value_set=gone))
            for number in numbers
        ]
        num_kept = sum(pc.sum(rows).as_py() or 0 for rows in kept)
        if num_kept == shard["scans"]:
            return shard
        if num_kept == 0:
            return None
        with (
            pa.OSFile(str(path / name), "wb") as sink,
            pa.ipc.new_file(sink, file.schema) as writer,
        ):
            for number, rows in zip(numbers, kept, strict=True):
                rest = file.get_batch(number).filter(rows)
                if rest.num_rows:
                    writer.write_batch(rest)
    sync(path / name)
    return described(path, name, num_kept)
