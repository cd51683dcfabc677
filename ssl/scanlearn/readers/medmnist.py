"""MedMNIST's npz files: rows of arrays to scans, read in their order without holding an array."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import pyarrow as pa

from scanlearn.errors import ScanlearnError
from scanlearn.readers.containers import member_of, open_zip
from scanlearn.readers.scan import (
    MAX_FRAMES,
    MAX_PIXELS,
    Frame,
    Header,
    Reader,
    ReadSettings,
    Scan,
    Undecodable,
)
from scanlearn.readers.values import foreground_from, percentile_range

SPLITS = ("train", "val", "test")
# More rows, or bytes of labels, than any such set has.
MAX_ROWS = 2**21
MAX_ROW_BYTES = 2**28
_MAX_LABEL_BYTES = 2**28
# As many as ChestMNIST's 14 of 2 million images; each becomes a text of about 10 bytes.
_MAX_LABELS, _MAX_LABEL_COLUMNS = 2**25, 1000
_CHUNK_BYTES = 2**20
_DIGITS = 7


class _Array(NamedTuple):
    """What the header of an array says: rows ``[h w]``, ``[h w 3]`` or, of volumes, ``[d h w]``."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def row_bytes(self) -> int:
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    @property
    def is_colour(self) -> bool:
        return len(self.shape) == 4 and self.shape[3] == 3

    @property
    def num_frames(self) -> int:
        return self.shape[1] if len(self.shape) == 4 and not self.is_colour else 1

    @property
    def size(self) -> tuple[int, int]:
        height, width = self.shape[1:3] if self.is_colour else self.shape[-2:]
        return height, width


class _Rows:
    """The rows of one array, cheap in their order: an earlier one starts over."""

    def __init__(self, path: Path, split: str) -> None:
        self._file = open_zip(path)
        self._name = f"{split}_images.npy"
        self._stream, self.array = _open_array(self._file, self._name)
        _check_images(self.array)
        self._next = 0
        self._ends = self.array.shape[0]
        self._last: tuple[int, np.ndarray[Any, Any]] | None = None

    def row(self, number: int) -> np.ndarray[Any, Any]:
        """Returns one row.

        Raises:
            Undecodable: There is no such row, or the file is damaged before its end.
        """
        if self._last is not None and self._last[0] == number:
            return self._last[1]
        if not 0 <= number < self._ends:
            raise Undecodable("is cut short or damaged in its archive")
        if number < self._next:
            self._stream.close()
            self._stream, _ = _open_array(self._file, self._name)
            self._next = 0
        size = self.array.row_bytes
        try:
            skipped = (number - self._next) * size
            while skipped > 0:
                skipped -= len(_exactly(self._stream, min(skipped, _CHUNK_BYTES)))
            values = _exactly(self._stream, size)
        except Undecodable:
            # Out of time somewhere on the way.
            self._next = self.array.shape[0]
            raise
        except Exception as error:
            # Whatever zlib and zipfile raise; later rows would only find it again, one by one.
            self._ends = number
            raise Undecodable("is cut short or damaged in its archive") from error
        self._next = number + 1
        row = np.frombuffer(values, self.array.dtype).reshape(self.array.shape[1:])
        self._last = (number, row)
        return row


