from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from scanlearn.errors import ScanlearnError
from scanlearn.packing.pack import pack
from scanlearn.packing.settings import PackSettings
from scantune.labels.open import (
    LabeledArchives,
    Question,
    open_archives,
    read_question,
    single_columns,
)

PACKING = PackSettings(canvas=16, workers=1)
Table = Callable[..., Path]


@pytest.fixture(autouse=True)
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCANLEARN_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def write_table(tmp_path: Path) -> Table:
    """Writes scans of noise and their table: a header, then a row for each scan after its path."""

    def write(name: str, header: str, rows: list[str], seed: int = 0) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        pixels = np.random.default_rng(seed).integers(0, 255, (len(rows), 8, 8)).astype(np.uint8)
        for number, image in enumerate(pixels):
            Image.fromarray(image).save(folder / f"{number}.png")
        lines = [f"path,{header}", *(f"{number}.png,{row}" for number, row in enumerate(rows))]
        (folder / "t.csv").write_text("\n".join(lines) + "\n")
        return folder / "t.csv"

    return write


def opened(labels: Any, test: Any = None, **asked: Any) -> LabeledArchives:
    question = Question(**{"target": "y", **asked})
    return read_question(open_archives(labels, test, PACKING), question, labels, test)


def test_what_is_masked_left_out_or_synthetic_is_said(
    write_table: Table, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ["p,1,0,", "q,0,1,", "q,-1,1,", "r,,1,", "s,,,", "t,-1,,", "q,1,1,yes"]
    table = write_table("a", "patient,A,B,made", rows)
    found = opened(table, target=("A", "B"), synthetic_column="made")
    said = capsys.readouterr().out
    assert (
        "A, B: 4 scans of 3 patients by finding (A: 1 (2 unknown), B: 3); 1 without a label left "
        "out; 1 uncertain (-1) left out; 1 synthetic, for training only"
    ) in said
    assert "unknown findings are masked: 1 blank, 1 uncertain (-1)" in said
    assert found.described["synthetic"] == 1
    assert found.described["task"] == "multilabel"


def test_unknown_patients_are_told_and_not_counted(
    write_table: Table, capsys: pytest.CaptureFixture[str]
) -> None:
    found = opened(write_table("a", "y", ["0", "1", "0", "1"]))
    said = capsys.readouterr()
    assert "y: 4 scans, patients unknown; each scan counted as one (0: 2, 1: 2)" in said.out
    assert "no patient column was found" in said.err
    assert found.caveats == (
        "patients unknown; each scan counted as one: one person's scans may train and be tested",
    )


@pytest.mark.parametrize(
    ("labels", "options", "name"),
    [
        (["0", "1", "0", "1"], {}, "binary"),
        (["0", "1", "2", "0", "1", "2"], {}, "multiclass"),
        (["0", "1", "2", "0", "1", "2"], {"ordinal": True}, "ordinal"),
    ],
)
def test_a_task_of_two_classes_is_binary(
    write_table: Table, labels: list[str], options: dict[str, bool], name: str
) -> None:
    assert opened(write_table("a", "y", labels), **options).described["task"] == name


def test_a_second_class_without_the_finding_is_warned_of(
    write_table: Table, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write_table("a", "patient,y", ["p,ja", "q,nein", "r,ja", "s,nein"])
    assert opened(table).labeled.classes == ("ja", "nein")
    told = capsys.readouterr().err
    assert "are those of 'nein', the second of its two classes; classes=[nein,ja]" in told
    assert opened(table, classes=("nein", "ja")).labeled.classes == ("nein", "ja")
    opened(write_table("b", "patient,y", ["p,normal", "q,virus", "r,normal", "s,virus"]))
    assert "second of its two classes" not in capsys.readouterr().err


def test_a_class_of_scans_of_which_nothing_is_known_is_warned_of(
    write_table: Table, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write_table(
        "a", "patient,y", [f"{p},{y}" for p, y in enumerate(("mild", "severe", "Unknown") * 2)]
    )
    assert opened(table).labeled.classes == ("Unknown", "mild", "severe")
    told = capsys.readouterr().err
    assert "y: 'Unknown' (2 scans) is taken for a class; if it says that a scan's class" in told
    opened(table, classes=("Unknown", "mild", "severe"))
    assert "is taken for a class" not in capsys.readouterr().err


def test_both_sets_of_an_external_test_are_said(
    write_table: Table, capsys: pytest.CaptureFixture[str]
) -> None:
    first = write_table("a", "patient,y", ["p,0", "q,1"])
    second = write_table("b", "patient,y", ["r,1", "s,0", "s,0"], seed=1)
    found = opened(first, second)
    said = capsys.readouterr().out
    assert "y: 2 scans of 2 patients (0: 1, 1: 1)" in said
    assert "test set, y: 3 scans of 2 patients (0: 2, 1: 1)" in said
    assert len(found.archives) == 2
    assert found.described["test"] == found.archives[1].content_hash
    assert len(found.labeled) == 5


def test_scans_that_cannot_be_read_are_told(write_table: Table) -> None:
    table = write_table("a", "patient,y", ["p,0", "q,1", "r,1", "s,0", "t,0"])
    (table.parent / "4.png").unlink()
    assert opened(table).caveats == ("could not be read and left out: 1 scan",)


def test_a_given_split_and_an_external_test_exclude_each_other(write_table: Table) -> None:
    first = write_table("a", "patient,y,side", ["p,0,train", "q,1,test"])
    with pytest.raises(ScanlearnError, match="test and split_column both say"):
        opened(first, first, split_column="side")


def test_the_labels_are_no_external_test_of_themselves(write_table: Table) -> None:
    table = write_table("a", "patient,y", ["p,0", "q,1"])
    with pytest.raises(ScanlearnError, match="2 of 2 patients of the test set"):
        opened(table, table)
    unknown = write_table("b", "y", ["0", "1"])
    with pytest.raises(
        ScanlearnError, match="2 of 2 scans of the test set equal labeled training scans"
    ):
        opened(unknown, unknown)


LONG = "path,patient,y,grade\n" + "".join(
    f"{number}.png,p{number},{first},2\n{number}.png,p{number},{second},2.0\n"
    for number, (first, second) in enumerate([("A", "A"), ("B", "C"), ("A", "B"), ("C", "C")])
)


def long_table(write_table: Table) -> Path:
    table = write_table("long", "patient", ["p"] * 4)
    table.write_text(LONG)
    return table


def asked_of(table: Path, packing: PackSettings = PACKING, **asked: Any) -> LabeledArchives:
    question = Question(**{"target": "y", **asked})
    single = single_columns([question.target], question.multilabel, question.split_column)
    return read_question(open_archives(table, None, packing, single), question, table)


def test_rows_that_contradict_each_other_are_an_error_before_anything_is_packed(
    write_table: Table, capsys: pytest.CaptureFixture[str]
) -> None:
    table = long_table(write_table)
    message = r"^t\.csv rows 4 and 5: 'y' of scan 1\.png is 'B' and 'C' \(2 such scans\); correct"
    for asked in ({}, {"target": ("y", "grade")}, {"target": "grade", "split_column": "y"}):
        with pytest.raises(ScanlearnError, match=message):
            asked_of(table, **asked)
    assert "packing" not in capsys.readouterr().out


def test_rows_of_findings_are_merged_where_a_scan_may_have_several(write_table: Table) -> None:
    found = asked_of(long_table(write_table), multilabel=True)
    assert found.labeled.classes == ("A", "B", "C")
    assert found.labeled.truth.matrix.tolist() == [[1, 0, 0], [0, 1, 1], [1, 1, 0], [0, 0, 1]]
    assert found.caveats == ()


def test_archive_of_rows_that_differ_is_not_taken_for_findings_unasked(
    write_table: Table, tmp_path: Path
) -> None:
    archive = pack(long_table(write_table), tmp_path / "packed", settings=PACKING)
    with pytest.raises(ScanlearnError, match=r"^packed \(scan .*rows of this scan say 'B' and 'C'"):
        asked_of(archive.path)
    assert asked_of(archive.path, multilabel=True).labeled.classes == ("A", "B", "C")


@pytest.mark.parametrize("listed", ["A|B", "A;B", "['A', 'B']", '["B", "A"]'])
def test_cells_that_list_findings_are_found_to_do_so(write_table: Table, listed: str) -> None:
    first = f'p,"{listed}"'.replace('["B", "A"]', '[""B"", ""A""]')
    found = opened(write_table("a", "patient,y", [first, "q,A", "r,C", "s,B", "t,C"]))
    assert found.labeled.truth.task == "multilabel"
    assert found.labeled.classes == ("A", "B", "C")
    assert found.labeled.truth.matrix[:3].tolist() == [[1, 1, 0], [1, 0, 0], [0, 0, 1]]


def test_decimal_commas_are_numbers(write_table: Table) -> None:
    table = write_table("a", "patient;y", [])
    for number in range(4):
        Image.fromarray(np.full((8, 8), number, np.uint8)).save(table.parent / f"{number}.png")
    table.write_text("path;patient;y\n0.png;p;1,0\n1.png;q;0,0\n2.png;r;1\n3.png;s;0\n")
    assert opened(table).labeled.classes == ("0", "1")
    table.write_text("path;patient;y\n0.png;p;0,5\n1.png;q;0,0\n2.png;r;1\n")
    with pytest.raises(ScanlearnError, match=r"such as '0,5', which do not look like classes"):
        opened(table)


def test_patients_written_in_two_ways_are_one_caveat(write_table: Table) -> None:
    first = write_table("a", "patient,y", ["1,0", "001,1", "2,0", "3,1", "3.0,0"])
    (note,) = (note for note in opened(first).caveats if "agree" in note)
    assert note.startswith("2 patients agree with another but for leading zeros")
    assert "may be in both training and test" in note
    assert ".png" not in note
    folder = first.parent
    rows = "".join(f"{row}.png,{row},{row % 2}\n" for row in range(1, 5))
    (folder / "u.csv").write_text("path,patient,y\n" + rows)
    assert not any("agree" in note for note in opened(folder / "u.csv").caveats)


def test_patients_of_a_test_set_written_in_another_way_are_one_caveat(write_table: Table) -> None:
    site = PACKING.model_copy(update={"issuer": "site"})
    first = write_table("a", "patient,y", ["001,0", "002,1", "003,0"])
    second = write_table("b", "patient,y", ["1,1", "2.0,0", "4,0"], seed=1)
    question = Question(target="y")
    found = read_question(open_archives(first, second, site), question, first, second)
    (note,) = (note for note in found.caveats if "agree" in note)
    assert note.startswith("of the test set 2 patients agree with another but for leading zeros")


def test_a_target_that_looks_like_an_identity_is_kept_since_it_is_named(
    write_table: Table, tmp_path: Path
) -> None:
    table = write_table("a", "patient,report", ["p,0", "q,1", "r,0", "s,1"])
    packing = PACKING.model_copy(update={"allow_columns": Question(target="report").columns})
    asked = Question(target="report")
    archives = open_archives(table, None, packing)
    assert read_question(archives, asked, table).labeled.num_scans == 4
    (table.parent / "t.csv").write_text(
        "path,patient,report,y\n" + "".join(f"{row}.png,{row},{row % 2},1\n" for row in range(4))
    )
    archive = pack(table, tmp_path / "packed", settings=PACKING)
    with pytest.raises(ScanlearnError, match=r"unless allow_columns=\[report\] is given"):
        opened(archive.path, target="report")
