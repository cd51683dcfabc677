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
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit

from scanlearn.archive.lists import read_paths
from scanlearn.archive.reader import Archive
from scanlearn.errors import ScanlearnError
from scanlearn.packing.pack import pack
from scanlearn.packing.settings import PackSettings
from scanlearn.readers import limits as deadline
from scanlearn.tables.manifest import read_manifest

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


def nifti_notes(order: str, is_second: bool) -> bytes:
    """A volume behind notes of 2.4 GB, which few bytes of gzip may hold."""
    kind = nibabel.Nifti2Header if is_second else nibabel.Nifti1Header
    header = kind(endianness=order)
    header.set_data_shape((16, 16, 4))
    header.set_data_dtype(np.uint8)
    header["magic"] = b"n+2" if is_second else b"n+1"
    header["vox_offset"] = 2_400_000_000
    note = b"\1\0\0\0" + struct.pack(f"{order}ii", 2_000_000_000, 6)
    return gzip.compress(header.binaryblock + note + bytes(2**22))


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
    "notes.nii.gz": (lambda: nifti_notes("<", False), "claims 2,400,000,000 bytes before its vox"),
    "big.nii.gz": (lambda: nifti_notes(">", False), "claims 2,400,000,000 bytes before its voxels"),
    "second.nii.gz": (lambda: nifti_notes("<", True), "claims 2,400,000,000 bytes before its vox"),
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


def sparse(path: Path, start: bytes, num_bytes: int) -> Path:
    """A file of nothing but zeros behind its start, which takes no room on disk."""
    with path.open("wb") as file:
        file.write(start)
        file.truncate(num_bytes)
    return path


def tar_header(kind: bytes, num_bytes: int) -> bytes:
    member = tarfile.TarInfo("a.png")
    member.type, member.size = kind, num_bytes
    return member.tobuf(tarfile.GNU_FORMAT)


def tar_of_records(folder: Path) -> Path:
    return sparse(folder / "a.tar", tar_header(tarfile.XHDTYPE, 3_400_000_000), 3_401_000_000)


def tar_of_a_long_name(folder: Path) -> Path:
    return sparse(folder / "b.tar", tar_header(b"L", 3_400_000_000), 3_401_000_000)


def tar_of_holes(folder: Path) -> Path:
    """A member whose list of holes is all there is of it."""
    texts = ("major=1", "minor=0", "name=a.png", "realsize=1")
    lines = [f" GNU.sparse.{text}\n" for text in texts]
    records = b"".join(f"{len(line) + 2}{line}".encode() for line in lines)
    holes = b"9999999\n" + b"0\n1\n" * 9_999_999
    content = tar_header(tarfile.XHDTYPE, len(records)) + records.ljust(512, b"\0")
    content += tar_header(tarfile.REGTYPE, len(holes)) + holes + bytes(2048 - len(holes) % 512)
    (folder / "c.tar").write_bytes(content)
    return folder / "c.tar"


def zip_of_names(folder: Path) -> Path:
    """A list of three million members, of 47 bytes each, in 141 MB."""
    entry = b"PK\x01\x02" + bytes(24) + struct.pack("<H", 1) + bytes(16) + b"a"
    num_bytes = len(entry) * 3_000_000
    wide = struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, 3_000_000, 3_000_000, num_bytes, 0)
    end = b"PK\x06\x06" + wide + b"PK\x06\x07" + struct.pack("<IQI", 0, num_bytes, 1)
    end += b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 65_535, 65_535, 2**32 - 1, 2**32 - 1, 0)
    (folder / "a.zip").write_bytes(entry * 3_000_000 + end)
    return folder / "a.zip"


def npz_of_labels(folder: Path) -> Path:
    np.savez_compressed(
        folder / "a.npz",
        train_images=np.zeros((2**15, 4, 4), np.uint8),
        train_labels=np.zeros((2**15, 2**11), np.uint8),
    )
    return folder / "a.npz"


def parquet_of_one_cell(folder: Path) -> Path:
    """One text of 30 MB, stored once, that 300 rows share."""
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 300, pa.int32()), ["x" * 30_000_000])
    table = pa.table({"path": ["good.png"] * 300, "note": text})
    options = {"store_schema": False, "dictionary_pagesize_limit": 2**30}
    pq.write_table(table, folder / "a.parquet", compression="zstd", **options)
    return folder / "a.parquet"


