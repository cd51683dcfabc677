"""What a reader is, what it takes and what it gives: settings, headers, frames, reasons.

Nothing here needs torch: whoever only decodes scans is spared the seconds it takes to load.
The legend of axis letters stands in `scanlearn.core`.
"""

from __future__ import annotations

import io
import os
import re
import stat
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, UInt8, UInt16

Pixels = UInt8[np.ndarray, "c h w"] | UInt16[np.ndarray, "c h w"]
Plane = Literal["sagittal", "coronal", "axial"]
# Makes an 8-bit Pillow picture smaller before it becomes an array.
Shrink = Callable[[Any], Any]
# More pixels than Pillow's own warning level are taken for a decompression bomb.
MAX_PIXELS = 89_478_485
# More frames than any recording has: such a file would keep a machine busy for days.
MAX_FRAMES = 65_536

_QUOTED = re.compile(r"""(?<!\w)b?(?:'[^']*'|"[^"]*")(?!\w)|(?<!\w)b?['"].*$""")


@dataclass(frozen=True)
class Units:
    """What stored values measure: ``slope * stored + intercept``.

    Args:
        slope: Units from one stored value to the next; negative where the file's bright is low.
        intercept: What a stored 0 measures.
        name: "HU" for Hounsfield units, else what little a file says; None where it says nothing.
    """

    slope: float
    intercept: float
    name: str | None = None


@dataclass(frozen=True)
class Scan:
    """One decoded scan, before it is packed.

    Args:
        pixels: ``[c h w]``, uint8 or uint16, in stored units.
        spacing_mm: Height and width of a pixel in millimetres, or None where unknown.
        value_range: Stored values that mean 0 and 1 by what the file says, or None where it says
            nothing of them.
        units: What stored values measure; None where that is unknown, as for pictures.
        padding: Which pixels were never measured and do not count; None where all were.
        laterality: "L" or "R", the side of the body, where the file says it; None else.
    """

    pixels: Pixels
    spacing_mm: tuple[float, float] | None = None
    value_range: tuple[float, float] | None = None
    units: Units | None = None
    padding: Bool[np.ndarray, "c h w"] | None = None
    laterality: str | None = None


class Undecodable(ValueError):  # noqa: N818 - a verdict on a scan, which is set aside, not a fault
    """A file that cannot be read as a scan; the message is the reason."""


@dataclass(frozen=True)
class Header:
    """What a file says of itself before its pixels are decoded.

    Args:
        is_colour: Whether the file stores colour; its channels may still be equal.
        is_deep: Whether it holds more than 8 bits per value that we keep.
        num_frames: How many scans it may give: frames of a recording, slices of a volume.
        patient: As the file names it, and who gave that number; None where it names none.
        size: Rows and columns of one scan, as stored.
        tags: DICOM tags that were asked for and are there, each with all its values.
        kind: Name of the format; where empty `scanlearn.readers.readers.read_header` sets it.
    """

    is_colour: bool
    is_deep: bool
    num_frames: int = 1
    patient: str | None = None
    issuer: str | None = None
    has_series: bool = False
    size: tuple[int, int] = (0, 0)
    bits: int = 8
    tags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    kind: str = ""


@dataclass(frozen=True)
class Frame:
    """One scan of a file that may give several.

    Args:
        number: Which one it is, from 1, in the order of the file.
        scan: The scan, or the reason why there is none.
        notes: What of the file was left out or changed, in words.
        patient: As the file names it; None where it names none, as for series and issuer.
        identifiers: Kind and value of what a table of labels may call the file by.
        examined: Modality and body part of a DICOM file, such as "CR CHEST".
    """

    number: int
    scan: Scan | Undecodable
    notes: tuple[str, ...] = ()
    patient: str | None = None
    series: str | None = None
    issuer: str | None = None
    identifiers: tuple[tuple[str, str], ...] = ()
    examined: str = ""


class Metered(io.BufferedReader):
    """A file of which only so many more bytes are read.

    Attributes:
        bytes_left: Set by who knows what the file may still need; None reads all of it.
    """

    bytes_left: int | None = None

    def read(self, size: int | None = -1, /) -> bytes:
        """Returns the next bytes.

        Raises:
            Undecodable: There are more than are left to be read.
        """
        if self.bytes_left is None:
            return super().read(size)
        most = self.bytes_left + 1
        content = super().read(most if size is None or size < 0 else min(size, most))
        self.bytes_left -= len(content)
        if self.bytes_left < 0:
            raise Undecodable("claims far more bytes of tags, notes or headers than any scan has")
        return content


