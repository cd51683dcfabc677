"""`add`: new scans are packed into an existing archive without packing the others again."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from scanlearn.archive.changes import changing, commit, files_of, free_number, identities_of
from scanlearn.archive.identity import Identities, source_name
from scanlearn.archive.layout import PATHS_FILE, REJECTED_FILE, is_archive, shard_name
from scanlearn.archive.lists import read_list, rewrite_list
from scanlearn.archive.reader import Archive
from scanlearn.archive.spellings import agreeing, patients_spelled
from scanlearn.archive.table import arrow_column
from scanlearn.archive.withdraw import aside_of, drop_patients, withdrawn_from
from scanlearn.config.calls import checked
from scanlearn.console import counted, say, warn_user
from scanlearn.errors import ScanlearnError
from scanlearn.files import link_or_copy
from scanlearn.packing.pack import manifest_of, pack_job, plan_job, warn_of_patients
from scanlearn.packing.settings import SOURCE_SETTINGS, PackSettings, pixel_settings
from scanlearn.tables.manifest import Manifest


@checked
def add(
    archive: Path | str, source: Path | str | Manifest, *, settings: PackSettings | None = None
) -> Archive:
    """Add the new scans of a source to an existing archive.

    Files that it does not hold yet are packed with the archive's settings, into shards of their own
    behind those that are there. Files rejected before are tried again; scans of withdrawn patients
    are left out. Runs on the earlier archive cannot be resumed. A crash leaves the old
    archive or the new one, and what was packed by then is not packed again.

    Args:
        source: A folder of scans, a table, or a manifest already read; the archive's own source
            with more in it, or another.
        settings: How the source is read. Settings of pixels may be left out, or must be the
            archive's.

    Raises:
        ScanlearnError: The source cannot be used, none of its new files can be read, they do not
            fit the archive, or it cannot be changed.
    """
    path = Path(archive).expanduser()
    with changing(path, wait=bool(settings and settings.wait)) as before:
        settings = _settings_like(before, settings)
        manifest = source if isinstance(source, Manifest) else manifest_of(source, settings)
        identities = identities_of(before, settings.issuer or source_name(manifest.root))
        manifest = _without_known(before, manifest, identities)
        aside = aside_of(path)
        if len(manifest) == 0:
            shutil.rmtree(aside, ignore_errors=True)
            say(f"{path} already holds all files of {manifest.root}")
            return before
        added = _without_withdrawn(_packed_aside(aside, manifest, settings, before), before)
        if added is None:
            shutil.rmtree(aside)
            say(f"{path}: all new files of {manifest.root} are of patients who were withdrawn")
            return before
        joined = _joined(before, added)
        shutil.rmtree(aside)
    warn_of_patients(joined)
    say(f"added {counted(len(added), 'scan')} to {path}, which now holds {len(joined):,}")
    if added.num_rejected:
        told = counted(added.num_rejected, "scan")
        warn_user(f"{told} could not be packed; rejected.csv lists why")
    return joined


def _settings_like(archive: Archive, settings: PackSettings | None) -> PackSettings:
    """Returns the settings an archive was packed with, for another source.

    Raises:
        ScanlearnError: The archive was not packed from files, or other settings are given.
    """
    kept = pixel_settings(archive.info["settings"])
    if archive.info["key"] is None:
        raise ScanlearnError(f"{archive.path}: was not packed from files, so none can be added")
    changed = settings.model_dump(mode="json", exclude_unset=True) if settings else {}
    for key, value in changed.items():
        if key not in SOURCE_SETTINGS and value != kept.get(key):
            raise ScanlearnError(
                f"{archive.path}: was packed with {key}={kept.get(key)}, not {value}; leave {key}"
                " out: added scans are packed with the archive's settings"
            )
    return PackSettings.model_validate({**kept, **changed})


def _without_known(archive: Archive, manifest: Manifest, identities: Identities) -> Manifest:
    """Returns the files of a manifest that an archive does not hold.

    Raises:
        ScanlearnError: Files of another source have the paths of files that are there.
    """
    known = files_of(arrow_column(archive.table, "scan_id"))
    paths = manifest.table.column("path")
    names = pa.array((identities.file(path.as_py() or "") for path in paths), pa.string())
    is_known = pc.is_in(names, value_set=known)
    num_known = pc.sum(is_known).as_py() or 0
    if num_known and identities.issuer_hash not in _issuers(archive):
        raise ScanlearnError(
            f"{manifest.root}: {num_known:,} of its files have the same paths as files of another"
            f" source in {archive.path}; move them into one more folder, or give issuer= if it is"
            " the same source"
        )
    return replace(manifest, table=manifest.table.filter(pc.invert(is_known)))


def _issuers(archive: Archive) -> list[str]:
    return list(archive.info.get("issuers") or [archive.info["issuer"]])


def _packed_aside(
    aside: Path, manifest: Manifest, settings: PackSettings, like: Archive
) -> Archive:
    """Packs files into an archive beside the one they go to, or finds that done."""
    source_hash = manifest.content_hash()
    if is_archive(aside):
        with contextlib.suppress(ScanlearnError):
            done = Archive(aside)
            if done.info["source_hash"] == source_hash:
                return done
        shutil.rmtree(aside)
    return pack_job(plan_job(manifest, settings, source_hash=source_hash, like=like), aside)


def _without_withdrawn(added: Archive, archive: Archive) -> Archive | None:
    """Returns what is added without patients who were withdrawn; None where nothing is left."""
    patients = arrow_column(added.table, "patient").unique().to_pylist()
    withdrawn = withdrawn_from(archive)
    returned = {*patients} & {*withdrawn["names"]}
    respelled = {*patients_spelled(added, withdrawn.get("spellings", ()))} - returned
    if respelled:
        # Withdrawn as 61, a patient came back as 00061.
        warn_user(
            f"{agreeing(len(respelled), sorted(respelled)[:1])} and was withdrawn: left out; if it"
            " is somebody else, write the numbers so that they differ"
        )
    returned |= respelled
    if len(returned) == len(patients):
        return None
    return drop_patients(added, sorted(returned)) if returned else added


def _joined(archive: Archive, added: Archive) -> Archive:
    """Returns an archive with the scans of another behind its own, in one step."""
    path, first = archive.path, free_number(archive.path)
    shards = list(archive.info["shards"])
    for number, shard in enumerate(added.info["shards"], first):
        name = shard_name(number)
        link_or_copy(added.path / shard["file"], path / name)
        shards.append(shard | {"file": name})
    old, new = archive.info, added.info
    # Files that were set aside before were tried again: what is said of them now counts.
    tried = {name for name, *_ in read_list(added.path / PATHS_FILE)}
    rejected = rewrite_list(path / REJECTED_FILE, tried, read_list(added.path / REJECTED_FILE))
    if (path / PATHS_FILE).is_file():
        rewrite_list(path / PATHS_FILE, tried, read_list(added.path / PATHS_FILE))
    counts = [Counter[str](info.get("examined") or {}) for info in (old, new)]
    examined = counts[0] + counts[1] if all(counts) else Counter[str]()
    text = f"{old['source_hash']} {new['source_hash']}"
    changes: dict[str, Any] = {
        "label_columns": list(dict.fromkeys([*old["label_columns"], *new["label_columns"]])),
        "patients_known": old["patients_known"] and new["patients_known"],
        "issuer_given": old.get("issuer_given", False) and new.get("issuer_given", False),
        # Of an archive that did not count them it is not known.
        "examined": dict(sorted(examined.items())),
        "notes": dict(sorted((Counter(old["notes"]) + Counter(new["notes"])).items())),
        "rejected": rejected,
        "issuers": sorted({*_issuers(archive), new["issuer"]}),
        "source_hash": hashlib.sha256(text.encode()).hexdigest(),
    }
    return commit(archive, shards, changes)
