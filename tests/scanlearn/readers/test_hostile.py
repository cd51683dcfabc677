"""Files made to crash, hang, fill or fool whoever opens them: each is set aside, the rest goes on.

`HOSTILE` makes each kind; the good scan beside it must be packed, in bounded time and memory.
"""

from __future__ import annotations

import csv
import gzip
import io
import os
import socket
import struct
import subprocess
import sys
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit

from scanlearn.archive.lists import read_paths
from scanlearn.archive.reader import Archive
from scanlearn.errors import ScanlearnError
from scanlearn.packing.manifest import read_manifest
from scanlearn.packing.pack import pack
from scanlearn.packing.settings import PackSettings
from scanlearn.readers import limits as deadline

SMALL = PackSettings(canvas=32, workers=1, summary=False)


def picture(kind: str = "PNG", side: int = 40) -> bytes:
    pixels = np.random.default_rng(side).integers(0, 256, (side, side)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def png_chunk(kind: bytes, content: bytes) -> bytes:
    whole = kind + content
    return struct.pack(">I", len(content)) + whole + struct.pack(">I", zlib.crc32(whole))


def png(width: int, height: int, content: bytes, *before: bytes) -> bytes:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    image = png_chunk(b"IDAT", zlib.compress(content))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(before) + image + png_chunk(b"IEND", b"")


def png_text_bomb() -> bytes:
    text = png_chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(200_000_000), 9))
    return png(8, 8, bytes(72), text)


def absurd_jpeg() -> bytes:
    raw = bytearray(picture("JPEG"))
    place = raw.index(b"\xff\xc0") + 5
    raw[place : place + 4] = struct.pack(">HH", 65_500, 65_500)
    return bytes(raw)


def busy_jpeg() -> bytes:
    """A progressive JPEG that refines the same blank picture for minutes."""
    buffer = io.BytesIO()
    Image.new("L", (4000, 4000)).save(buffer, "JPEG", progressive=True)
    raw = buffer.getvalue()
    start = raw.rindex(b"\xff\xda")
    return raw[:start] + raw[start:-2] * 6000 + raw[-2:]


def absurd_tiff() -> bytes:
    raw = bytearray(picture("TIFF"))
    place = struct.unpack("<I", raw[4:8])[0]
    for entry in range(
        place + 2, place + 2 + 12 * struct.unpack("<H", raw[place : place + 2])[0], 12
    ):
        if struct.unpack("<H", raw[entry : entry + 2])[0] == 256:
            raw[entry + 2 : entry + 12] = struct.pack("<HII", 4, 1, 4_000_000_000)
    return bytes(raw)


def looping_tiff() -> bytes:
    """A TIFF whose list of pages comes back to its first."""
    raw = bytearray(picture("TIFF"))
    place = struct.unpack("<I", raw[4:8])[0]
    end = place + 2 + 12 * struct.unpack("<H", raw[place : place + 2])[0]
    raw[end : end + 4] = struct.pack("<I", place)
    return bytes(raw)


def dicom(side: int, pixels: bytes, syntax: UID, **tags: object) -> bytes:
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.SOPClassUID, data.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3"
    data.Rows = data.Columns = side
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.PixelRepresentation = 7, 0
    for name, value in tags.items():
        setattr(data, name, value)
    is_compressed = syntax.is_compressed and not syntax.is_deflated
    data.PixelData = encapsulate([pixels]) if is_compressed else pixels
    buffer = io.BytesIO()
    data.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def deflated_dicom() -> bytes:
    """A thousandth of what it inflates to: more than any file of scans."""
    raw = dicom(8, bytes(64), DeflatedExplicitVRLittleEndian)
    start = 144 + int.from_bytes(raw[140:144], "little")
    pack_up = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    zeros = bytes(2**24)
    body = b"".join(pack_up.compress(zeros) for _ in range(66))
    return raw[:start] + body + pack_up.flush()


def absurd_jpeg_2000() -> bytes:
    """Tags of 8 x 8 pixels around a codestream that claims 60,000 x 60,000."""
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(buffer, "JPEG2000", no_jp2=True)
    raw = bytearray(buffer.getvalue())
    place = raw.index(b"\xff\x51") + 6
    raw[place : place + 8] = struct.pack(">II", 60_000, 60_000)
    raw[place + 16 : place + 24] = struct.pack(">II", 60_000, 60_000)
    return dicom(8, bytes(raw), JPEG2000Lossless)


