"""What an archive is on disk: its files, ``archive.json``, and scans as rows of a shard."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float64, Int64
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from scanlearn.config.reading import read_json
from scanlearn.errors import ScanlearnError
from scanlearn.files import write_atomically
from scanlearn.readers.scan import Pixels
from scanlearn.readers.values import Box, value_counts

# 2: shards of any number of scans, with labels, digests and sums; versions before are read.
FORMAT_VERSION = 2
INFO_FILE = "archive.json"
TABLE_FILE = "manifest.parquet"
PATHS_FILE = "paths.csv"
REJECTED_FILE = "rejected.csv"
# Label columns carry a prefix, since a user's table may have one called "patient" or "scan_id".
LABEL_PREFIX = "label:"
MAX_SCANS_PER_BATCH = 256
MAX_BATCH_BYTES = 128 * 2**20
DIGEST_BYTES = 32
# Terms that numpy adds up before it adds sums by pairs.
_BLOCK = 128


class ValueRange(NamedTuple):
    """Stored values that mean 0 and 1."""

    low: float
    high: float


class Spacing(NamedTuple):
    """Height and width of a canvas pixel in millimetres."""

    y: float
    x: float


@dataclass(frozen=True)
class PackedScan:
    """A scan on its canvas.

    Args:
        pixels: ``[c h w]``, stored values.
        valid_box: Top, left, bottom, right in canvas pixels; None for the whole canvas.
        value_range: None for the range of the dtype.
        spacing_mm: None where unknown.
        mask: ``[h w]``, True inside the field of view; None for all of the valid box.
    """

    pixels: Pixels
    valid_box: Box | None = None
    value_range: ValueRange | None = None
    spacing_mm: Spacing | None = None
    mask: Bool[np.ndarray, "h w"] | None = None

    @property
    def box(self) -> Box:
        """The valid box, in numbers."""
        return self.valid_box or (0, 0, *self.pixels.shape[1:])

    @property
    def unit_range(self) -> ValueRange:
        """The value range, in numbers."""
        return self.value_range or ValueRange(0.0, float(np.iinfo(self.pixels.dtype).max))

    @property
    def spacing(self) -> Spacing:
        """The spacing, NaN where unknown."""
        return self.spacing_mm or Spacing(np.nan, np.nan)

    @cached_property
    def sums(self) -> ScanSums:
        """Digest and sums. Made once: they travel with the scan from one process to another."""
        digest = hashlib.sha256(np.ascontiguousarray(self.pixels).data)
        digest.update(struct.pack("<4i4f", *self.box, *self.unit_range, *self.spacing))
        if self.mask is not None:
            digest.update(np.ascontiguousarray(self.mask).data)
        low, high = (float(np.float32(value)) for value in self.unit_range)
        top, left, bottom, right = self.box
        # Values are counted, not converted: exact, and several times as fast as float64 pixels.
        inside = self.pixels[:, top:bottom, left:right]
        # Gray scans among coloured ones repeat their channel.
        num_counted = 1 if len(inside) > 1 and (inside[1:] == inside[:1]).all() else len(inside)
        counts = [_counts(plane) for plane in inside[:num_counted]]
        by_channel = [_unit_sums(count, low, high) for count in counts]
        first, second = zip(*by_channel * (len(inside) // num_counted), strict=True)
        sums = np.array([(bottom - top) * (right - left), *first, *second], np.float64)
        return ScanSums(digest.digest(), sums)


@dataclass(frozen=True)
class Origin:
    """Where a packed scan comes from; a label that is None or missing is blank.

    Args:
        spelling: What numbers of one patient share, however written; None where it has no number.
    """

    scan_id: str
    patient: str
    labels: Mapping[str, str | None] = field(default_factory=dict)
    spelling: str | None = None


@dataclass(frozen=True)
class Layout:
    """What every scan of an archive has; its shape is channels, rows and columns."""

    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    has_mask: bool = False
    label_columns: tuple[str, ...] = ()

    def schema(self) -> pa.Schema:
        """Returns the columns of a shard."""
        fields = [
            pa.field("pixels", pa.fixed_shape_tensor(pa.from_numpy_dtype(self.dtype), self.shape)),
            pa.field("valid_box", pa.list_(pa.int32(), 4)),
            pa.field("spacing_mm", pa.list_(pa.float32(), 2)),
            pa.field("value_range", pa.list_(pa.float32(), 2)),
            pa.field("scan_id", pa.string()),
            pa.field("patient", pa.string()),
            pa.field("spelling", pa.string()),
            pa.field("digest", pa.binary(DIGEST_BYTES)),
            pa.field("sums", pa.list_(pa.float64(), num_sums(self.shape[0]))),
        ]
        if self.has_mask:
            fields.append(pa.field("mask", pa.fixed_shape_tensor(pa.uint8(), self.shape[1:])))
        labels = (pa.field(LABEL_PREFIX + name, pa.string()) for name in self.label_columns)
        return pa.schema([*fields, *labels])

    def fitted(self, scan: PackedScan) -> PackedScan:
        """Returns a scan checked against the layout, with a mask where scans have one."""
        box, (low, high) = scan.box, scan.unit_range
        assert scan.pixels.shape == self.shape, f"{scan.pixels.shape} != {self.shape}"
        assert scan.pixels.dtype == self.dtype, f"a scan of {scan.pixels.dtype}"
        assert 0 <= box[0] < box[2] <= self.shape[1], f"box {box}"
        assert 0 <= box[1] < box[3] <= self.shape[2], f"box {box}"
        assert low < high, f"value range {low}, {high}"
        if self.has_mask == (scan.mask is not None):
            return scan
        mask = None
        if self.has_mask:
            mask = np.zeros(self.shape[1:], np.bool_)
            mask[box[0] : box[2], box[1] : box[3]] = True
        return replace(scan, mask=mask)


def scans_per_batch(shape: tuple[int, int, int], dtype: np.dtype[Any]) -> int:
    """Returns how many scans a record batch holds: 256, fewer where scans are large.

    It is a power of two that depends on nothing but shape and dtype, so that a packed archive
    has the same bytes everywhere and writing needs at most 128 MiB for a batch.
    """
    rows = MAX_SCANS_PER_BATCH
    while rows > 1 and rows * int(np.prod(shape)) * dtype.itemsize > MAX_BATCH_BYTES:
        rows //= 2
    return rows


def shard_name(number: int) -> str:
    """Returns the file name of a shard in its archive, as ``shards/00007.arrow``."""
    return f"shards/{number:05d}.arrow"


def is_archive(path: Path) -> bool:
    """Returns whether ``path`` is the folder of a packed archive."""
    return (path / INFO_FILE).is_file()


def read_info(path: Path) -> dict[str, Any]:
    """Returns what ``archive.json`` says, once the files that it names are there.

    Raises:
        ScanlearnError: There is no archive, it was made by a later release, or a part of it is
            missing or cut short.
    """
    if not is_archive(path):
        raise ScanlearnError(
            f"{path}: is not an archive (it holds no archive.json); make one with scanlearn pack"
        )
    info = read_description(path)
    for part in [*info["shards"], info["manifest"]]:
        file = path / part["file"]
        if not has_size(file, part["bytes"]):
            raise ScanlearnError(
                f"{file}: is missing or cut short; remove {path} and pack it again"
            )
    return info


def read_description(path: Path) -> dict[str, Any]:
    """Returns what ``archive.json`` says, whatever became of the files that it names.

    Raises:
        ScanlearnError: It describes no archive, was changed after it was written, or was made by
            a later release.
    """
    file, what = path / INFO_FILE, "does not describe an archive"
    remedy = "restore it from a copy, or pack the scans again"
    version = read_json(file, _Version, what=what, remedy=remedy).format_version
    if version > FORMAT_VERSION:
        raise ScanlearnError(
            f"{file}: has archive format {version}, but this release reads up to"
            f" {FORMAT_VERSION}; update scanlearn or pack again"
        )
    described = read_json(file, _Description, what=what, remedy=remedy)
    info: dict[str, Any] = json.loads(file.read_text("utf-8"))
    is_of_before = described.sha256 is None and described.manifest.sha256 is None
    if not is_of_before and described.sha256 != _digest(info):
        # One flipped bit in a mean or a setting was another number under the same hash.
        raise ScanlearnError(f"{file}: was changed after it was written; {remedy}")
    counts = sum(shard.scans for shard in described.shards)
    channels = described.shape[0]
    if counts != described.scans or {len(described.mean), len(described.std)} != {channels}:
        raise ScanlearnError(
            f"{file}: {what} (scans, mean or std do not fit its shards and channels); {remedy}"
        )
    return info


def has_size(file: Path, num_bytes: int) -> bool:
    """Returns whether a file is there, whole by its size."""
    return file.is_file() and file.stat().st_size == num_bytes


def write_info(path: Path, info: Mapping[str, Any]) -> None:
    """Writes ``archive.json`` in one step; from then on the files it names are the archive."""
    signed = dict(info) | {_DIGEST_KEY: _digest(info)}
    write_atomically(path / INFO_FILE, json.dumps(signed, indent=1, ensure_ascii=False) + "\n")


def file_entry(path: Path, name: str) -> dict[str, Any]:
    """Returns how ``archive.json`` names a file: size for every opening, hash for `verify`."""
    return {"file": name, "bytes": (path / name).stat().st_size, "sha256": file_hash(path / name)}


def file_hash(file: Path) -> str:
    """Returns the sha256 of a file's bytes."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def list_hashes(path: Path) -> dict[str, str]:
    """Returns the sha256 of each list of an archive that is there."""
    files = (path / name for name in (REJECTED_FILE, PATHS_FILE))
    return {file.name: file_hash(file) for file in files if file.is_file()}


