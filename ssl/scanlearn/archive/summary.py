"""What an archive holds, on one page that names nobody: ``summary.html``, and a contact sheet."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float32, Int64, UInt64
from markupsafe import Markup
from pydantic import Field

from scanlearn import svg
from scanlearn.archive.count import Count
from scanlearn.archive.layout import INFO_FILE, LABEL_PREFIX, REJECTED_FILE, scans_per_batch
from scanlearn.archive.lists import read_list
from scanlearn.archive.reader import Archive, ScanArrays
from scanlearn.archive.sheets import contact_sheet, sampled_rows
from scanlearn.archive.table import arrow_column
from scanlearn.config.calls import checked
from scanlearn.console import doing
from scanlearn.files import remove_torn, write_atomically
from scanlearn.locks import held, inside
from scanlearn.pages import page_template, png_address
from scanlearn.palette import hue

PAGE_FILE, SHEET_FILE = "summary.html", "contact_sheet.png"
DEFAULT_SCANS = 1024
BINS = 64
# Pixels on a grid of at least this side stand for a scan: a thousand of each tell the intensities
# of an archive.
_GRID = 32
# Values of a column stand on the page only where they are classes: few in all, and each of several
# patients. Names and numbers, which a table may hold under any heading, are one patient's.
_MOST_CLASSES, _LEAST_PATIENTS = 20, 5
_HASHED_COLUMN = "series"
_MOST_BARS, _LONGEST_NAME = 12, 120
# Settings that say where things were found, not what was done to pixels.
_SETTINGS_LEFT_OUT = ("path_column", "patient_column", "issuer", "follow_links", "open_containers")
_PATIENT_GROUPS = ((1, 1), (2, 2), (3, 5), (6, 10), (11, 100))

# Name, number and share.
Bar = tuple[str, int, float]


@checked
def summary(
    archive: Path | str | Archive,
    *,
    scans: Annotated[
        int,
        Field(
            ge=0,
            description="Scans, spread evenly over the archive, whose pixels the histogram counts;"
            " 0 for all.",
        ),
    ] = DEFAULT_SCANS,
) -> Path:
    """Write an archive's contact sheet and one-page summary.

    They are ``contact_sheet.png`` and ``summary.html`` in the archive; returns the page.

    The page loads nothing and holds no path, no patient, no scan's name and no date: the same
    archive gives the same bytes. Pixels are shown as they are packed, with what is burned in.

    Raises:
        ScanlearnError: There is no archive, or it may not be written to.

    Example:
        >>> summary("packed/chest")                                # doctest: +SKIP
    """
    if not isinstance(archive, Archive):
        archive = Archive(Path(archive).expanduser())
    # A page of the archive as it was would show whoever is withdrawn meanwhile.
    with held(inside(archive.path), archive.path, wait=True):
        remove_torn(archive.path)
        return _write(Archive(archive.path), scans)


def wants_summary(archive: Archive) -> bool:
    """Returns whether an archive has a page, or is to have one."""
    return bool(archive.info.get("summary")) or (archive.path / PAGE_FILE).is_file()


def refresh_summary(archive: Archive, *, is_locked: bool = False) -> None:
    """Makes the page of an archive that wants one and has none, or an older one.

    A kill between the archive and its page left none for good, or that of the archive before.
    """
    files = [archive.path / name for name in (INFO_FILE, SHEET_FILE, PAGE_FILE)]
    times = [file.stat().st_mtime_ns if file.is_file() else 0 for file in files]
    if not wants_summary(archive) or min(times[1:]) >= times[0]:
        return
    if is_locked:
        _write(archive, DEFAULT_SCANS)
    else:
        summary(archive)


def _write(archive: Archive, scans: int) -> Path:
    with doing("drawing the contact sheet and the summary page"):
        sheet = contact_sheet(archive)
        page = _page(archive, overview(archive, scans), sheet)
    write_atomically(archive.path / SHEET_FILE, sheet)
    write_atomically(archive.path / PAGE_FILE, page)
    return archive.path / PAGE_FILE


def _page(archive: Archive, scans: Overview, sheet: bytes) -> str:
    info = archive.info
    settings = dict(info.get("pixels", {})) | info["settings"]
    return page_template("scanlearn.archive", "summary.html.j2").render(
        info=info,
        count=Count.of_archive(archive),
        num_bytes=sum(shard["bytes"] for shard in info["shards"]),
        patients=_patients(archive),
        labels=[_label(archive, name) for name in archive.label_columns],
        rejected=_rejected(archive.path),
        notes=list(info.get("notes", {}).items()),
        settings=[
            (name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
            for name, value in settings.items()
            if name not in _SETTINGS_LEFT_OUT and value not in (None, {})
        ],
        sheet=png_address(sheet),
        overview=scans,
        sizes=_sizes(scans),
        quantiles=_quantiles(scans),
        histogram=_drawn_histogram(scans),
    )


@dataclass(frozen=True)
class Duplicates:
    """Scans that were packed to the same pixels, box, range and spacing."""

    groups: int
    scans: int
    shared: int | None  # Groups of more than one patient; None where patients are unknown.


@dataclass(frozen=True)
class Overview:
    """Sizes, intensities and duplicates among an archive's ``n`` scans.

    Args:
        sizes: ``[n 2]`` rows and columns of valid boxes, canvas pixels.
        padded: ``[n]`` share of the canvas outside them.
        spacing_mm: ``[n 2]`` of a canvas pixel; NaN where unknown.
        value_range: ``[n 2]`` stored values that mean 0 and 1.
        histogram: ``[c 64]`` pixels by unit value, 0 to 1, inside valid boxes.
        duplicates: Equal scans; None in an archive of an earlier release, which holds no digests.
    """

    sizes: Int64[np.ndarray, "n 2"]
    padded: Float32[np.ndarray, " n"]
    spacing_mm: Float32[np.ndarray, "n 2"]
    value_range: Float32[np.ndarray, "n 2"]
    histogram: Int64[np.ndarray, "c bins"]
    num_counted: int
    duplicates: Duplicates | None


def overview(archive: Archive, scans: int = 0) -> Overview:
    """Returns the overview of an archive's scans.

    Args:
        scans: How many the histogram is of, spread evenly; 0 for all. Only their pixels are read.
    """
    facts = archive.facts
    box = facts["valid_box"]
    sizes = box[:, 2:] - box[:, :2]
    rows = sampled_rows(len(archive), scans or len(archive))
    return Overview(
        sizes=sizes,
        padded=(1 - sizes.prod(axis=1) / np.prod(archive.shape[1:])).astype(np.float32),
        spacing_mm=facts["spacing_mm"],
        value_range=facts["value_range"],
        histogram=_histogram(archive, rows),
        num_counted=len(rows),
        duplicates=_duplicates(archive),
    )


def _histogram(archive: Archive, rows: Int64[np.ndarray, " k"]) -> Int64[np.ndarray, "c bins"]:
    channels, height, width = archive.shape
    step = max(1, height // _GRID), max(1, width // _GRID)
    at_once = scans_per_batch(archive.shape, archive.dtype)
    histogram = np.zeros((channels, BINS), np.int64)
    for start in range(0, len(rows), at_once):
        histogram += _counted(archive.arrays(rows[start : start + at_once]), step)
    return histogram


def _counted(batch: ScanArrays, step: tuple[int, int]) -> Int64[np.ndarray, "c bins"]:
    """Returns the unit values on a grid of pixels inside valid boxes, counted in 64 bins."""
    grid: np.ndarray[Any, Any] = batch.pixels[:, :, :: step[0], :: step[1]]
    top, left, bottom, right = (edge[:, None, None] for edge in batch.valid_box.T)
    down = np.arange(grid.shape[2])[None, :, None] * step[0]
    across = np.arange(grid.shape[3])[None, None, :] * step[1]
    inside = (down >= top) & (down < bottom) & (across >= left) & (across < right)
    low, high = batch.value_range.T[:, :, None, None, None]
    bins = np.clip((grid - low) * (BINS / (high - low)), 0, BINS - 1).astype(np.uint8)
    return np.stack([np.bincount(bins[:, c][inside], minlength=BINS) for c in range(grid.shape[1])])


def _duplicates(archive: Archive) -> Duplicates | None:
    digests = _digests(archive)
    if digests is None:
        return None
    _, group, counts = np.unique(digests, return_inverse=True, return_counts=True)
    rows = np.flatnonzero(counts[group] > 1)
    shared = None
    if archive.patients_known:
        patients = arrow_column(archive.table, "patient")
        codes = patients.take(pa.array(rows)).combine_chunks().dictionary_encode().indices
        pairs = np.unique(np.stack([group[rows], codes.to_numpy()]), axis=1)
        shared = int((np.unique(pairs[0], return_counts=True)[1] > 1).sum())
    return Duplicates(int((counts > 1).sum()), len(rows), shared)


def _digests(archive: Archive) -> UInt64[np.ndarray, " n"] | None:
    """Returns the first eight bytes of each scan's digest, which tell a million scans apart."""
    parts = []
    for shard in archive.shard_files:
        with pa.memory_map(str(shard)) as source:
            file = pa.ipc.open_file(source)
            if "digest" not in file.schema.names:
                return None
            for number in range(file.num_record_batches):
                digests = file.get_batch(number).column("digest")
                parts.append(np.frombuffer(b"".join(digests.to_pylist()), "<u8").reshape(-1, 4))
    return np.concatenate(parts)[:, 0]