def sparse_webp(folder: Path) -> Path:
    return sparse(folder / "a.webp", b"RIFF\xff\xff\xff\x7fWEBPVP8L", 3_000_000_000).parent


def sparse_png(folder: Path) -> Path:
    start = png(8, 8, b"")[:33] + struct.pack(">I", 2**31 - 1) + b"tEXt"
    return sparse(folder / "a.png", start, 3_000_000_000).parent


BOMBS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "records": (tar_of_records, "far more bytes of tags"),
    "long name": (tar_of_a_long_name, "far more bytes of tags"),
    "holes": (tar_of_holes, "far more bytes of tags"),
    "members": (zip_of_names, "holds more than 2,097,152 members"),
    "labels": (npz_of_labels, "labels in train_labels.npy, more than any such set has"),
    "cells": (parquet_of_one_cell, "its cells hold 9,000,002,400 bytes"),
    "WebP": (sparse_webp, "far more bytes of tags"),
    "PNG": (sparse_png, "far more bytes of tags"),
}
# Memory that zeros are read into is given back at once; the peak alone tells.
PEAK_OF_A_SOURCE = PEAK.replace(
    "pack(Path(sys.argv[1]), sys.argv[1]",
    "from scanlearn.errors import ScanlearnError\ntry: pack(Path(sys.argv[1]), sys.argv[2]",
).replace("print(before", "except ScanlearnError as error: print(error)\nprint(before")


@pytest.mark.long
@pytest.mark.parametrize("name", BOMBS)
def test_source_that_claims_gigabytes_is_refused_in_bounded_memory(folder: Path, name: str) -> None:
    make, reason = BOMBS[name]
    source = make(folder)
    done = subprocess.run(
        [sys.executable, "-c", PEAK_OF_A_SOURCE, source, folder.parent / "out"],
        capture_output=True,
        text=True,
        check=True,
    )
    if source == folder:
        assert reason in "".join(rejected(Archive(Path(f"{folder.parent}/out.packed"))).values())
    else:
        assert reason in done.stdout
    before, peak = map(int, done.stdout.splitlines()[-1].split())
    assert peak - before < 500 * 1024, f"{(peak - before) / 1024:.0f} MB"


def pair(folder: Path) -> None:
    volume = np.arange(16 * 16 * 4, dtype=np.uint8).reshape(16, 16, 4)
    nibabel.save(nibabel.Nifti1Pair(volume, np.eye(4)), folder / "pair.img")


@pytest.mark.parametrize("suffix", [".img", ".mat"])
@pytest.mark.parametrize("kind", ["pipe", "link out", "link in", "gone"])
def test_second_file_of_a_pair_obeys_the_rules_of_the_first(
    folder: Path, tmp_path: Path, kind: str, suffix: str
) -> None:
    pair(folder)
    second = folder / f"pair{suffix}"
    (folder / "inside").mkdir()
    (tmp_path if kind == "link out" else folder / "inside").joinpath("b.bin").write_bytes(
        (folder / "pair.img").read_bytes() if suffix == ".img" else b""
    )
    second.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(second)
    elif kind != "gone":
        where = tmp_path if kind == "link out" else folder / "inside"
        second.symlink_to(where / "b.bin")
    start = time.monotonic()
    archive = packed(folder)
    assert time.monotonic() - start < 15
    reasons = {
        "pipe": f"has a {suffix} file beside it that is not a regular file",
        "link out": "has a part in another file, which is a link to a file outside the source",
        "gone": "has a part in another file, which is missing",
    }
    if kind == "link in" or (kind, suffix) == ("gone", ".mat"):
        assert len(archive) > 1
        return
    assert reasons[kind] in rejected(archive)["pair.hdr"]
    if kind == "link out" and suffix == ".img":
        followed = pack(
            folder, tmp_path / "b", settings=SMALL.model_copy(update={"follow_links": True})
        )
        assert len(followed) > len(archive)


@pytest.mark.parametrize("name", ["a.csv", "a.parquet", "a.xlsx", "a.zip", "a.tar", "a.npz"])
@pytest.mark.parametrize("in_folder", [False, True])
def test_table_or_container_that_is_a_pipe_is_never_waited_for(
    folder: Path, name: str, in_folder: bool
) -> None:
    os.mkfifo(folder / name)
    start = time.monotonic()
    if in_folder:
        assert len(packed(folder, open_containers=True)) == 1
    else:
        with pytest.raises(ScanlearnError, match=r"not a regular file|not an archive"):
            read_manifest(folder / name)
    assert time.monotonic() - start < 15
