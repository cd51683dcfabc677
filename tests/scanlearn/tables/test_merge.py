from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from scanlearn.errors import ScanlearnError
from scanlearn.packing.pack import pack
from scanlearn.packing.settings import PackSettings
from scanlearn.tables.manifest import Manifest, read_manifest
from scanlearn.tables.merge import MERGED, Conflict

MakeScans = Callable[..., Path]


def read(folder: Path, header: str, *rows: str) -> Manifest:
    (folder / "t.csv").write_text("\n".join((header, *rows)) + "\n")
    return read_manifest(folder / "t.csv")


def test_rows_that_agree_are_one_scan(
    make_scans: MakeScans, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = read(
        make_scans(2),
        "path,patient,y,z",
        *("scan001.png,b,1.0,", "scan000.png,a,0,x", "./scan001.png,,1,q", "scan000.png,a,0,x"),
    )
    assert list(manifest.rows()) == [
        ("scan001.png", "b", {"y": "1.0", "z": "q"}),
        ("scan000.png", "a", {"y": "0", "z": "x"}),
    ]
    assert manifest.merged is not None
    assert manifest.merged.notes == {MERGED: 2}
    assert "t.csv: scans with several rows, which were merged: 2\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("cells", "joined"),
    [
        (("Effusion", "Edema", "Effusion"), "Effusion|Edema"),
        (("0", "1"), "0|1"),
        (("['A', 'B']", "C"), "A|B|C"),
        (("A;B", "B|C", ""), "A|B|C"),
    ],
)
def test_values_of_several_rows_are_joined_as_lists_are_read(
    make_scans: MakeScans, cells: tuple[str, ...], joined: str
) -> None:
    rows = (f'scan000.png,"{cell}"' for cell in cells)
    manifest = read(make_scans(1), "path,y", *rows)
    assert manifest.table.column("y").to_pylist() == [joined]


def test_first_rows_that_differ_are_told_as_a_spreadsheet_counts_them(
    make_scans: MakeScans,
) -> None:
    rows = ("scan000.png,0", ",", "scan001.png,1", "scan000.png,", "scan000.png,1", "scan001.png,2")
    manifest = read(make_scans(2), "path,y", *rows)
    merged = manifest.merged
    assert merged is not None
    assert merged.conflicts == {"y": Conflict(2, "scan000.png", (2, 6), ("0", "1"))}
    merged.refuse_conflicts(Path("t.csv"), ["z"])
    words = r"^t\.csv rows 2 and 6: 'y' of scan scan000\.png is '0' and '1' \(2 such scans\)"
    with pytest.raises(ScanlearnError, match=words):
        merged.refuse_conflicts(Path("t.csv"), ["z", "y"])


def test_column_of_lists_is_no_contradiction(make_scans: MakeScans) -> None:
    manifest = read(make_scans(1), "path,y", "scan000.png,A|B", "scan000.png,C")
    assert manifest.merged is not None
    assert not manifest.merged.conflicts


def test_findings_of_nih_are_counted_over_all_rows_of_a_scan(make_scans: MakeScans) -> None:
    header, rows = "Image Index,Finding Labels", ("scan000.png,Mass|Edema", "scan000.png,Hernia")
    table = read(make_scans(1), header, *rows).table
    assert table.column("Hernia").to_pylist() == table.column("Mass").to_pylist() == ["1"]


def test_no_row_of_a_long_table_is_called_unreadable(
    make_scans: MakeScans, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_scans(3)
    lines = ["path,patient_id,class_name", "scan000.png,1,Mass", "scan000.png,1,Edema"]
    (folder / "long.csv").write_text("\n".join([*lines, "scan001.png,2,Mass"]) + "\n")
    archive = pack(folder / "long.csv", tmp_path / "a", settings=PackSettings(canvas=16, workers=1))
    assert archive.labels("class_name").tolist() == ["Mass|Edema", "Mass"]
    assert archive.num_rejected == 0
    assert "values that differ were joined, in scans: class_name (1)" in capsys.readouterr().out