def _bars(counts: Any, total: int, most: int = _MOST_BARS) -> list[Bar]:
    """Returns name, number and share of the commonest, and of all others in one."""
    ordered = sorted(counts, key=lambda item: (-item[1], str(item[0])))
    most += len(ordered) == most + 1  # The last one takes no more room than the words "1 other".
    bars = [(str(name)[:_LONGEST_NAME], int(number)) for name, number in ordered[:most]]
    others = sum(number for _, number in ordered[most:])
    if others:
        bars.append((f"{len(ordered) - most:,} others", int(others)))
    return [(name, number, number / max(1, total)) for name, number in bars]


def _sizes(scans: Overview) -> list[Bar]:
    sizes, counts = np.unique(scans.sizes, axis=0, return_counts=True)
    names = [f"{height} × {width}" for height, width in sizes.tolist()]
    return _bars(zip(names, counts.tolist(), strict=True), len(scans.sizes))


def _patients(archive: Archive) -> list[Bar]:
    """Returns how many patients have one scan, two, and so on; empty where none is known."""
    if not archive.patients_known:
        return []
    patients = arrow_column(archive.table, "patient")
    numbers = patients.value_counts().field("counts").to_numpy()
    groups: list[Bar] = []
    for low, high in (*_PATIENT_GROUPS, (_PATIENT_GROUPS[-1][1] + 1, int(numbers.max()))):
        number = int(((numbers >= low) & (numbers <= high)).sum())
        if number:
            words = f"{low}" if low == high else f"{low:,} to {high:,}"
            groups.append((words, number, number / len(numbers)))
    return groups