def _digest(info: Mapping[str, Any]) -> str:
    """Returns the sha256 of all that ``archive.json`` says, however it is indented."""
    rest = {key: value for key, value in info.items() if key != _DIGEST_KEY}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


_DIGEST_KEY = "sha256"
_Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
_Count = Annotated[int, Field(ge=0, lt=2**48)]
_Side = Annotated[int, Field(ge=1, le=2**20)]
_Number = Annotated[float, Field(allow_inf_nan=False)]


class _Version(BaseModel):
    # No "5" for 5: what is checked here is read again as it stands.
    model_config = ConfigDict(strict=True, extra="allow")
    format_version: int = Field(ge=1)


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")
    # No other name may stand here: what is named is read, and what is not is removed.
    file: str = Field(pattern=r"^(shards/\d+\.arrow|manifest(\.\d+)?\.parquet)$")
    bytes: _Count
    sha256: _Digest | None = None


class _Shard(_Part):
    scans: Annotated[int, Field(ge=1, lt=2**40)]


class _Withdrawn(BaseModel):
    model_config = ConfigDict(strict=True)
    patients: _Count
    scans: _Count
    names: list[str]


class _Description(_Version):
    """``archive.json``, so far as it is relied on."""

    shape: tuple[_Side, _Side, _Side]
    dtype: Annotated[str, Field(pattern="^uint(8|16)$")]
    has_mask: bool
    patients_known: bool
    synthetic_phantom: bool
    label_columns: list[str]
    settings: dict[str, Any]
    scans: _Count
    patients: _Count
    rejected: _Count
    mean: list[_Number]
    std: list[Annotated[_Number, Field(ge=0)]]
    content_hash: _Digest
    source_hash: str
    manifest: _Part
    shards: list[_Shard] = Field(min_length=1)
    key: str | None = None
    issuer: str | None = None
    issuers: list[str] | None = None
    notes: dict[str, int] | None = None
    examined: dict[str, int] | None = None
    withdrawn: _Withdrawn | None = None
    lists: dict[Annotated[str, Field(pattern=r"^\w+\.csv$")], _Digest] | None = None
    sha256: _Digest | None = None


