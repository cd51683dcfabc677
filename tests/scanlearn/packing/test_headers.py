from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from scanlearn.errors import ScanlearnError
from scanlearn.packing import parallel as pool
from scanlearn.packing.filters import Selection, make_selection
from scanlearn.packing.headers import read_headers, scan_headers
from scanlearn.readers.scan import Header, ReadSettings
from scanlearn.tables.manifest import Manifest, read_manifest

MakeDicom = Callable[..., Path]
MakeScans = Callable[..., Path]
PLAIN = ReadSettings()


def keeping(**patterns: str) -> Selection:
    return make_selection({name: (value,) for name, value in patterns.items()}, {}, ())


@pytest.fixture
def mixed(tmp_path: Path, make_dicom: MakeDicom) -> Manifest:
    pixels = np.zeros((4, 5), np.uint8)
    make_dicom(pixels, "s/ct.dcm", Modality="CT", PatientID="1", SeriesInstanceUID="1.2")
    make_dicom(pixels[None].repeat(3, 0).astype(np.uint16), "s/mr.dcm", Modality="MR")
    Image.fromarray(pixels).save(tmp_path / "s/p.png")
    Image.new("RGB", (5, 4)).save(tmp_path / "s/q.png")
    (tmp_path / "s/x.dcm").write_bytes(b"nothing")
    return read_manifest(tmp_path / "s")


def test_every_header_is_summed_up_in_the_order_of_the_files(mixed: Manifest) -> None:
    kept, found = scan_headers(mixed, PLAIN)
    assert kept is mixed
    assert found.num_frames.tolist() == [1, 3, 1, 1, 1]
    assert found.is_deep
    assert found.has_series
    assert not found.has_patients
    assert [path.name for path in found.colour] == ["q.png"]
    assert found.left_out == {}


def test_what_a_filter_leaves_out_counts_for_nothing_but_its_note(mixed: Manifest) -> None:
    kept, found = scan_headers(mixed, PLAIN, selection=keeping(Modality="CT"))
    assert kept.table.column("path").to_pylist() == ["ct.dcm", "x.dcm"]
    assert found.num_frames.tolist() == [1, 1]
    assert not found.is_deep
    assert found.has_patients
    assert found.colour == ()
    assert found.left_out == {"files left out by keep.Modality": 3}


def test_a_filter_that_leaves_nothing_is_one_clear_sentence(make_scans: MakeScans) -> None:
    manifest = read_manifest(make_scans(2))
    words = r"leaves none of 2 files \(2 files left out by keep\.Modality\).* --dry-run"
    with pytest.raises(ScanlearnError, match=words):
        scan_headers(manifest, PLAIN, selection=keeping(Modality="CT"))


def test_processes_read_the_same_headers(
    make_scans: MakeScans, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = read_manifest(make_scans(12))
    alone = scan_headers(manifest, PLAIN)
    monkeypatch.setattr(pool, "_TIMED_ITEMS", 3)
    monkeypatch.setattr(pool, "_SECONDS_WORTH_PROCESSES", 0.0)
    assert scan_headers(manifest, PLAIN, workers=2) == alone


def test_headers_carry_size_bits_kind_and_the_tags_asked_for(mixed: Manifest) -> None:
    asked = ReadSettings(tags=("Modality", "ViewPosition"))
    headers = {row.path: header for row, header in read_headers(mixed, asked, workers=1)}
    ct, mr, picture, broken = (headers[name] for name in ("ct.dcm", "mr.dcm", "q.png", "x.dcm"))
    assert isinstance(ct, Header)
    assert isinstance(mr, Header)
    assert isinstance(picture, Header)
    assert isinstance(broken, str)
    assert (ct.kind, ct.size, ct.bits, ct.tags) == ("DICOM", (4, 5), 8, {"Modality": ("CT",)})
    assert (mr.bits, mr.num_frames) == (16, 3)
    assert (picture.kind, picture.size, picture.tags) == ("picture", (4, 5), {})


def test_memory_does_not_grow_with_the_files() -> None:
    # Names of files that are not there: refused at once, and all that is held is their numbers.
    number = 10_000
    # Paths intern their parts; Python's table of such strings may just then grow by megabytes.
    interned = [sys.intern(f"{index}.png") for index in range(number)]
    names = pa.array(interned, pa.string())
    table = pa.table({"path": names, "patient": names})
    manifest = Manifest(Path("/nowhere"), table, (), patients_known=False)
    tracemalloc.start()
    scan_headers(manifest, PLAIN)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Two batches of 4,096 rows as Python strings are 1.6 MB; an object a file would double it.
    assert peak < 2.5e6