def _label(archive: Archive, name: str) -> tuple[str, int, int, list[Bar]]:
    """Returns a column, its filled rows and distinct values, and its classes if it has such."""
    column = LABEL_PREFIX + name
    table: Any = pq.ParquetFile(archive.table).read(columns=[column, "patient"])
    grouped = table.group_by(column)
    counted = grouped.aggregate([("patient", "count"), ("patient", "count_distinct")])
    rows = [row for row in counted.to_pylist() if row[column]]
    num_filled = sum(row["patient_count"] for row in rows)
    bars: list[Bar] = []
    if len(rows) <= _MOST_CLASSES and name != _HASHED_COLUMN:
        named = [row for row in rows if row["patient_count_distinct"] >= _LEAST_PATIENTS]
        bars = _bars([(row[column], row["patient_count"]) for row in named], num_filled)
    num_rare = num_filled - sum(number for _, number, _ in bars)
    if bars and num_rare:
        bars.append((f"of fewer than {_LEAST_PATIENTS} patients", num_rare, num_rare / num_filled))
    return name, num_filled, len(rows), bars


def _rejected(folder: Path) -> list[Bar]:
    """Returns reasons in general words: what stands in brackets may be a piece of the file."""
    counts: Counter[str] = Counter()
    for _, reason in read_list(folder / REJECTED_FILE):
        words, bracket, _ = reason.partition(" (")
        counts[words + (" …" if bracket else "")] += 1
    return _bars(counts.items(), sum(counts.values()))


def _quantiles(scans: Overview) -> list[tuple[str, list[str]]]:
    """Returns least, median and greatest of what is counted in numbers."""
    rows: list[tuple[str, Any, str]] = [
        ("Height of a scan, canvas pixels", scans.sizes[:, 0], "{:,.0f}"),
        ("Width of a scan, canvas pixels", scans.sizes[:, 1], "{:,.0f}"),
        ("Padded share of the canvas, percent", 100 * scans.padded, "{:.1f}"),
        ("Stored value that means 0", scans.value_range[:, 0], "{:,.5g}"),
        ("Stored value that means 1", scans.value_range[:, 1], "{:,.5g}"),
    ]
    known = scans.spacing_mm[np.isfinite(scans.spacing_mm).all(axis=1)]
    if len(known):
        rows.append(("Height of a canvas pixel, mm", known[:, 0], "{:.3g}"))
        rows.append(("Width of a canvas pixel, mm", known[:, 1], "{:.3g}"))
    return [
        (name, [form.format(value) for value in np.quantile(values, (0, 0.5, 1))])
        for name, values, form in rows
    ]


def _drawn_histogram(scans: Overview) -> Markup:
    """Returns a drawing of each channel's histogram, 0 to 1 across."""
    shares = scans.histogram / np.maximum(1, scans.histogram.sum(axis=1, keepdims=True))
    # Black borders and burnt-out film pile up at the ends and would flatten all between them.
    top = max(float(shares[:, 1:-1].max(initial=0.0)) * 1.15, 1e-9)
    across, up = svg.Axis(0, BINS, 0, 480), svg.Axis(0, top, 120, 0)
    body = [svg.box(0, 0, 480, 120, css="band")]
    # Red, green, blue; one channel alone is gray.
    colours = ["var(--ref)"] if len(shares) == 1 else [hue(3), hue(1), hue(0)]
    for share, colour in zip(shares, cycle(colours), strict=False):
        edges = zip(np.repeat(np.arange(BINS + 1), 2)[1:-1], np.repeat(share, 2), strict=True)
        outline = [(across.at(edge), up.at(height)) for edge, height in edges]
        points = [(0.0, 120.0), *outline, (480.0, 120.0)]
        body.append(svg.area(points, colour=colour, opacity=0.75 if len(shares) == 1 else 0.4))
    body += svg.ticks_below(svg.Axis(0, 1, 0, 480), 136)
    body.append(
        svg.text(240, 150, "unit value inside valid boxes", css="muted small", anchor="middle")
    )
    return svg.figure(480, 154, "Histogram of unit values", body)
