"""The packed archive: scans decoded once, written here and read through memory maps."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool

from scanlearn.archive.identity import Identities
from scanlearn.archive.layout import (
    BATCHES_PER_SHARD,
    LABEL_PREFIX,
    PATHS_FILE,
    REJECTED_FILE,
    TABLE_FILE,
    Layout,
    Row,
    ScanTally,
    make_row,
    shard_name,
)
from scanlearn.archive.reader import FORMAT_VERSION, Archive, is_archive
from scanlearn.archive.table import ListWriter, take_census
from scanlearn.errors import ScanlearnError
from scanlearn.files import (
    disk_errors,
    publish,
    release,
    require_free,
    start_partial,
    take_up,
    write_atomically,
)
from scanlearn.readers.scan import Pixels

# Arrow files whose first column begins at multiples of 64 bytes, where copies out of it start.


_ALIGNED_TO = 64


_ARROW_ALIGNS_TO = 8


# The magic number of a file, and the marker and length of each message.
_MAGIC_BYTES = 8


_PREFIX_BYTES = 8


_NAME = "padding"


class AlignedWriter:
    """Writes record batches into a file, each after as much padding as its first column asks for.

    Arrow aligns to 8 bytes; a scan of 64 kB is then copied out of a memory map a tenth slower
    than out of a plain array. The padding is metadata of a batch that no reader looks at.

    Args:
        sink: An open file at its start.
        schema: Columns of the batches.
    """

    def __init__(self, sink: Any, schema: pa.Schema) -> None:
        self._sink = sink
        self._writer = pa.ipc.new_file(sink, schema)
        self._sizes = _sizes_before_columns(schema)
        # It is written with the first batch.
        self._place = _MAGIC_BYTES + len(schema.serialize())

    def write_batch(self, batch: pa.RecordBatch) -> None:
        """Writes one record batch."""
        fitting = (
            padding
            for padding, size in self._sizes.items()
            if (self._place + size) % _ALIGNED_TO == 0
        )
        padding = next(fitting, "")
        self._writer.write_batch(batch, custom_metadata={_NAME: padding})
        self._place = self._sink.tell()

    def close(self) -> None:
        """Writes the end of the file, which stays open."""
        self._writer.close()


def _sizes_before_columns(schema: pa.Schema) -> dict[str, int]:
    """Returns how many bytes precede the columns of a record batch by its padding.

    They follow from the schema and the padding, so that any batch with a row tells them.
    """
    row = pa.RecordBatch.from_arrays([pa.nulls(1, field.type) for field in schema], schema=schema)
    sizes = {}
    for number in range(_ALIGNED_TO // _ARROW_ALIGNS_TO):
        padding = "-" * (_ARROW_ALIGNS_TO * number)
        written = pa.BufferOutputStream()
        writer = pa.ipc.new_stream(written, schema)
        writer.write_batch(row, custom_metadata={_NAME: padding})
        _, batch = pa.ipc.MessageReader.open_stream(written.getvalue())
        sizes[padding] = _PREFIX_BYTES + batch.metadata.size
    return sizes


# How far a writer of an archive had come when it last finished a shard, for one that goes on.


_FILE = "checkpoint.json"


@dataclass(frozen=True)
class Checkpoint:
    """What is on disk for good, and what the writer's caller needs to go on from there.

    Args:
        header: What the archive is made from and how; only a writer of the same goes on.
        shards: File, bytes and scans of each finished shard, as in ``archive.json``.
        list_bytes: How long each list was, by file name.
        facts: What else the writer keeps.
        state: What its caller keeps.
    """

    header: dict[str, Any]
    shards: list[dict[str, Any]]
    list_bytes: dict[str, int]
    facts: dict[str, Any]
    state: dict[str, Any]

    def write(self, folder: Path) -> None:
        """Writes it in one step, in the place of the one before."""
        write_atomically(folder / _FILE, json.dumps(asdict(self)))

    @property
    def counts(self) -> list[int]:
        """Scans of each finished shard."""
        return [int(shard["scans"]) for shard in self.shards]


def read_checkpoint(folder: Path, header: Mapping[str, Any]) -> Checkpoint | None:
    """Returns the checkpoint in a folder; None where it is of another archive or not whole."""
    try:
        found = Checkpoint(**json.loads((folder / _FILE).read_text("utf-8")))
        sizes = {file: (folder / file).stat().st_size for file in found.list_bytes}
        sizes |= {str(one["file"]): (folder / one["file"]).stat().st_size for one in found.shards}
    except (OSError, ValueError, TypeError, KeyError):
        return None
    is_same = found.header == json.loads(json.dumps(dict(header)))
    has_shards = all(sizes[one["file"]] == one["bytes"] for one in found.shards)
    has_lists = all(sizes[file] >= size for file, size in found.list_bytes.items())
    return found if is_same and has_shards and has_lists else None


def drop_checkpoint(folder: Path) -> None:
    """Removes what no complete archive has."""
    (folder / _FILE).unlink(missing_ok=True)


def _fixed(values: np.ndarray[Any, np.dtype[Any]], of: pa.DataType) -> pa.Array:
    """Returns rows of equal length as an Arrow array of type ``of``, without a copy."""
    is_tensor = isinstance(of, pa.FixedShapeTensorType)
    storage = of.storage_type if is_tensor else of
    flat = pa.array(values.reshape(-1))
    array = pa.FixedSizeListArray.from_arrays(flat, type=storage)
    return pa.ExtensionArray.from_storage(of, array) if is_tensor else array


def _open_sink(path: Path) -> Any:
    # Arrow's own file: one of Python's would be handed a copy of every buffer.
    return pa.OSFile(str(path), "wb")


def sync(path: Path) -> None:
    """Waits until a file is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class ShardWriter:
    """Writes rows into numbered shards below a folder.

    Args:
        folder: Where ``shards/`` is, or is made.
        layout: What every row has.
        kept: Scans of each shard that an earlier writer finished there.
    """

    def __init__(self, folder: Path, layout: Layout, kept: Sequence[int] = ()) -> None:
        self._folder = folder
        self._layout = layout
        self._schema = layout.schema()
        self._pixels = np.empty((layout.rows_per_batch, *layout.shape), layout.dtype)
        # A byte each: Arrow packs booleans into bits, which no numpy array can view.
        self._masks = np.empty((layout.rows_per_batch * layout.has_mask, *layout.shape[1:]), "u1")
        self._rows: list[Row] = []
        self._sink: Any = None
        self._writer: Any = None
        self._batches = 0
        self.counts: list[int] = list(kept)
        (folder / "shards").mkdir(exist_ok=True)

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def add(self, row: Row) -> bool:
        """Takes one row, its arrays copied; returns whether a shard is complete and on disk now."""
        self._pixels[len(self._rows)] = row.pixels
        if row.mask is not None:
            self._masks[len(self._rows)] = row.mask
        self._rows.append(row)
        if len(self._rows) == len(self._pixels):
            self._flush()
        return self._sink is None and not self._rows

    def close(self) -> None:
        """Writes what is left and closes the last shard."""
        if self._rows:
            self._flush()
        self._end_shard()

    def abort(self) -> None:
        """Lets go of the open shard without writing what is left."""
        self._rows.clear()
        sink, self._sink = self._sink, None
        if sink is not None:
            # On a full disk closing fails too, and the first error is the one to tell.
            with contextlib.suppress(OSError):
                sink.close()

    def _flush(self) -> None:
        if self._sink is None:
            self._sink = _open_sink(self._folder / shard_name(len(self.counts)))
            self._writer = AlignedWriter(self._sink, self._schema)
            self.counts.append(0)
        self._writer.write_batch(self._record_batch())
        self.counts[-1] += len(self._rows)
        self._rows.clear()
        self._batches += 1
        if self._batches % BATCHES_PER_SHARD == 0:
            self._end_shard()

    def _end_shard(self) -> None:
        if self._sink is None:
            return
        self._writer.close()
        self._sink.close()
        self._sink = None
        if self._batches % BATCHES_PER_SHARD == 0:
            # A later writer may go on from here, after a power failure too.
            sync(self._folder / shard_name(len(self.counts) - 1))

    def _record_batch(self) -> pa.RecordBatch:
        rows = self._rows
        columns: dict[str, Any] = {
            "pixels": self._pixels[: len(rows)],
            "valid_box": np.array([row.valid_box for row in rows], np.int32),
            "spacing_mm": np.array([row.spacing_mm for row in rows], np.float32),
            "value_range": np.array([row.value_range for row in rows], np.float32),
            "scan_id": [row.scan_id for row in rows],
            "patient": [row.patient for row in rows],
            "digest": [row.tally.digest for row in rows],
            "sums": np.stack([row.tally.sums for row in rows]),
        }
        if self._layout.has_mask:
            columns["mask"] = self._masks[: len(rows)]
        labels = zip(*(row.labels for row in rows), strict=True)
        names = (LABEL_PREFIX + name for name in self._layout.label_columns)
        columns |= dict(zip(names, labels, strict=True))
        arrays = [
            _fixed(values, field.type)
            if isinstance(values, np.ndarray)
            else pa.array(values, field.type)
            for field, values in ((field, columns[field.name]) for field in self._schema)
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=self._schema)


