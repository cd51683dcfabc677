"""`withdraw`: scans of a patient are removed from an archive without packing the others again."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from scanlearn.archive.changes import changing, commit, files_of, free_number, identities_of
from scanlearn.archive.layout import REJECTED_FILE, shard_name
from scanlearn.archive.lists import rewrite_list
from scanlearn.archive.reader import Archive
from scanlearn.archive.shards import drop_from_shard
from scanlearn.archive.spellings import agreeing, patients_spelled, spellings_of
from scanlearn.archive.summary import PAGE_FILE, SHEET_FILE, summary
from scanlearn.archive.table import arrow_column
from scanlearn.console import say, warn_user
from scanlearn.errors import ScanlearnError
from scanlearn.files import sweep


def withdraw(
    archive: Path | str,
    patients: Sequence[str],
    *,
    issuer: Annotated[
        str | None,
        Field(
            description="Issuer of the patient numbers: issuer= as given to pack, or the name of"
            " the packed folder; null where patients are given by hash or path."
        ),
    ] = None,
) -> Archive:
    """Removes all scans of some patients from an archive and returns it.

    Their pixels, labels and paths are deleted from the disk; backups, copies and what the file
    system keeps of deleted files are not touched. Mean, std and content hash become those of the
    remaining scans, and runs on the earlier archive cannot be resumed. Scans of these patients
    that are added later are left out. A crash leaves the old archive or the new one; if it left
    old files behind, withdrawing again removes them.

    Args:
        patients: Patient numbers as files or tables give them, paths of files where patients are
            unknown, or names as the archive stores them.

    Raises:
        ScanlearnError: The archive holds no such patient, would be empty, or cannot be changed.
    """
    path = Path(archive).expanduser()
    with changing(path) as before:
        withdrawn = withdrawn_from(before)["names"]
        names = _stored_names(before, patients, issuer)
        names = [name for name in names if name not in withdrawn]
        # What an interrupted addition left behind may show them too.
        shutil.rmtree(aside_of(path), ignore_errors=True)
        sweep(aside_of(path))
        if not names:
            say(f"{path}: these patients were withdrawn before; nothing to do")
            return before
        changed = drop_patients(before, names)
    patients_text = "1 patient" if len(names) == 1 else f"{len(names):,} patients"
    say(f"withdrew {len(before) - len(changed):,} scans of {patients_text} from {path}")
    return changed


def aside_of(path: Path) -> Path:
    """Returns where scans are packed before they are added to an archive."""
    return path.parent / f".{path.name}.added"


def withdrawn_from(archive: Archive) -> dict[str, Any]:
    """Returns how many patients and scans were withdrawn from an archive, and their names."""
    return dict(archive.info.get("withdrawn") or {"patients": 0, "scans": 0, "names": []})


def drop_patients(archive: Archive, names: list[str]) -> Archive:
    """Returns an archive without some patients; no other process may change it meanwhile.

    Raises:
        ScanlearnError: No scan would be left.
    """
    before = withdrawn_from(archive)
    path, gone = archive.path, pa.array(names, pa.string())
    is_gone = pc.is_in(arrow_column(archive.table, "patient"), value_set=gone)
    removed = arrow_column(archive.table, "scan_id").filter(is_gone)
    if len(removed) == len(archive):
        raise ScanlearnError(
            f"{path}: every scan is of these patients; delete the archive's folder instead"
        )
    number, shards = free_number(path), []
    for shard in archive.info["shards"]:
        rest = drop_from_shard(path, shard, gone, shard_name(number))
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
                "spellings": sorted({*before.get("spellings", ()), *spellings_of(archive, names)}),
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
    identities = identities_of(archive, issuer or "") if archive.info["key"] else None
    names: dict[str, None] = {}
    for patient in patients:
        candidates = [patient]
        if identities is not None:
            candidates += [identities.patient(patient), identities.file(patient)]
        is_known = pc.is_in(pa.array(candidates, pa.string()), value_set=known).to_pylist()
        stored = [name for name, is_in in zip(candidates, is_known, strict=True) if is_in]
        stored += [name for name in candidates if name in before]
        if not stored:
            raise ScanlearnError(
                f"{archive.path}: holds no patient {patient!r} of issuer {issuer or ''!r}; give the"
                " issuer= used when packing, or the name of the packed folder"
            )
        names |= dict.fromkeys(stored)
    spellings = spellings_of(archive, list(names))
    others = sorted({*patients_spelled(archive, spellings)} - {*names})
    if others:
        warn_user(
            f"{archive.path}: {agreeing(len(others), others[:1])}; if they are the same people,"
            " withdraw these too, by these names or by their numbers as they were written"
        )
    return list(names)
