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
from scanlearn.archive.layout import REJECTED_FILE, is_archive, shard_name
from scanlearn.archive.lists import rewrite_list
from scanlearn.archive.reader import Archive
from scanlearn.archive.shards import drop_from_shard
from scanlearn.archive.spellings import agreeing, patients_spelled, spellings_of
from scanlearn.archive.summary import PAGE_FILE, SHEET_FILE
from scanlearn.archive.table import arrow_column
from scanlearn.config.calls import checked
from scanlearn.console import say, warn_user
from scanlearn.errors import ScanlearnError
from scanlearn.files import cache_folder, features_folder, features_prefix
from scanlearn.locks import remove_whole, sweep, target_of


@checked
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
    wait: Annotated[
        bool,
        Field(
            description="Whether to wait for another process that changes the archive; if not, the"
            " command ends with exit code 3."
        ),
    ] = False,
) -> Archive:
    """Permanently delete all scans of given patients from an archive.

    Their pixels, labels and paths are deleted from the disk, also from what killed commands left
    beside the archive and from the cache (`cache_folder`): archives there that hold a scan of them,
    and features of any of these archives. Backups, copies and what the file system keeps of deleted
    files are not touched. Mean, std and content hash become those of the
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
    with changing(path, wait=wait) as before:
        withdrawn = withdrawn_from(before)["names"]
        names = _stored_names(before, patients, issuer)
        # First, while the archive still names what to look for: a kill leaves the rest to do.
        _remove_copies(before, names)
        names = [name for name in names if name not in withdrawn]
        if not names:
            say(f"{path}: these patients were withdrawn before; nothing to do")
            return before
        changed = drop_patients(before, names)
    patients_text = "1 patient" if len(names) == 1 else f"{len(names):,} patients"
    say(f"withdrew {len(before) - len(changed):,} scans of {patients_text} from {path}")
    return changed


def _remove_copies(archive: Archive, names: list[str]) -> None:
    """Removes what else of some patients lies beside an archive and in the cache, and says so."""
    aside, cache = aside_of(archive.path), cache_folder()
    left = [*sweep(archive.path), *sweep(aside)]
    if aside.is_dir():
        shutil.rmtree(aside)
        left.append(aside)
    entries = sorted(cache.iterdir()) if cache.is_dir() else []
    for target in dict.fromkeys(target_of(entry) for entry in entries):
        left += [] if target is None else sweep(target)
    hashes = [archive.content_hash]
    for entry in entries:
        if not is_archive(entry) or entry.samefile(archive.path):
            continue
        try:
            copied = _content_if_shared(Archive(entry), archive, names)
            if copied is not None:
                remove_whole(entry)
                hashes.append(copied)
                left.append(entry)
        except ScanlearnError as error:
            warn_user(f"{error}; it was not searched for these patients: remove {entry}")
    prefixes = tuple(features_prefix(content_hash) for content_hash in hashes)
    for file in sorted(features_folder().glob("*.np[yz]")):
        # Those that earlier releases kept do not say of which archive they are.
        if file.name.startswith(prefixes) or "-" not in file.name:
            file.unlink()
            left.append(file)
    for path in left:
        say(f"removed a copy, or what a stopped command left: {path}")


def _content_if_shared(cached: Archive, archive: Archive, names: list[str]) -> str | None:
    """Returns the content hash of an archive in the cache that holds one of some patients."""
    if archive.info["key"] is None or cached.info["key"] != archive.info["key"]:
        return None
    patients = arrow_column(cached.table, "patient")
    is_in = pc.is_in(patients, value_set=pa.array(names, pa.string()))
    return cached.content_hash if pc.any(is_in).as_py() else None


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
    for file in (PAGE_FILE, SHEET_FILE):  # They show pixels, perhaps those of the patient.
        (path / file).unlink(missing_ok=True)
    files = set(files_of(removed).to_pylist())
    return commit(
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