__all__ = ["FORMAT_VERSION", "Archive", "ArchiveWriter", "is_archive"]


_LISTS = {REJECTED_FILE: ("scan_id", "reason"), PATHS_FILE: ("scan_id", "path")}


class ArchiveWriter:
    """Writes an archive beside its target and moves it there when it is complete.

    A process killed half-way leaves nothing at ``path``. What it left beside it is taken up by the
    next writer of the same, as far as it was told to go on from there with `checkpoint`, and swept
    away by any other. Used as a context manager, an error discards everything written so far; an
    interruption leaves it as a kill does.

    Args:
        path: Where the archive will be; must not exist or be an empty folder.
        shape: Channels, rows and columns of the canvas.
        dtype: ``np.uint8`` or ``np.uint16``.
        label_columns: Names of the label columns.
        has_mask: Whether scans carry a field-of-view mask.
        patients_known: False where every scan stands for its own patient.
        synthetic_phantom: True for scans drawn by a program.
        source_hash: Hash of what the archive is made from; without one nothing is taken up.
        settings: What was done to the pixels; kept in ``archive.json``.
        identities: Hashed the names of patients and files; None where there are none to hide.

    Raises:
        ScanlearnError: Something lies at ``path`` already, or the disk cannot be written.

    Example:
        >>> with ArchiveWriter("drawn", shape=(1, 8, 8), dtype=np.uint8) as writer:
        ...     writer.add(np.zeros((1, 8, 8), np.uint8), scan_id="a", patient="p")
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
        # Another release may decode or fit differently: it starts over.
        self._header = self._info | {"release": version("scanlearn")}
        self._archive: Archive | None = None
        left = take_up(self.path, self._is_same) if source_hash else None
        self._partial = left or start_partial(self.path)
        self._reached = read_checkpoint(self._partial, self._header) if left else None
        with disk_errors(self._beside):
            self._open(self._reached)

    def _is_same(self, folder: Path) -> bool:
        return read_checkpoint(folder, self._header) is not None

    def _open(self, reached: Checkpoint | None) -> None:
        """Opens the files, from where an earlier writer had come."""
        kept = reached.list_bytes if reached else {}
        names = [REJECTED_FILE, *([PATHS_FILE] if self.identities else [])]
        self._shards = ShardWriter(self._partial, self._layout, reached.counts if reached else ())
        self._lists = {
            name: ListWriter(
                self._partial / name,
                _LISTS[name],
                owner_only=name == PATHS_FILE,
                keep_bytes=kept.get(name),
            )
            for name in names
        }
        facts = reached.facts if reached else {}
        self.num_scans = sum(self._shards.counts)
        self.num_rejected: int = facts.get("num_rejected", 0)
        self.first_reason: str | None = facts.get("first_reason")
        self._last_listed: str | None = facts.get("last_listed")

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
            release(self._partial, self.path)
        elif kind is not None:
            self.discard()
        elif self._archive is None:
            self.close()

    def add(
        self,
        pixels: Pixels,
        *,
        scan_id: str,
        patient: str,
        valid_box: tuple[int, int, int, int] | None = None,
        spacing_mm: tuple[float, float] | None = None,
        value_range: tuple[float, float] | None = None,
        mask: Bool[np.ndarray, "h w"] | None = None,
        labels: Mapping[str, str | None] | None = None,
        tally: ScanTally | None = None,
    ) -> bool:
        """Adds one scan; scans keep the order in which they are added.

        Args:
            pixels: ``[c h w]``, on the canvas.
            scan_id: Name of the scan.
            patient: Name of the patient.
            valid_box: Top, left, bottom, right; None for the whole canvas.
            spacing_mm: Height and width of a canvas pixel; None where unknown.
            value_range: Stored values that mean 0 and 1; None for the range of the dtype.
            mask: ``[h w]`` field of view; None, where the archive has masks, for the valid box.
            labels: Raw label strings by column; None or a missing column for blank.
            tally: What was counted of exactly this scan; None counts it here.

        Returns:
            Whether everything so far is on disk for good, which is the time for a `checkpoint`.

        Raises:
            ScanlearnError: The disk is full or may not be written to.
        """
        row = make_row(
            self._layout,
            pixels,
            names=(scan_id, patient),
            place=(valid_box, spacing_mm, value_range),
            mask=mask,
            labels=labels or {},
            tally=tally,
        )
        self.num_scans += 1
        with disk_errors(self._beside):
            return self._shards.add(row)

    def list_file(self, path: str) -> str:
        """Writes a file's path down for the owner alone; returns the name its scans go by."""
        assert self.identities is not None, "made without identities"
        name = self.identities.file(path)
        if name != self._last_listed:
            with disk_errors(self._beside):
                self._lists[PATHS_FILE].add(name, path)
        self._last_listed = name
        return name

    def reject(self, scan_id: str, reason: str) -> None:
        """Sets a scan aside: it is listed in ``rejected.csv`` with the reason."""
        with disk_errors(self._beside):
            self._lists[REJECTED_FILE].add(scan_id, reason)
        self.num_rejected += 1
        self.first_reason = self.first_reason or reason

    def checkpoint(self, state: Mapping[str, Any]) -> None:
        """Notes that a later writer may go on from here; `add` says when.

        Args:
            state: What the caller needs to go on: JSON, found in `resumed` then.
        """
        assert self.num_scans == sum(self._shards.counts), "scans are still in memory"
        with disk_errors(self._beside):
            self._reached = Checkpoint(
                header=self._header,
                shards=self._described_shards(),
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
    def resumed(self) -> Mapping[str, Any]:
        """What was last handed to `checkpoint`, by an earlier writer too; empty if nothing was."""
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
                published = publish(self._partial, self.path)
        except BaseException:
            self.discard()
            raise
        if not published:
            self.discard()
            # Two processes may pack the same scans into one cache: the second finds the work done.
            found = Archive(self.path)
            if found.content_hash != self._info["content_hash"]:
                raise ScanlearnError(
                    f"{self.path}: another archive appeared there meanwhile; choose another path"
                )
        self._archive = Archive(self.path)
        return self._archive

    def discard(self) -> None:
        """Removes everything written so far."""
        self._let_go()
        shutil.rmtree(self._partial, ignore_errors=True)

    def _let_go(self) -> None:
        self._shards.abort()
        for file in self._lists.values():
            file.abort()

    def _finish(self, facts: Mapping[str, Any]) -> None:
        self._shards.close()
        for file in self._lists.values():
            file.close()
        shards = self._described_shards()
        names = [shard["file"] for shard in shards]
        self._info |= take_census(self._partial, self._layout, names, self._partial / TABLE_FILE)
        self._info |= {
            "rejected": self.num_rejected,
            "manifest": self._described(TABLE_FILE),
            "shards": shards,
            **facts,
        }
        drop_checkpoint(self._partial)
        text = json.dumps(self._info, indent=1, ensure_ascii=False)
        (self._partial / "archive.json").write_text(text + "\n", "utf-8")

    def _described_shards(self) -> list[dict[str, Any]]:
        counts = enumerate(self._shards.counts)
        return [self._described(shard_name(number)) | {"scans": n} for number, n in counts]

    def _described(self, name: str) -> dict[str, Any]:
        return {"file": name, "bytes": (self._partial / name).stat().st_size}