@dataclass(frozen=True)
class ScanSums:
    """Digest and sums of one scan; those of all scans give an archive's hash, mean and std.

    Args:
        digest: sha256 over pixels, valid box, value range, spacing and mask.
        sums: ``[1 + 2c]`` pixels of the valid box; then the sum of each channel on the unit
            range (``value_range`` mapped to 0 and 1, clamped), and of its squares.
    """

    digest: bytes
    sums: Float64[np.ndarray, " t"]


def num_sums(channels: int) -> int:
    """Returns how many sums a scan has."""
    return 1 + 2 * channels


def _unit_sums(counts: Int64[np.ndarray, " v"], low: float, high: float) -> tuple[float, float]:
    """Returns the sum of counted values on the unit range, and that of their squares.

    They are added as numpy adds all ``v`` terms at once, in blocks of 128 and these by pairs, which
    gives the same bits on any machine; a dot product would follow the number of threads. Blocks in
    which nothing was counted are left out: of 16 bits most are.
    """
    if counts.size == 256:
        unit, squares = _unit_values(low, high)
        return float((counts * unit).sum()), float((counts * squares).sum())
    blocks = counts.reshape(-1, _BLOCK)
    used = np.flatnonzero(blocks.any(axis=1))
    unit = _on_unit_range((used[:, None] * _BLOCK + np.arange(_BLOCK)), low, high)
    sums = np.zeros((2, len(blocks)))
    sums[0, used] = (blocks[used] * unit).sum(axis=1)
    sums[1, used] = (blocks[used] * unit**2).sum(axis=1)
    while sums.shape[1] > 1:
        sums = sums[:, 0::2] + sums[:, 1::2]
    return float(sums[0, 0]), float(sums[1, 0])


@lru_cache(maxsize=4)
def _unit_values(
    low: float, high: float
) -> tuple[Float64[np.ndarray, " v"], Float64[np.ndarray, " v"]]:
    """Returns what each value of 8 bits is on the unit range, and its square."""
    unit = _on_unit_range(np.arange(256), low, high)
    return unit, unit**2


def _on_unit_range(
    values: Int64[np.ndarray, "*s"], low: float, high: float
) -> Float64[np.ndarray, "*s"]:
    return np.clip((values.astype(np.float64) - low) / (high - low), 0.0, 1.0)


def _counts(plane: np.ndarray[Any, np.dtype[Any]]) -> Int64[np.ndarray, " v"]:
    """Returns how often each value occurs."""
    if plane.dtype == np.uint8:
        return np.array(Image.fromarray(plane).histogram(), np.int64)
    return value_counts(plane)