def nifti_bomb(num_slices: int) -> bytes:
    header = nibabel.Nifti1Header()
    header.set_data_shape((1024, 1024, num_slices))
    header.set_data_dtype(np.float64)
    header["magic"], header["vox_offset"] = b"n+1", 352
    return gzip.compress(header.binaryblock + bytes(4) + bytes(2**22))


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "absurd.png": (lambda: png(60_000, 60_000, bytes(10**6)), "more than 89,478,485 pixels"),
    "flat.png": (lambda: png(2**31 - 1, 1, bytes(99)), "more than 89,478,485 pixels"),
    "text.png": (png_text_bomb, "damaged"),
    "absurd.jpg": (absurd_jpeg, "more than 89,478,485 pixels"),
    "absurd.tif": (absurd_tiff, "more than 89,478,485 pixels"),
    "deflated.dcm": (deflated_dicom, "inflates to more than"),
    "absurd.dcm": (
        lambda: dicom(8, bytes(64), UID("1.2.840.10008.1.2.1"), Rows=65_535, Columns=65_535),
        "claims 65,535 x 65,535 pixels",
    ),
    "frames.dcm": (
        lambda: dicom(8, bytes(64), UID("1.2.840.10008.1.2.1"), NumberOfFrames=2**31 - 1),
        "claims 2,147,483,647 frames",
    ),
    "inside.dcm": (
        lambda: dicom(8, absurd_jpeg(), JPEGBaseline8Bit),
        "claims 4,290,250,000 values",
    ),
    "inside2000.dcm": (absurd_jpeg_2000, "claims 3,600,000,000 values"),
    "absurd.nii.gz": (lambda: nifti_bomb(2000), "(allowed: 1 to 1,073,741,824 in a volume)"),
    "large.nii.gz": (lambda: nifti_bomb(1000), "more than 1 GiB in a volume"),
    "empty.png": (lambda: b"", "file is empty"),
    "empty.dcm": (lambda: b"", "file is empty"),
    "short.jpg": (lambda: picture("JPEG")[:400], "damaged"),
    "short.png": (lambda: picture()[:400], "damaged"),
    "short.dcm": (lambda: dicom(8, bytes(64), UID("1.2.840.10008.1.2.1"))[:-9], "damaged"),
    "noise.dcm": (lambda: np.random.default_rng(0).bytes(5000), ""),
    "noise.nii": (lambda: np.random.default_rng(0).bytes(5000), ""),
    "noise.png": (lambda: np.random.default_rng(0).bytes(5000), "is not a PNG"),
    "noise.nii.gz": (lambda: np.random.default_rng(0).bytes(5000), ""),
    "page.png": (lambda: b"<html><script>alert(1)</script></html>", "is not a PNG"),
}


@cache
def made(name: str) -> bytes:
    """The content of a hostile file; some take seconds to make."""
    return HOSTILE[name][0]()


def rejected(archive: Archive) -> dict[str, str]:
    paths = read_paths(archive.path)
    with (archive.path / "rejected.csv").open(newline="", encoding="utf-8") as file:
        return {paths[row["scan_id"]]: row["reason"] for row in csv.DictReader(file)}