def list_rows(path: Path) -> pa.Table:
    """Returns the rows of an npz file: ``path``, then the label columns, ``split`` the last.

    Images are ``train_images``, ``val_images`` and ``test_images``, ``[n h w]``, ``[n h w 3]`` or,
    for volumes, ``[n d h w]`` of uint8 or uint16; labels ``train_labels`` and so on, ``[n]`` or
    ``[n k]``. One column of labels is called ``label``, several ``label_0`` and so on.

    Raises:
        ScanlearnError: It is no such file, or damaged.
    """
    try:
        with open_zip(path) as file:
            present = [split for split in SPLITS if f"{split}_images.npy" in file.NameToInfo]
            tables = [_list_split(file, split) for split in present]
            if not tables:
                names = ", ".join(sorted(file.namelist())[:5])
                raise Undecodable(f"holds no train_images, val_images or test_images ({names})")
        num_rows = sum(table.num_rows for table in tables)
        if not 0 < num_rows <= MAX_ROWS:
            raise Undecodable(f"claims {num_rows:,} images (allowed: 1 to {MAX_ROWS:,})")
        if len({tuple(table.column_names) for table in tables}) > 1:
            raise Undecodable("has different label columns in its splits")
    except Undecodable as error:
        raise ScanlearnError(f"{path}: {error}; give an npz file like MedMNIST's") from error
    except Exception as error:
        reason = f"is damaged or not an npz file ({type(error).__name__})"
        raise ScanlearnError(f"{path}: {reason}; download it again") from error
    return pa.concat_tables(tables)


def _header(path: Path, _settings: ReadSettings, _start: bytes) -> Header:
    file, split, _ = _place(path)
    array = _rows(file, split).array
    bits = 8 * array.dtype.itemsize
    return Header(array.is_colour, bits > 8, array.num_frames, size=array.size, bits=bits)


def _frames(path: Path, frames: range, settings: ReadSettings) -> Iterator[Frame]:
    """Yields the scan of a row, or some slices of its volume along its first axis.

    Slices of a volume with a smaller share of foreground than ``empty_below`` are left out, which
    is what lies more than a twentieth of its range, with 16 bits of that from its .5 to its 99.5
    percentile, above its lowest value.
    """
    file, split, number = _place(path)
    rows = _rows(file, split)
    values = rows.row(number)
    if rows.array.is_colour:
        yield Frame(1, Scan(np.ascontiguousarray(values.transpose(2, 0, 1))))
    elif values.ndim == 2:
        yield Frame(1, Scan(values[None]))
    else:
        low, high = float(values.min()), float(values.max())
        if values.dtype.itemsize > 1:
            # One voxel of 65535 would leave every slice empty.
            low, high = percentile_range(values)
        is_foreground = values > foreground_from(low, high)
        for index in frames:
            if is_foreground[index].mean() >= settings.empty_below:
                yield Frame(index + 1, Scan(values[index][None]))


def _place(path: Path) -> tuple[Path, str, int]:
    """Returns file, split and row of a path such as ``pathmnist.npz/train/0000012``."""
    member = member_of(path)
    split, _, number = member.name.partition("/") if member else ("", "", "")
    if member is None or split not in SPLITS or not number.isdecimal():
        raise Undecodable("is not a row of an npz file, such as train/0000012")
    return member.container, split, int(number)


def _rows(path: Path, split: str) -> _Rows:
    try:
        status = path.stat()
        return _opened(path, split, status.st_size, status.st_mtime_ns)
    except Undecodable:
        raise
    except Exception as error:
        raise Undecodable(f"lies in a damaged npz file ({type(error).__name__})") from error


@lru_cache(maxsize=len(SPLITS))
def _opened(path: Path, split: str, size: int, time_ns: int) -> _Rows:
    del size, time_ns  # A changed file is another key.
    return _Rows(path, split)


def _open_array(file: zipfile.ZipFile, name: str) -> tuple[IO[bytes], _Array]:
    """Returns an array's values as a stream, and its header."""
    info = file.getinfo(name)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or info.flag_bits & 1:
        raise Undecodable(f"has {name} neither deflated nor stored, or encrypted")
    stream = file.open(info)
    try:
        shape, is_fortran, dtype = read_array_header(stream, info.file_size)
    except Undecodable as error:
        raise Undecodable(f"has {name}, which {error}") from error
    if is_fortran and len(shape) > 1:
        raise Undecodable(f"has {name} in Fortran order; save it in C order")
    return stream, _Array(shape, dtype)


