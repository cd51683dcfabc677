"""The header scan: what the headers of all files say, read once before anything is decoded."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from scanlearn.archive.identity import names_nobody, plain_number
from scanlearn.console import track
from scanlearn.errors import ScanlearnError
from scanlearn.packing.filters import Selection
from scanlearn.packing.parallel import map_where_worth
from scanlearn.readers.limits import limited
from scanlearn.readers.readers import read_header
from scanlearn.readers.scan import Header, ReadSettings, Undecodable
from scanlearn.tables.manifest import Manifest, ManifestRow

# Colour files are often gray scans saved as RGB. Some are decoded to see.
_COLOUR_PROBES = 32
_FILES_PER_CHUNK = 256
_CRASHED: Header | str = "crashes the process that reads its header"
LEFT_OUT = "files left out by"
# Files whose sizes choose a canvas, and how often it holds the side asked for: one strip among
# many scans must not widen it for all.
_SIZED_FILES = 512
_LONGEST = 4


@dataclass(frozen=True)
class HeaderScan:
    """What the headers of all files say.

    Args:
        num_frames: Scans that each file may give, in their order; 1 where it cannot be read.
        colour: A sample of the files that store colour, in their order.
        has_patients: Whether every file that can be read names its patient.
        has_issuers: Whether every file that can be read says who gave that number.
        num_contradicting: Files that name another patient than the table.
        contradiction: The first of them, for the owner's eyes.
        left_out: Note in words and number of files, of those that a filter left out.
        num_colour: How many files store colour.
    """

    num_frames: array[int]
    is_deep: bool
    colour: tuple[Path, ...]
    has_patients: bool
    has_series: bool
    left_out: Mapping[str, int] = field(default_factory=dict)
    num_colour: int = 0
    has_issuers: bool = False
    num_contradicting: int = 0
    contradiction: str = ""


def read_headers(
    manifest: Manifest, settings: ReadSettings, *, workers: int
) -> Generator[tuple[ManifestRow, Header | str], None, None]:
    """Yields each row with what its file says of itself, or the reason why it cannot be read."""
    headers = map_where_worth(
        partial(_header, settings),
        (manifest.file(row.path) for row in manifest.rows()),
        len(manifest),
        workers=workers,
        crashed=_CRASHED,
        chunk=_FILES_PER_CHUNK,
    )
    with track(len(manifest), "reading headers") as progress, closing(headers):
        for row, header in zip(manifest.rows(), headers, strict=True):
            yield row, manifest.refused.get(row.path or "", header)
            progress.advance()


def _header(settings: ReadSettings, path: Path) -> Header | str:
    try:
        with limited():
            return read_header(path, settings)
    except Undecodable as error:
        return str(error)


def listed_files(
    manifest: Manifest, settings: ReadSettings, selection: Selection, *, workers: int
) -> Generator[tuple[ManifestRow, Header], None, None]:
    """Yields the files that packing would take, each with its header and whose it is.

    That are those that can be read and that the filter leaves; where a table names patients, those
    of which it names one. A patient that the file itself names stands with its issuer.
    """
    settings = replace(settings, tags=(*settings.tags, *selection.tags))
    with closing(read_headers(manifest, settings, workers=workers)) as headers:
        for row, header in headers:
            if isinstance(header, str) or selection.left_out_by(row.labels, header.tags):
                continue
            patient = row.patient if manifest.patients_known else header.patient
            is_named = patient is not None and not names_nobody(patient)
            if is_named and not manifest.patients_known:
                patient = f"{header.issuer or ''}/{patient}"
            if is_named or not manifest.patients_known:
                yield row._replace(patient=patient if is_named else None), header


def scan_headers(
    manifest: Manifest,
    settings: ReadSettings,
    *,
    selection: Selection | None = None,
    workers: int = 1,
) -> tuple[Manifest, HeaderScan]:
    """Returns the files that a filter leaves, all without one, and what their headers say.

    What cannot be read stays, to be set aside with its reason when it is decoded. Five bytes a
    file are held in memory.

    Raises:
        ScanlearnError: The filter leaves no file.
    """
    selection = selection or Selection(columns=manifest.label_columns)
    settings = replace(settings, tags=selection.tags)
    num_frames, colour = array("I"), array("I")
    left_out: Counter[str] = Counter()
    is_deep, has_patients, has_issuers, has_series = False, True, True, False
    num_contradicting, contradiction = 0, ""
    with closing(read_headers(manifest, settings, workers=workers)) as headers:
        for row, header in headers:
            tags = None if isinstance(header, str) else header.tags
            reason = selection.left_out_by(row.labels, tags)
            if reason is not None:
                left_out[f"{LEFT_OUT} {reason}"] += 1
                num_frames.append(0)
            elif isinstance(header, str):
                num_frames.append(1)
            else:
                if header.is_colour:
                    colour.append(len(num_frames))
                num_frames.append(header.num_frames)
                is_deep = is_deep or header.is_deep
                in_file = header.patient
                if in_file is None or names_nobody(in_file):
                    in_file, has_patients = None, False
                has_issuers = has_issuers and in_file is not None and header.issuer is not None
                in_table = row.patient if manifest.patients_known else None
                if in_file and in_table and plain_number(in_file) != plain_number(in_table):
                    contradiction = contradiction or (
                        f"{row.path}: {in_file!r} in the file, {in_table!r} in the table"
                    )
                    num_contradicting += 1
                has_series = has_series or header.has_series
    paths = manifest.table.column("path")
    probes = colour[:: max(1, len(colour) // _COLOUR_PROBES)]
    coloured = tuple(manifest.root / paths[row].as_py() for row in probes)
    if left_out:
        is_kept = np.frombuffer(num_frames, np.uint32) > 0
        if not is_kept.any():
            reasons = ", ".join(f"{n:,} {note}" for note, n in left_out.items())
            raise ScanlearnError(
                f"{manifest.root}: the filter leaves none of {len(manifest):,} files ({reasons});"
                " list what the source holds with scanlearn pack SOURCE --dry-run"
            )
        manifest = replace(manifest, table=manifest.table.filter(pa.array(is_kept)))
        num_frames = array("I", np.frombuffer(num_frames, np.uint32)[is_kept].tolist())
    scan = HeaderScan(
        num_frames,
        is_deep,
        coloured,
        has_patients,
        has_series,
        left_out=dict(left_out),
        num_colour=len(colour),
        has_issuers=has_issuers and not manifest.patients_known,
        num_contradicting=num_contradicting,
        contradiction=contradiction,
    )
    return manifest, scan


def canvas_by_shorter_side(
    manifest: Manifest, settings: ReadSettings, selection: Selection, side: int, *, workers: int
) -> tuple[int, int]:
    """Returns the canvas that holds scans shrunk until their shorter side is ``side`` pixels.

    From the headers of at most 512 files, evenly spaced; a smaller scan keeps its size, and no
    side of the canvas is longer than four times ``side``.
    """
    chosen = np.unique(np.linspace(0, len(manifest) - 1, _SIZED_FILES).astype(np.int64))
    sample = replace(manifest, table=manifest.table.take(chosen))
    settings = replace(settings, tags=selection.tags)
    fitted = np.zeros(2)
    with closing(read_headers(sample, settings, workers=workers)) as headers:
        for row, header in headers:
            if isinstance(header, str) or selection.left_out_by(row.labels, header.tags):
                continue
            size = np.array(header.size)
            fitted = np.maximum(fitted, size * min(1.0, side / max(size.min(), 1)))
    height, width = np.minimum(np.ceil(fitted - 1e-6), _LONGEST * side).astype(int).tolist()
    # Square scans, and files of which no header can be read, have the canvas that was asked for.
    return (side, side) if height == width <= side else (height, width)