def packed(folder: Path, **chosen: object) -> Archive:
    settings = SMALL.model_copy(update=chosen)
    return pack(folder, folder.parent / f"{folder.name}.packed", settings=settings)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one good scan."""
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "good.png").write_bytes(picture())
    return tmp_path / "scans"


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_file_is_set_aside_in_bounded_time(folder: Path, name: str) -> None:
    (folder / name).write_bytes(made(name))
    start = time.monotonic()
    archive = packed(folder)
    assert time.monotonic() - start < 15
    assert len(archive) == 1
    assert list(rejected(archive)) == [name]
    assert HOSTILE[name][1] in rejected(archive)[name]


def test_list_of_pages_that_comes_back_to_its_first_gives_one_scan(folder: Path) -> None:
    (folder / "loop.tif").write_bytes(looping_tiff())
    assert len(packed(folder)) == 2


PEAK = """
import resource, sys
from pathlib import Path
from scanlearn.packing.pack import pack
from scanlearn.packing.settings import PackSettings
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
pack(Path(sys.argv[1]), sys.argv[1] + ".packed", settings=PackSettings(canvas=32, workers=1))
print(before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_stays_bounded_over_all_of_them(folder: Path) -> None:
    for name in HOSTILE:
        (folder / name).write_bytes(made(name))
    done = subprocess.run(
        [sys.executable, "-c", PEAK, folder], capture_output=True, text=True, check=True
    )
    before, peak = map(int, done.stdout.splitlines()[-1].split())
    assert peak - before < 500 * 1024, f"{(peak - before) / 1024:.0f} MB"


def test_jpeg_that_keeps_its_decoder_busy_is_given_up(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadline, "MAX_SECONDS", 0.5)
    (folder / "busy.jpg").write_bytes(busy_jpeg())
    start = time.monotonic()
    archive = packed(folder)
    assert rejected(archive) == {"busy.jpg": "takes more than 0.5 seconds to read"}
    assert time.monotonic() - start < 15


def test_bombs_in_archives_are_set_aside(folder: Path) -> None:
    with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        with file.open("bomb.png", "w", force_zip64=True) as member:
            member.write(b"\x89PNG")
            for _ in range(65):
                member.write(bytes(2**24))
        file.writestr("absurd.png", png(60_000, 60_000, b""))
        file.writestr("good.png", picture())
    start = time.monotonic()
    archive = packed(folder / "a.zip")
    assert time.monotonic() - start < 5
    assert len(archive) == 1
    reasons = rejected(archive)
    assert "claims 1,090,519,044 bytes" in reasons["bomb.png"]
    assert "more than 89,478,485 pixels" in reasons["absurd.png"]


def test_pipes_sockets_and_broken_links_are_set_aside(folder: Path) -> None:
    os.mkfifo(folder / "pipe.dcm")
    (folder / "gone.png").symlink_to("nowhere.png")
    (folder / "self.png").symlink_to("self.png")
    (folder / "dir.png").mkdir()
    here = Path.cwd()
    os.chdir(folder)  # The address of a socket is short.
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("socket.png")
    finally:
        os.chdir(here)
    archive = packed(folder)
    assert len(archive) == 1
    assert set(rejected(archive)) == {"pipe.dcm", "gone.png", "self.png", "socket.png"}


def test_link_out_of_the_folder_is_set_aside_until_links_are_followed(
    folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "secret.png").write_bytes(picture(side=41))
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    archive = packed(folder)
    assert len(archive) == 1
    assert "follow_links=true" in rejected(archive)["link.png"]
    followed = pack(
        folder, tmp_path / "b", settings=SMALL.model_copy(update={"follow_links": True})
    )
    assert len(followed) == 2


def test_folder_of_nothing_but_links_says_what_to_set(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "farm").mkdir()
    (tmp_path / "farm" / "1.png").symlink_to(folder / "good.png")
    with pytest.raises(ScanlearnError, match=r"none of 1 scans .*follow_links=true"):
        packed(tmp_path / "farm")
    assert len(packed(tmp_path / "farm", follow_links=True)) == 1


NAMES = [
    *("line\nbreak.png", "re\rturn.png", "quote\"s'.png", "comma, semicolon;.png", "tab\t.png"),
    *("<img src=x onerror=alert(1)>.png", "&amp;.png", "=cmd|' calc'!A0.png", "-rf.png"),
    *("back\\slash.png", "..png", "...png", " .png", "%2e%2e%2f.png", "$(reboot).png", "#3.png"),
    *("\u202egnp.exe.png", "e\u0301.png", "\u00e9.png", "\x1b[31m.png", "x" * 240 + ".png"),
]


@pytest.mark.parametrize("in_archive", [False, True])
def test_hostile_names_are_packed_and_read_back(
    folder: Path, tmp_path: Path, in_archive: bool
) -> None:
    source = folder
    for name in NAMES:
        (folder / name).write_bytes(picture())
    if in_archive:
        source = tmp_path / "a.tar"
        with tarfile.open(source, "w") as file:
            file.add(folder, ".")
    archive = packed(source)
    hidden = {name for name in NAMES if name.startswith(".")}
    assert set(archive.paths()) == {*NAMES, "good.png"} - hidden
    for part in archive.path.iterdir():
        if part.name != "paths.csv" and part.is_file():
            assert b"onerror" not in part.read_bytes()


def test_names_that_are_no_text_are_set_aside(folder: Path) -> None:
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff\xfe.png")).write_bytes(picture())
    archive = packed(folder)
    assert len(archive) == 1
    assert rejected(archive) == {
        "\\xff\\xfe.png (escaped)": "has a name that is not UTF-8; rename it"
    }


def test_table_may_lead_anywhere_since_its_paths_are_the_users_own(
    folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "tables").mkdir()
    table = tmp_path / "tables" / "t.csv"
    absolute = folder / "good.png"
    table.write_text(f"path\n../scans/good.png\n{absolute}\n")
    assert len(pack(table, tmp_path / "a", settings=SMALL)) == 2


def test_table_of_a_million_columns_is_one_sentence(tmp_path: Path) -> None:
    header = ",".join(f"c{number}" for number in range(1_000_000))
    (tmp_path / "t.csv").write_text(f"{header[:3_000_000]}\n1\n")
    start = time.monotonic()
    with pytest.raises(ScanlearnError, match=r"columns and .* at most 10,000") as caught:
        read_manifest(tmp_path / "t.csv")
    assert len(str(caught.value)) < 500
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("start", ["", "path,y\na.png,1\n", 'path\n"'])
def test_table_with_one_endless_line_is_one_sentence(tmp_path: Path, start: str) -> None:
    with (tmp_path / "t.csv").open("wb") as file:
        file.write(start.encode())
        file.truncate(2**30)  # A sparse file: a line of a thousand million NULs.
    before = time.monotonic()
    with pytest.raises(ScanlearnError, match="cannot be read as a table"):
        read_manifest(tmp_path / "t.csv")
    assert time.monotonic() - before < 5


@pytest.mark.parametrize("raw", [b"", b"PAR1", b"PAR1" + bytes(99) + b"PAR1", b"path\na.png\n"])
def test_parquet_that_is_none_is_one_sentence(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "t.parquet").write_bytes(raw)
    with pytest.raises(ScanlearnError, match="cannot be read as a table"):
        read_manifest(tmp_path / "t.parquet")