def open_regular(path: Path | str) -> Metered:
    """Opens a file to be read, and nothing but a file, without ever waiting for one.

    A pipe or device would be waited for without end, or do something as it is opened. One that
    takes the place of a file between the look at it and its opening does not block either.

    Raises:
        Undecodable: It is no regular file.
        OSError: It is not there or may not be read.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 - for every file, hence for speed
        raise Undecodable("is not a regular file")
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    file = Metered(io.FileIO(os.open(path, flags | getattr(os, "O_CLOEXEC", 0)), "rb"))
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    raise Undecodable("is not a regular file")


@contextmanager
def refusing(path: Path) -> Iterator[None]:
    """Turns all the ways in which a file can be bad into one error with a reason.

    Raises:
        Undecodable: The block raised anything, or there is no file with a byte in it.
    """
    try:
        # A pipe or device named like an image would be waited for without end.
        if not path.is_file():
            raise Undecodable("is not a regular file" if path.exists() else "file not found")
        if path.stat().st_size == 0:
            raise Undecodable("file is empty")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Remarks on metadata we do not read.
            yield
    except Undecodable:
        raise
    except FileNotFoundError as error:
        raise Undecodable("has a part in another file, which is missing") from error
    except PermissionError as error:
        raise Undecodable("may not be read (permission denied)") from error
    except MemoryError as error:
        raise Undecodable("does not fit into memory") from error
    except Exception as error:
        # Pillow's parsers raise almost anything on damaged bytes (SyntaxError, struct.error,
        # zlib.error, IndexError ...): whatever it is, this file is no scan.
        # Reasons are listed with the archive, which tells nothing of the folders scans came from.
        text = str(error).replace(f"{path.parent}{os.sep}", "").replace(path.name, "the file")
        line = (text.splitlines() or [type(error).__name__])[0]
        line = _without_values(line)[:200]
        raise Undecodable(f"is cut short or damaged ({line})") from error


def _without_values(line: str) -> str:
    """Returns an error without what it quotes, but for names in Python and of encodings."""

    # Libraries quote the value they stumble over, which may be a patient's number.
    def hidden(quoted: re.Match[str]) -> str:
        is_name = line[quoted.end() :].startswith((" object", " codec"))
        is_name = is_name or line[: quoted.start()].endswith("attribute ")
        return quoted.group() if is_name else "(a value)"

    return _QUOTED.sub(hidden, line)


@dataclass(frozen=True)
class ReadSettings:
    """What of a file is read.

    Args:
        empty_below: Slices of a volume with a smaller share of foreground are left out.
        at_least: Side in pixels of the canvas that scans will be fitted to; a large JPEG may be
            decoded smaller. None decodes every pixel.
        gray: Whether colour pictures become luma as they are decoded.
        tags: DICOM keywords that headers are asked for.
        shows: What means 0 and 1: "file" for what a file says, else the percentiles of a volume;
            "foreground" for the percentiles of a volume's foreground; "nothing" where it is known.
            But for "file", windows and tables of DICOM files are left alone.
        pictures_only: Whether DICOM objects that are no pictures of a patient are refused.
        neighbours: Whether the slices before and after one fill the channels of a volume's slice.
        shrink: Makes an 8-bit picture smaller before it becomes an array; None keeps its size.
    """

    axis: Plane = "axial"
    empty_below: float = 0.0
    at_least: int | None = None
    gray: bool = False
    tags: tuple[str, ...] = ()
    shows: Literal["file", "foreground", "nothing"] = "file"
    pictures_only: bool = True
    neighbours: bool = False
    shrink: Shrink | None = None


@dataclass(frozen=True)
class Reader:
    """One format: a row of `scanlearn.readers.readers.READERS`.

    Args:
        kind: Its name for users, in the singular: "picture", "DICOM".
        matches: Whether the first 352 bytes of a file are of this format.
        header: Returns what a file says before its pixels are decoded. Its last argument is the
            first bytes of the file, 4,096 where there are as many.
        frames: Yields the scans that some frames of a file give, counted from 0. A file that
            cannot be read raises `Undecodable`; a frame among others that cannot be decoded is
            yielded with its reason.
        often_bare: Whether files of this format are often named without an ending.
        reads_suffix: Whether its library opens a file by its ending, not by its content.
        has_volumes: Whether a file may be a volume, whose slices have neighbours.
        libraries: Modules that are loaded at the first file, which takes up to a second.
        container: Ending of files whose scans are rows of arrays. The reader opens a path to a
            row, such as ``pathmnist.npz/train/0000012``, itself.
        list_rows: Returns ``path`` and the label columns of all rows of such a file.
    """

    kind: str
    matches: Callable[[bytes], bool]
    header: Callable[[Path, ReadSettings, bytes], Header]
    frames: Callable[[Path, range, ReadSettings], Iterator[Frame]]
    suffixes: tuple[str, ...] = ()
    often_bare: bool = False
    reads_suffix: bool = False
    has_volumes: bool = False
    libraries: tuple[str, ...] = ()
    container: str | None = None
    list_rows: Callable[[Path], pa.Table] | None = None