def read_array_header(
    stream: IO[bytes], num_bytes: int
) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Returns shape, whether it is in Fortran order, and dtype of an array stored in some bytes.

    Raises:
        Undecodable: It holds objects, or not as many values as it claims.
    """
    version = np.lib.format.read_magic(stream)
    # The header of a later version may claim gigabytes, and would be read before it is judged.
    if version != (1, 0):
        raise Undecodable(f"is in version {version} of the npy format (allowed: 1.0)")
    shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    if dtype.hasobject:
        raise Undecodable("holds pickled objects, and reading these may run a program")
    if math.prod(shape) * dtype.itemsize != num_bytes - stream.tell():
        raise Undecodable(f"claims {shape} of {dtype}, which is not what it holds")
    return tuple(shape), is_fortran, dtype


def _check_images(array: _Array) -> None:
    shape, dtype = array.shape, array.dtype
    if len(shape) not in (3, 4) or min(shape[1:]) < 1:
        raise Undecodable(f"has images of shape {shape}, neither [n h w], [n h w 3] nor [n d h w]")
    if dtype not in (np.dtype(np.uint8), np.dtype(np.uint16)):
        raise Undecodable(f"has images of {dtype}; save them as uint8 or uint16")
    if math.prod(array.size) > MAX_PIXELS or array.num_frames > MAX_FRAMES:
        raise Undecodable(f"claims images of shape {shape[1:]}, more than any scan has")
    if array.row_bytes > MAX_ROW_BYTES:
        raise Undecodable(f"claims {array.row_bytes:,} bytes an image, more than {MAX_ROW_BYTES:,}")


def _list_split(file: zipfile.ZipFile, split: str) -> pa.Table:
    stream, images = _open_array(file, f"{split}_images.npy")
    stream.close()
    _check_images(images)
    num_rows = images.shape[0]
    if num_rows > MAX_ROWS:
        raise Undecodable(f"claims {num_rows:,} images, more than {MAX_ROWS:,}")
    columns = {"path": pa.array(f"{split}/{row:0{_DIGITS}d}" for row in range(num_rows))}
    if f"{split}_labels.npy" in file.NameToInfo:
        labels = _read_labels(file, f"{split}_labels.npy", num_rows)
        names = ["label"] if labels.shape[1] == 1 else [f"label_{k}" for k in range(len(labels.T))]
        columns |= {name: _texts(values) for name, values in zip(names, labels.T, strict=True)}
    columns["split"] = pa.array([split] * num_rows, pa.string())
    return pa.table(columns)


def _read_labels(file: zipfile.ZipFile, name: str, num_rows: int) -> np.ndarray[Any, Any]:
    stream, array = _open_array(file, name)
    with stream:
        if array.row_bytes * num_rows > _MAX_LABEL_BYTES or array.dtype.kind not in "biuU":
            raise Undecodable(f"has {array.shape} labels of {array.dtype}; use whole numbers")
        num_labels = math.prod(array.shape)
        if num_labels > _MAX_LABELS or num_labels > _MAX_LABEL_COLUMNS * max(1, num_rows):
            raise Undecodable(f"claims {array.shape} labels in {name}, more than any such set has")
        if array.shape[:1] != (num_rows,) or len(array.shape) not in (1, 2):
            raise Undecodable(f"has {array.shape} labels in {name} for {num_rows:,} images")
        values = np.frombuffer(_exactly(stream, array.row_bytes * num_rows), array.dtype)
    return values.reshape(num_rows, -1)


def _texts(values: np.ndarray[Any, Any]) -> pa.Array:
    if values.dtype.kind in "iu":
        # In Arrow: as objects of Python a label would take fifty bytes.
        return pa.array(np.ascontiguousarray(values)).cast(pa.string())
    return pa.array(values.astype(str).tolist(), pa.string())


def _exactly(stream: IO[bytes], num_bytes: int) -> bytes:
    content = stream.read(num_bytes)
    if len(content) != num_bytes:
        raise EOFError
    return content


READER = Reader(
    kind="row of npz",
    matches=lambda _: False,
    header=_header,
    frames=_frames,
    container=".npz",
    list_rows=list_rows,
)
