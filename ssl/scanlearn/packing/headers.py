"""What the headers of all files say: read once, before anything is decoded."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Generator, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from scanlearn.console import track
from scanlearn.errors import ScanlearnError
from scanlearn.packing.filters import Selection
from scanlearn.packing.manifest import Manifest
from scanlearn.packing.parallel import map_where_worth
from scanlearn.readers.limits import limited
from scanlearn.readers.readers import read_header
from scanlearn.readers.scan import Header, ReadSettings, Undecodable

# Colour files are often gray scans saved as RGB. Some are decoded to see.
_COLOUR_PROBES = 32
_FILES_PER_CHUNK = 256
_CRASHED = "brings down the process that reads its header"
LEFT_OUT = "files left out by"


@dataclass(frozen=True)
class Survey:
    """What the headers of all files say.

    Args:
        num_frames: Scans that each file may give, in their order; 1 where it cannot be read.
        is_deep: Whether any holds more than 8 bits.
        colour: A sample of the files that store colour, in their order.
        has_patients: Whether every file that can be read names its patient.
        has_series: Whether any names its series.
        left_out: Note in words and number of files, of those that a filter left out.
    """

    num_frames: array[int]
    is_deep: bool
    colour: tuple[Path, ...]
    has_patients: bool
    has_series: bool
    left_out: Mapping[str, int] = field(default_factory=dict)


def read_headers(
    paths: Iterable[Path], num_files: int, settings: ReadSettings, *, workers: int
) -> Generator[Header | str, None, None]:
    """Yields what each file says of itself, or the reason why it cannot be read, in order.

    Args:
        paths: The files.
        num_files: How many there are.
        settings: What of a file is read.
        workers: Processes, which come in where they save time.
    """
    crashed: Header | str = _CRASHED
    yield from map_where_worth(
        partial(_header, settings),
        paths,
        num_files,
        workers=workers,
        crashed=crashed,
        chunk=_FILES_PER_CHUNK,
    )


def _header(settings: ReadSettings, path: Path) -> Header | str:
    try:
        with limited():
            return read_header(path, settings)
    except Undecodable as error:
        return str(error)


def survey(
    manifest: Manifest,
    settings: ReadSettings,
    *,
    selection: Selection | None = None,
    workers: int = 1,
) -> tuple[Manifest, Survey]:
    """Returns the files that a filter leaves, and what their headers say.

    What cannot be read stays, to be set aside with its reason when it is decoded. Five bytes a
    file are held in memory.

    Args:
        manifest: The files.
        settings: What of a file is read.
        selection: The filter; None for every file.
        workers: Processes.

    Raises:
        ScanlearnError: The filter leaves no file.
    """
    selection = selection or Selection(columns=manifest.label_columns)
    settings = replace(settings, tags=selection.tags)
    num_frames, colour = array("I"), array("I")
    left_out: Counter[str] = Counter()
    is_deep, has_patients, has_series = False, True, False
    paths = (manifest.file(path) for path, _, _ in manifest.rows())
    with (
        track(len(manifest), "reading headers") as progress,
        closing(read_headers(paths, len(manifest), settings, workers=workers)) as headers,
    ):
        for (_, _, labels), header in zip(manifest.rows(), headers, strict=True):
            progress.advance()
            tags = None if isinstance(header, str) else header.tags
            reason = selection.left_out_by(labels, tags)
            if reason is not None:
                left_out[f"{LEFT_OUT} {reason}"] += 1
                num_frames.append(0)
                continue
            if isinstance(header, str):
                num_frames.append(1)
                continue
            if header.is_colour:
                colour.append(len(num_frames))
            num_frames.append(header.num_frames)
            is_deep = is_deep or header.is_deep
            has_patients = has_patients and header.has_patient
            has_series = has_series or header.has_series
    probes = colour[:: max(1, len(colour) // _COLOUR_PROBES)]
    coloured = tuple(_path(manifest, row) for row in probes)
    kept, frames = _without_left_out(manifest, num_frames, left_out)
    return kept, Survey(frames, is_deep, coloured, has_patients, has_series, dict(left_out))


def _path(manifest: Manifest, row: int) -> Path:
    return manifest.root / str(manifest.table.column("path")[row].as_py())


def _without_left_out(
    manifest: Manifest, num_frames: array[int], left_out: Mapping[str, int]
) -> tuple[Manifest, array[int]]:
    if not left_out:
        return manifest, num_frames
    is_kept = np.frombuffer(num_frames, np.uint32) > 0
    if not is_kept.any():
        reasons = ", ".join(f"{n:,} {note}" for note, n in left_out.items())
        raise ScanlearnError(
            f"{manifest.root}: the filter leaves none of {len(manifest):,} files ({reasons}); see"
            " what there is with scanlearn pack SOURCE --dry-run"
        )
    kept = replace(manifest, table=manifest.table.filter(pa.array(is_kept)))
    return kept, array("I", np.frombuffer(num_frames, np.uint32)[is_kept].tolist())
