"""`list_scans` and `count_scans`: the scans of a source as they would be packed, told by headers.

Nothing is decoded, drawn or packed: a plan is written and reckoned with them.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from scanlearn.archive.layout import is_archive
from scanlearn.archive.reader import Archive
from scanlearn.errors import ScanlearnError
from scanlearn.packing.filters import make_selection
from scanlearn.packing.headers import listed_files
from scanlearn.packing.pack import manifest_of
from scanlearn.packing.parallel import num_cores
from scanlearn.packing.prepare import scan_name
from scanlearn.packing.settings import PackSettings
from scanlearn.packing.sources import PHANTOM_PREFIX, open_archive
from scanlearn.phantom.phantom import PhantomSpec, planted_labels
from scanlearn.readers.dicom_tags import examined_as
from scanlearn.readers.scan import Header
from scanlearn.tables.join import joined_archive
from scanlearn.tables.manifest import Manifest, ManifestRow

_EXAMINED_TAGS = ("Modality", "BodyPartExamined")
# Of which headers are read to count scans.
_COUNTED_FILES = 512


@dataclass(frozen=True)
class ListedScans:
    """The scans of a source; labels are read from it as from an archive.

    Args:
        path: The source.
        scan_ids: ``[n]`` str.
        patients: ``[n]`` str; a file without a patient stands for one, as in an archive.
        columns: ``[n]`` object of each label column: str as the table held it, or None where blank.
        patients_known: Whether every scan's patient is known.
        num_rejected: Files that are not among these: unreadable, or left out by a filter.
        shape: Channels, height and width in pixels; None where nothing is packed yet.
        examined: What DICOM tags say was examined, "CR CHEST" say; "" of scans without tags.
        files: ``[n]`` file of each scan, as an absolute path; None of an archive or a phantom.
    """

    path: Path
    scan_ids: np.ndarray
    patients: np.ndarray
    columns: Mapping[str, np.ndarray]
    patients_known: bool
    num_rejected: int = 0
    shape: tuple[int, int, int] | None = None
    examined: Collection[str] = ()
    files: tuple[Path, ...] | None = None

    @property
    def label_columns(self) -> tuple[str, ...]:
        """Names of the label columns."""
        return tuple(self.columns)

    def labels(self, column: str) -> np.ndarray:
        """Returns ``[n]`` object: str as the table held it, or None where blank."""
        return self.columns[column]

    def __len__(self) -> int:
        return len(self.scan_ids)


def list_scans(source: str | Path, settings: PackSettings) -> ListedScans:
    """Lists scans, patients and labels of a source as it would be packed.

    Raises:
        ScanlearnError: The source cannot be used, or holds no scan that can be read.
    """
    if str(source).startswith(PHANTOM_PREFIX):
        return _of_phantom(str(source))
    path = Path(source).expanduser()
    if is_archive(path):
        return _of_archive(Archive(path))
    if joined_archive(path, settings) is not None:
        return _of_archive(open_archive(source, settings=settings))
    manifest = manifest_of(path, settings)
    rows: list[ManifestRow] = []
    names: list[str] = []
    paths: list[Path] = []
    examined: set[str] = set()
    num_files = 0
    with closing(_files(manifest, settings)) as files:
        for row, header in files:
            num_files += 1
            pages = range(1, header.num_frames + 1)
            names += [scan_name(str(row.path), page if len(pages) > 1 else None) for page in pages]
            rows += [row] * header.num_frames
            paths += [manifest.file(row.path).resolve()] * header.num_frames
            modality, part = ((*header.tags.get(tag, ()), "")[0] for tag in _EXAMINED_TAGS)
            examined.add(examined_as(modality, part))
    if not rows:
        raise ScanlearnError(
            f"{source}: holds no scan that can be read; scanlearn pack {source} --dry-run says why"
        )
    columns = {
        name: np.array([row.labels[name] for row in rows], dtype=object)
        for name in manifest.label_columns
    }
    return ListedScans(
        path,
        np.array(names),
        np.array([row.patient or f"file {row.path}" for row in rows]),
        columns,
        patients_known=all(row.patient is not None for row in rows),
        num_rejected=len(manifest) - num_files,
        examined=examined,
        files=tuple(paths),
    )


def count_scans(
    source: str | Path, settings: PackSettings
) -> tuple[int, tuple[int, int, int] | None]:
    """Returns how many scans a source holds, and their shape as of `ListedScans`.

    Of a folder or table of more than 512 files as many scans are counted for each as evenly spaced
    512 of them hold: reading a million headers would take minutes.

    Raises:
        ScanlearnError: As `list_scans`.
    """
    path = Path(source).expanduser()
    is_listed = str(source).startswith(PHANTOM_PREFIX) or is_archive(path)
    if is_listed or joined_archive(path, settings) is not None:
        scans = list_scans(source, settings)
        return len(scans), scans.shape
    manifest = manifest_of(path, settings)
    chosen = np.unique(np.linspace(0, len(manifest) - 1, _COUNTED_FILES).astype(np.int64))
    sample = replace(manifest, table=manifest.table.take(chosen))
    with closing(_files(sample, settings)) as files:
        counted = sum(header.num_frames for _, header in files)
    if not counted:
        return len(list_scans(source, settings)), None  # A filter may leave few.
    return round(counted * len(manifest) / len(sample)), None


def _files(
    manifest: Manifest, settings: PackSettings
) -> Generator[tuple[ManifestRow, Header], None, None]:
    selection = make_selection(settings.keep, settings.drop, manifest.label_columns)
    reading = settings.reading()
    reading = replace(reading, tags=(*reading.tags, *_EXAMINED_TAGS))
    workers = settings.workers or num_cores()
    return listed_files(manifest, reading, selection, workers=workers)


def _of_phantom(source: str) -> ListedScans:
    spec = PhantomSpec.parse(source.removeprefix(PHANTOM_PREFIX))
    drawn = [planted_labels(spec, index) for index in range(len(spec))]
    columns = {
        task: np.array([str(labels[task]) for labels in drawn], dtype=object) for task in drawn[0]
    }
    ids = np.array([f"scan-{place}" for place in range(len(spec))])
    patients = np.array([f"patient-{place // 2}" for place in range(len(spec))])
    shape = (spec.channels, spec.height, spec.width)
    return ListedScans(Path(source), ids, patients, columns, patients_known=True, shape=shape)


def _of_archive(archive: Archive) -> ListedScans:
    return ListedScans(
        archive.path,
        archive.scan_ids,
        archive.patients,
        {name: archive.labels(name) for name in archive.label_columns},
        archive.patients_known,
        archive.num_rejected,
        archive.shape,
        examined=tuple(archive.examined),
    )
