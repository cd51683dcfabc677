"""Writing an archive: shards and lists beside its place, moved there when they are complete."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from scanlearn.archive.identity import Identities
from scanlearn.archive.layout import (
    FORMAT_VERSION,
    PATHS_FILE,
    REJECTED_FILE,
    TABLE_FILE,
    Layout,
    Origin,
    PackedScan,
    file_entry,
    list_hashes,
    shard_name,
    write_info,
)
from scanlearn.archive.lists import ListWriter
from scanlearn.archive.reader import Archive
from scanlearn.archive.shards import ShardWriter
from scanlearn.archive.table import write_table
from scanlearn.errors import ScanlearnError
from scanlearn.files import (
    disk_errors,
    link_or_copy,
    remove_torn,
    require_free,
    write_atomically,
)
from scanlearn.locks import PartialFolder

_LISTS = {REJECTED_FILE: ("scan_id", "reason"), PATHS_FILE: ("scan_id", "path", "identifiers")}
_CHECKPOINT_FILE = "checkpoint.json"


class ArchiveWriter:
    """Writes an archive beside its target and moves it there when it is complete.

    A killed process leaves nothing at ``path``. What it left beside it is resumed from the last
    `checkpoint` by the next writer of the same archive, and removed by any other. Used as a
    context manager, an error discards everything written so far; an interruption leaves it as a
    kill does.

    Args:
        path: Where the archive will be: nothing, or an empty folder.
        shape: Channels, rows and columns of the canvas.
        dtype: ``np.uint8`` or ``np.uint16``.
        patients_known: False where every scan stands for its own patient.
        source_hash: Hash of what the archive is made from; without one nothing is resumed.
        settings: What was done to the pixels; kept in ``archive.json``.
        identities: What hashes patients and files; None where names need not be hidden.
        parts: Folders that `close_part` left of the same archive: it begins with what is in them.

    Raises:
        ScanlearnError: A part is damaged or of another archive, something lies at ``path`` already,
            another process writes the same
            archive, or the disk cannot be written.

    Example:
        >>> with ArchiveWriter("drawn", shape=(1, 8, 8), dtype=np.uint8) as writer:
        ...     writer.add(PackedScan(np.zeros((1, 8, 8), np.uint8)), Origin("a", patient="p"))
        ...     archive = writer.close()                           # doctest: +SKIP
    """

    def __init__(
        self,
        path: Path | str,
        *,
        shape: tuple[int, int, int],
        dtype: Any,
        label_columns: tuple[str, ...] = (),
        has_mask: bool = False,
        patients_known: bool = True,
        synthetic_phantom: bool = False,
        source_hash: str = "",
        settings: Mapping[str, Any] | None = None,
        identities: Identities | None = None,
        parts: Sequence[Path] = (),
    ) -> None:
        self.path, self._beside = Path(path), Path(path).parent
        self.identities = identities
        dtype = np.dtype(dtype)
        assert dtype in (np.dtype(np.uint8), np.dtype(np.uint16)), "uint8 or uint16 only"
        require_free(self.path)
        self._layout = Layout(shape, dtype, has_mask, tuple(label_columns))
        self._info: dict[str, Any] = {
            "format_version": FORMAT_VERSION,
            "shape": list(shape),
            "dtype": dtype.name,
            "has_mask": has_mask,
            "patients_known": patients_known,
            "synthetic_phantom": synthetic_phantom,
            "label_columns": list(label_columns),
            "source_hash": source_hash,
            "settings": dict(settings or {}),
            "key": identities.fingerprint if identities else None,
            "issuer": identities.issuer_hash if identities else None,
        }
        # Another release may decode or fit differently: it starts again.
        self._header = self._info | {"release": version("scanlearn")}
        self._archive: Archive | None = None
        self._is_part = False
        read = partial(read_checkpoint, header=self._header)
        self._folder = PartialFolder(
            self.path, lambda left: bool(source_hash) and read(left) is not None, wait=False
        )
        self._partial = self._folder.path
        self._reached = read(self._partial) if self._folder.is_taken_up else None
        with disk_errors(self._beside):
            remove_torn(self._partial)
            if parts:
                self._reached = self._gathered(parts)
            self._open(self._reached)

    def _open(self, reached: Checkpoint | None) -> None:
        """Opens the files where an earlier writer stopped."""
        reached = reached or Checkpoint({}, [], {}, {}, {})
        counts = [int(shard["scans"]) for shard in reached.shards]
        names = [REJECTED_FILE, *([PATHS_FILE] if self.identities else [])]
        self._shards = ShardWriter(self._partial, self._layout, counts)
        self._entries = [dict(shard) for shard in reached.shards]
        self._lists = {
            name: ListWriter(
                self._partial / name,
                _LISTS[name],
                owner_only=name == PATHS_FILE,
                keep_bytes=reached.list_bytes.get(name),
            )
            for name in names
        }
        facts = reached.facts
        self.num_scans = sum(counts)
        self.num_rejected: int = facts.get("num_rejected", 0)
        self.first_reason: str | None = facts.get("first_reason")
        self._last_listed: str | None = facts.get("last_listed")

    def _gathered(self, parts: Sequence[Path]) -> Checkpoint:
        """Brings the files of parts here and returns where a writer of all of them stopped."""
        (self._partial / "shards").mkdir(exist_ok=True)
        reached = [(part, read_checkpoint(part, self._header)) for part in parts]
        shards: list[dict[str, Any]] = []
        states, facts = [], []
        list_bytes: Counter[str] = Counter()
        for part, checkpoint in reached:
            if checkpoint is None:
                self._folder.discard()
                raise ScanlearnError(
                    f"{part}: is damaged, or a part of another archive; remove it and run the same"
                    " command again"
                )
            for shard in checkpoint.shards:
                name = shard_name(len(shards))
                link_or_copy(part / shard["file"], self._partial / name)
                shards.append(shard | {"file": name})
            for name, size in checkpoint.list_bytes.items():
                if name not in list_bytes:
                    # With its mode: a list of paths is its owner's alone.
                    shutil.copy(part / name, self._partial / name)
                    list_bytes[name] = size
                    continue
                lines = (part / name).read_bytes()
                # The first line names the columns.
                more = lines[lines.index(b"\n") + 1 : size]
                with (self._partial / name).open("ab") as file:
                    file.write(more)
                list_bytes[name] += len(more)
            states.append(checkpoint.state)
            facts.append(checkpoint.facts)
        reasons = (each["first_reason"] for each in facts)
        joined = {
            "num_rejected": sum(each["num_rejected"] for each in facts),
            "first_reason": next(filter(None, reasons), None),
            "last_listed": facts[-1]["last_listed"],
        }
        return Checkpoint(self._header, shards, dict(list_bytes), joined, {"parts": states})

    def __enter__(self) -> ArchiveWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        is_interrupted = kind is not None and not issubclass(kind, Exception)
        if is_interrupted and self._reached is not None:
            self._let_go()
            self._folder.leave()
        elif kind is not None:
            self.discard()
        elif self._archive is None and not self._is_part:
            self.close()

    def add(self, scan: PackedScan, origin: Origin) -> bool:
        """Adds one scan; scans keep the order in which they are added.

        Returns:
            Whether everything so far is on disk for good, which is the time for a `checkpoint`.

        Raises:
            ScanlearnError: The disk is full or may not be written to.
        """
        self.num_scans += 1
        with disk_errors(self._beside):
            return self._shards.add(scan, origin)

    def list_file(self, path: str, identifiers: Sequence[str] = ()) -> str:
        """Lists a file's path for the owner alone and returns its hash, the name of its scans.

        Args:
            identifiers: Hashes of its study, accession and instance, by which labels are joined.
        """
        assert self.identities is not None, "there is nothing to hash paths with"
        name = self.identities.file(path)
        if name != self._last_listed:
            with disk_errors(self._beside):
                self._lists[PATHS_FILE].add(name, path, " ".join(identifiers))
        self._last_listed = name
        return name

    def reject(self, scan_id: str, reason: str) -> None:
        """Lists a scan in ``rejected.csv`` with the reason."""
        with disk_errors(self._beside):
            self._lists[REJECTED_FILE].add(scan_id, reason)
        self.num_rejected += 1
        self.first_reason = self.first_reason or reason

    def checkpoint(self, state: Mapping[str, Any]) -> None:
        """Keeps JSON for `resumed`: a later writer may resume from here; `add` says when."""
        assert self.num_scans == sum(self._shards.counts), "scans are still in memory"
        with disk_errors(self._beside):
            self._reached = Checkpoint(
                header=self._header,
                shards=self._shard_entries(),
                list_bytes={name: file.num_bytes() for name, file in self._lists.items()},
                facts={
                    "num_rejected": self.num_rejected,
                    "first_reason": self.first_reason,
                    "last_listed": self._last_listed,
                },
                state=dict(state),
            )
            self._reached.write(self._partial)

    @property
    def num_kept(self) -> int:
        """Scans that the last checkpoint keeps for a later writer."""
        return sum(shard["scans"] for shard in self._reached.shards) if self._reached else 0

    @property
    def resumed(self) -> Mapping[str, Any]:
        """The state last given to `checkpoint`, by an earlier writer too; empty if none was."""
        return self._reached.state if self._reached else {}

    def close(self, **facts: Any) -> Archive:
        """Completes the archive, moves it to its path and returns it opened.

        Args:
            **facts: Further entries of ``archive.json``.

        Raises:
            ScanlearnError: The disk is full, or another archive has appeared at the path.
        """
        if self._archive is not None:
            return self._archive
        assert self.num_scans > 0, "an archive needs at least one scan"
        try:
            with disk_errors(self._beside):
                self._finish(facts)
                published = self._folder.publish()
        except BaseException:
            self.discard()
            raise
        if not published:
            self.discard()
            if Archive(self.path).content_hash != self._info["content_hash"]:
                raise ScanlearnError(
                    f"{self.path}: another process wrote another archive there; choose another path"
                )
        self._archive = Archive(self.path)
        return self._archive

    def close_part(self, state: Mapping[str, Any]) -> None:
        """Leaves what was written at its path as a part of an archive, with or without scans.

        Args:
            state: What `resumed` says of it to the writer of all parts.
        """
        with disk_errors(self._beside):
            self._shards.close()
            self.checkpoint(state)
            for file in self._lists.values():
                file.close()
            if not self._folder.publish():
                raise ScanlearnError(f"{self.path}: something has appeared there; remove it")
        self._is_part = True

    def discard(self) -> None:
        """Removes everything written so far."""
        self._let_go()
        self._folder.discard()

    def _let_go(self) -> None:
        self._shards.abort()
        for file in self._lists.values():
            file.abort()

    def _finish(self, facts: Mapping[str, Any]) -> None:
        self._shards.close()
        for file in self._lists.values():
            file.close()
        shards = self._shard_entries()
        names = [shard["file"] for shard in shards]
        self._info |= write_table(self._partial, self._layout, names, self._partial / TABLE_FILE)
        self._info |= {
            "rejected": self.num_rejected,
            "manifest": file_entry(self._partial, TABLE_FILE),
            "shards": shards,
            "lists": list_hashes(self._partial),
            **facts,
        }
        drop_checkpoint(self._partial)
        write_info(self._partial, self._info)

    def _shard_entries(self) -> list[dict[str, Any]]:
        # A shard is hashed once, when it is complete.
        for number in range(len(self._entries), len(self._shards.counts)):
            entry = file_entry(self._partial, shard_name(number))
            self._entries.append(entry | {"scans": self._shards.counts[number]})
        return self._entries


@dataclass(frozen=True)
class Checkpoint:
    """What is safely on disk, and what is needed to resume from there.

    Args:
        header: What the archive is made from and how; only a writer of the same resumes.
        shards: File, bytes and scans of each finished shard, as in ``archive.json``.
        list_bytes: Length of each list, by file name.
    """

    header: dict[str, Any]
    shards: list[dict[str, Any]]
    list_bytes: dict[str, int]
    facts: dict[str, Any]
    state: dict[str, Any]

    def write(self, folder: Path) -> None:
        """Replaces the checkpoint in a folder in one step."""
        write_atomically(folder / _CHECKPOINT_FILE, json.dumps(asdict(self)))


def read_checkpoint(folder: Path, header: Mapping[str, Any]) -> Checkpoint | None:
    """Returns the checkpoint in a folder; None if it does not fit the archive and files."""
    try:
        reached = Checkpoint(**json.loads((folder / _CHECKPOINT_FILE).read_text("utf-8")))
        is_same = reached.header == json.loads(json.dumps(dict(header)))
        has_shards = all(
            (folder / shard["file"]).stat().st_size == shard["bytes"] for shard in reached.shards
        )
        has_lists = all(
            (folder / file).stat().st_size >= size for file, size in reached.list_bytes.items()
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return reached if is_same and has_shards and has_lists else None


def drop_checkpoint(folder: Path) -> None:
    """Removes the checkpoint, which no complete archive has."""
    (folder / _CHECKPOINT_FILE).unlink(missing_ok=True)
