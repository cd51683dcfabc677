from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from scanlearn.archive.reader import Archive
from scanlearn.archive.spellings import (
    has_spellings,
    respelled_across,
    respelled_within,
)
from scanlearn.archive.withdraw import withdraw
from scanlearn.audit.audit import audit
from scanlearn.errors import ScanlearnError
from scanlearn.packing.add import add
from scanlearn.packing.pack import pack
from scanlearn.packing.settings import PackSettings

Packed = Callable[[str, Sequence[str]], Archive]
SMALL = PackSettings(canvas=16, workers=1, summary=False)


@pytest.fixture
def packed(tmp_path: Path) -> Packed:
    """Packs scans of patients whose numbers are given, as of one site."""

    def make(name: str, numbers: Sequence[str]) -> Archive:
        return pack(table(tmp_path / "site", name, numbers), tmp_path / name, settings=SMALL)

    return make


def table(folder: Path, name: str, numbers: Sequence[str]) -> Path:
    rng = np.random.default_rng(len(name) + sum(map(ord, name)))
    folder.mkdir(exist_ok=True)
    lines = ["path;patient"]
    for row, number in enumerate(numbers):
        Image.fromarray(rng.integers(0, 256, (16, 16)).astype(np.uint8)).save(
            folder / f"{name}{row}.png"
        )
        lines.append(f"{name}{row}.png;{number}")
    (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")
    return folder / f"{name}.csv"


def without_spellings(archive: Archive) -> Archive:
    """Returns the archive as an earlier release packed it."""
    rows = pq.read_table(archive.table).drop_columns(["spelling"])
    pq.write_table(rows, archive.table)
    info = json.loads((archive.path / "archive.json").read_text())
    info["manifest"] = {"file": archive.table.name, "bytes": archive.table.stat().st_size}
    del info["issuer_given"], info["sha256"]
    (archive.path / "archive.json").write_text(json.dumps(info))
    return Archive(archive.path)


def test_patients_of_one_archive_that_agree_are_counted_with_the_first(packed: Packed) -> None:
    archive = packed("a", ["7", "B1", "007", "8", "7.0", "b1", "7"])
    respelled = respelled_within(archive)
    assert respelled is not None
    assert respelled.num_patients == 3
    assert respelled.paths == ("a0.png", "a2.png")
    assert respelled.scans == (archive.scan_ids[0], archive.scan_ids[2])
    assert respelled_within(archive, np.array([0, 1, 3, 6])) is None


def test_patients_of_two_archives_that_agree_are_counted_once(packed: Packed) -> None:
    first, second = packed("a", ["00061", "00062", "63"]), packed("b", ["61", "61", "62.0", "63"])
    respelled = respelled_across(first, second)
    assert respelled is not None
    assert respelled.num_patients == 2
    assert respelled.paths == ("a0.png", "b0.png")
    assert respelled_across(first, first) is None


def test_equal_numbers_of_other_issuers_do_not_agree(tmp_path: Path) -> None:
    archives = [
        pack(table(tmp_path / issuer, issuer, [number]), tmp_path / f"{issuer}.a", settings=SMALL)
        for issuer, number in (("north", "61"), ("south", "061"))
    ]
    assert respelled_across(*archives) is None


def test_an_earlier_archive_opens_and_the_audit_says_what_was_not_checked(packed: Packed) -> None:
    earlier = without_spellings(packed("a", ["001", "002"]))
    labels = packed("b", ["1", "2"])
    assert has_spellings(labels)
    assert not has_spellings(earlier)
    assert respelled_across(earlier, labels) is None
    (note,) = audit(earlier.path, [labels.path]).comparisons[0].notes
    assert "was not checked: archive was packed by an earlier release" in note


@pytest.mark.parametrize("written", ["1", "1.0"])
def test_the_audit_warns_of_patients_that_a_spreadsheet_rewrote(
    packed: Packed, written: str, capsys: pytest.CaptureFixture[str]
) -> None:
    first = packed("a", ["00001", "00002", "00003"])
    second = packed("b", [written, written.replace("1", "2"), "00003x"])
    found = audit(first.path, [second.path])
    told = capsys.readouterr()
    assert not found.is_invalid
    assert told.err.count("Warning") == 1
    assert "2 patients agree with another but for leading zeros" in told.err
    assert "(first a0.png and b0.png)" in told.err
    assert "No leak was found" not in told.out
    assert "2 patients of archive and labels may be the same people" in told.out
    facts = found.comparisons[0].facts()
    assert facts["respelled"] == 2
    assert ".png" not in json.dumps(facts)


def test_folders_of_two_names_are_not_said_to_share_nothing(tmp_path: Path) -> None:
    sources = [table(tmp_path / where, where, ["1", "2"]) for where in ("north", "south")]
    for source in sources:
        pack(source, tmp_path / f"{source.stem}.a", settings=SMALL)
    found = audit(tmp_path / "north.a", [tmp_path / "south.a"])
    assert found.comparisons[0].num_patients is None
    assert "patients of archive and labels were not compared" in found.verdict()
    assert not found.is_invalid
    # Two issuers that somebody named are two sites: nothing is shared, and that is said.
    for source, issuer in zip(sources, ("n", "s"), strict=True):
        pack(source, tmp_path / issuer, settings=SMALL.model_copy(update={"issuer": issuer}))
    found = audit(tmp_path / "n", [tmp_path / "s"])
    assert found.comparisons[0].num_patients == 0
    assert found.verdict() == "No leak was found."


def test_withdrawing_tells_of_another_spelling_and_keeps_it_from_coming_back(
    packed: Packed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = packed("a", ["61", "00061", "7"])
    withdraw(archive.path, ["61"], issuer="site")
    assert "1 patient agrees with another but for leading zeros" in capsys.readouterr().err
    withdraw(archive.path, ["00061"], issuer="site")
    grown = add(archive.path, table(tmp_path / "site", "b", ["61.0", "8"]))
    assert len(grown) == 2
    assert "was withdrawn: left out" in capsys.readouterr().err
    with pytest.raises(ScanlearnError, match="holds no patient"):
        withdraw(archive.path, ["9"], issuer="site")
