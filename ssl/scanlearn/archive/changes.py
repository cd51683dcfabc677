"""Changing an archive in place: one process at a time, and in one step for whoever opens it.

New files are written beside the old ones, ``archive.json`` is replaced, and what it no longer names
is removed. A crash leaves the old archive or the new one; the next change tidies up first.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from scanlearn.archive.identity import KEY_VARIABLE, Identities, read_identities
from scanlearn.archive.layout import (
    PATHS_FILE,
    REJECTED_FILE,
    Layout,
    file_entry,
    list_hashes,
    write_info,
)
from scanlearn.archive.lists import rewrite_list
from scanlearn.archive.reader import Archive
from scanlearn.archive.summary import refresh_summary, wants_summary
from scanlearn.archive.table import arrow_column, write_table
from scanlearn.errors import ScanlearnError
from scanlearn.files import disk_errors, remove_torn
from scanlearn.locks import held, inside

_FIRST_CHANGEABLE = 2


@contextlib.contextmanager
def changing(path: Path, *, wait: bool = False) -> Iterator[Archive]:
    """Yields an archive that no other process changes meanwhile.

    Afterwards its page and contact sheet are made anew where they are missing or older: those that
    a change has outdated, and those that an earlier one was killed before it could make.

    Args:
        wait: Whether to wait for another process that is changing it.

    Raises:
        BusyError: Another process is changing it.
        ScanlearnError: There is no archive, it was packed by a release before this was possible,
            or it may not be written to.
    """
    archive = Archive(path)
    if archive.info["format_version"] < _FIRST_CHANGEABLE:
        raise ScanlearnError(
            f"{path}: was packed by an earlier release and can be read but not changed; pack the"
            " scans again"
        )
    with disk_errors(path), held(inside(path), path, wait=wait):
        remove_torn(path)
        before = Archive(path)
        tidy(before)
        # A change was killed between its two last steps; earlier releases kept no hashes at all.
        if "sha256" in before.info and "lists" not in before.info:
            write_info(path, {**before.info, "lists": list_hashes(path)})
        before = Archive(path)
        has_page = wants_summary(before)
        yield before
        if has_page:
            refresh_summary(Archive(path), is_locked=True)


def identities_of(archive: Archive, issuer: str) -> Identities:
    """Returns identities under this user's key, which must be the one of the archive.

    Raises:
        ScanlearnError: Patients of the archive are hashed under another key.
    """
    identities = read_identities(issuer)
    if identities.fingerprint != archive.info["key"]:
        raise ScanlearnError(
            f"{archive.path}: its patients are hashed under another key; set {KEY_VARIABLE} to the"
            " file of that key"
        )
    return identities


def commit(archive: Archive, shards: list[dict[str, Any]], info: Mapping[str, Any]) -> Archive:
    """Replaces the shards of an archive in one step, and returns it.

    Args:
        shards: Entries of the new shards in ``archive.json``; the files are there.
        info: What else of ``archive.json`` changes.
    """
    path = archive.path
    merged = dict(archive.info) | dict(info)
    columns = tuple(merged["label_columns"])
    layout = Layout(archive.shape, archive.dtype, merged["has_mask"], columns)
    numbers = (file.stem.partition(".")[2] for file in path.glob("manifest*.parquet"))
    table = f"manifest.{max((int(n) for n in numbers if n.isdigit()), default=0) + 1}.parquet"
    merged |= write_table(path, layout, [shard["file"] for shard in shards], path / table)
    merged["manifest"] = file_entry(path, table)
    merged["shards"] = shards
    # Hashes of the lists come last: until the new archive is in place, paths of both are listed.
    merged.pop("lists", None)
    write_info(path, merged)
    tidy(Archive(path))
    write_info(path, merged | {"lists": list_hashes(path)})
    return Archive(path)


def free_number(path: Path) -> int:
    """Returns the first number that no shard of an archive has or is followed by."""
    taken = [int(file.stem) for file in (path / "shards").glob("*.arrow")]
    return max(taken, default=-1) + 1


def files_of(names: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray | pa.Array:
    """Returns the names of the files that scans are from: what stands before ``#``."""
    return pc.replace_substring_regex(names, pattern="#.*$", replacement="")


def tidy(archive: Archive) -> None:
    """Removes files and paths that an archive no longer names, after a change or one cut off."""
    path = archive.path
    named = {archive.table, *(path / shard["file"] for shard in archive.info["shards"])}
    for file in (*path.glob("manifest*.parquet"), *(path / "shards").glob("*.arrow")):
        if file not in named:
            file.unlink()
    if (path / PATHS_FILE).is_file():
        rejected = _first_column(path / REJECTED_FILE)
        known = pa.chunked_array(
            [*files_of(arrow_column(archive.table, "scan_id")).chunks, *files_of(rejected).chunks]
        )
        listed = _first_column(path / PATHS_FILE)
        unknown = set(listed.filter(pc.invert(pc.is_in(listed, value_set=known))).to_pylist())
        if unknown:
            rewrite_list(path / PATHS_FILE, unknown)


def _first_column(path: Path) -> pa.ChunkedArray:
    parsing = pa_csv.ParseOptions(newlines_in_values=True)
    converting = pa_csv.ConvertOptions(
        column_types={"scan_id": pa.string()},
        include_columns=["scan_id"],
        strings_can_be_null=False,
    )
    table = pa_csv.read_csv(path, parse_options=parsing, convert_options=converting)
    return table.column("scan_id")
