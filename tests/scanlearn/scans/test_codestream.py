from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.encaps import generate_frames

from scanlearn.scans.codestream import claimed_values, ordinary_picture


def saved(kind: str, *shape: int, **chosen: bool) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros(shape, np.uint8)).save(buffer, kind, **chosen)
    return buffer.getvalue()


@pytest.mark.parametrize("shape", [(40, 50), (40, 50, 3)])
@pytest.mark.parametrize(
    ("kind", "chosen"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("JPEG2000", {"no_jp2": True}),
        ("JPEG2000", {"no_jp2": False}),
    ],
)
def test_values_are_those_of_the_picture(
    kind: str, chosen: dict[str, bool], shape: tuple[int, ...]
) -> None:
    assert claimed_values(saved(kind, *shape, **chosen)) == np.prod(shape)


@pytest.mark.parametrize(
    "stream", [b"", b"\xff\xd8", b"\xff\xd8\xff", b"\xff\x4f\xff\x51", b"RLE", b"\xff" * 50]
)
def test_what_says_nothing_claims_nothing(stream: bytes) -> None:
    assert claimed_values(stream) is None


def test_every_cut_of_a_stream_is_borne() -> None:
    for stream in (saved("JPEG", 8, 8), saved("JPEG2000", 8, 8)):
        found = {claimed_values(stream[:end]) for end in range(len(stream))}
        assert found == {None, 64}


@pytest.mark.filterwarnings("ignore:Expected explicit VR")
def test_real_streams_claim_what_their_tags_say(real_data: Path) -> None:
    compared = 0
    for path in sorted((real_data / "readers" / "dicom").rglob("*")):
        # The size in this one was overwritten on purpose.
        if not path.is_file() or path.suffix == ".csv" or "embedded-sequence" in path.name:
            continue
        tags = pydicom.dcmread(path, force=True)
        syntax = tags.file_meta.get("TransferSyntaxUID")
        if "PixelData" not in tags or syntax is None or not syntax.is_transfer_syntax:
            continue
        if not syntax.is_encapsulated:
            continue
        number = int(tags.get("NumberOfFrames") or 1)
        claimed = claimed_values(next(generate_frames(tags.PixelData, number_of_frames=number)))
        if claimed is not None:
            assert claimed == tags.Rows * tags.Columns * tags.SamplesPerPixel, path.name
            compared += 1
    assert compared > 20


@pytest.mark.parametrize("shape", [(40, 50), (40, 50, 3)])
@pytest.mark.parametrize(
    ("kind", "chosen"), [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {})]
)
def test_first_bytes_of_an_ordinary_picture_say_what_it_is(
    kind: str, chosen: dict[str, bool], shape: tuple[int, ...]
) -> None:
    found = ordinary_picture(saved(kind, *shape, **chosen))
    assert found == (40, 50, shape[2] if len(shape) > 2 else 1, 8)


def converted(mode: str, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (50, 40)).convert(mode).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "start",
    [
        converted("CMYK", "JPEG"),
        *(converted(mode, "PNG") for mode in ("1", "P", "LA", "RGBA", "I;16")),
        saved("JPEG", 40, 50)[:200],
        saved("JPEG", 40, 50).replace(b"\xff\xc0", b"\xff\xc9"),
        saved("PNG", 40, 50)[:30],
        saved("BMP", 40, 50),
        b"",
    ],
)
def test_all_else_is_left_to_who_reads_the_whole_header(start: bytes) -> None:
    assert ordinary_picture(start) is None
