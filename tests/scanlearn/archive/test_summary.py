from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from scanlearn.archive.layout import Origin, PackedScan, Spacing, ValueRange
from scanlearn.archive.reader import Archive
from scanlearn.archive.summary import (
    BINS,
    PAGE_FILE,
    SHEET_FILE,
    Duplicates,
    overview,
    summary,
)
from scanlearn.archive.withdraw import withdraw
from scanlearn.archive.writer import ArchiveWriter
from scanlearn.packing.add import add
from scanlearn.packing.pack import pack
from scanlearn.packing.settings import PackSettings

MakeScans = Callable[..., Path]
SMALL = PackSettings(canvas=32, workers=1)


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]


def parsed(page: Path) -> _Text:
    parser = _Text()
    parser.feed(page.read_text("utf-8"))
    return parser


def text(page: Path) -> str:
    return " ".join(" ".join(parsed(page).words).split())


def write(
    path: Path, labels: list[str], *, patients: int = 6, name: str = "y", **settings: bool
) -> Archive:
    rng = np.random.default_rng(0)
    with ArchiveWriter(
        path, shape=(1, 16, 16), dtype=np.uint8, label_columns=(name,), **settings
    ) as writer:
        for index, label in enumerate(labels):
            pixels = rng.integers(0, 256, (1, 16, 16)).astype(np.uint8)
            patient = f"secret-{index % patients}"
            writer.add(PackedScan(pixels), Origin(f"hidden-{index}", patient, {name: label}))
        return writer.close()


def test_pack_writes_page_and_sheet_that_the_command_writes_again(
    make_scans: MakeScans, tmp_path: Path
) -> None:
    archive = pack(make_scans(5), tmp_path / "a", settings=SMALL)
    files = [archive.path / name for name in ("summary.html", "contact_sheet.png")]
    before = [file.read_bytes() for file in files]
    assert summary(str(archive.path)) == files[0]
    assert [file.read_bytes() for file in files] == before


def test_pack_writes_neither_where_that_is_asked_for(make_scans: MakeScans, tmp_path: Path) -> None:
    settings = SMALL.model_copy(update={"summary": False})
    archive = pack(make_scans(2), tmp_path / "a", settings=settings)
    assert not list(archive.path.glob("*.html"))
    assert not list(archive.path.glob("*.png"))


def test_page_tells_counts_sizes_and_what_was_done(make_scans: MakeScans, tmp_path: Path) -> None:
    folder = make_scans(5)
    (folder / "bad.png").write_text("no image")
    page = text(summary(pack(folder, tmp_path / "a", settings=SMALL)))
    for words in (
        "5 packed scans", "1 × 32 × 32 pixels, uint8", "1 scan was set aside",
        "Patients are unknown", "32 × 27 5 100.0 %", "100.0 % of the scans are padded",
        "is not a PNG, JPEG, TIFF, WebP or BMP image 1", "canvas 32", "Spacing is unknown",
        "No two scans are equal",
    ):  # fmt: skip
        assert words in page


def test_page_counts_patients_classes_and_duplicates(tmp_path: Path) -> None:
    archive = write(tmp_path / "a", ["0", "1", "1"] * 8)
    page = text(summary(archive))
    for words in ("24 packed scans of 6 patients", "3 to 5 6 100.0 %", "Column y"):
        assert words in page
    assert "1 16 66.7 % 0 8 33.3 %" not in page  # Value 0 is of two patients only.
    page = text(summary(write(tmp_path / "b", ["0", "1", "1"] * 8, patients=24)))
    assert "1 16 66.7 % 0 8 33.3 %" in page


def test_page_names_no_patient_no_scan_and_no_value_of_few_patients(tmp_path: Path) -> None:
    names = [f"Smith {index % 6}" for index in range(24)]
    page = summary(write(tmp_path / "Jones-family", names)).read_text("utf-8")
    assert not re.search("secret|hidden|Smith|Jones", page)
    assert "6 distinct values" in page


def test_text_of_a_table_is_escaped(tmp_path: Path) -> None:
    archive = write(
        tmp_path / "a", ["<script>1</script>"] * 24, patients=24, name="<img src=x onerror=1>"
    )
    page = summary(archive)
    found = parsed(page)
    assert "script" not in found.tags
    assert found.tags.count("img") == 1
    assert "<script>1</script>" in text(page)


def test_reasons_are_told_without_what_stands_in_brackets(tmp_path: Path) -> None:
    with ArchiveWriter(tmp_path / "a", shape=(1, 4, 4), dtype=np.uint8) as writer:
        writer.add(PackedScan(np.zeros((1, 4, 4), np.uint8)), Origin("a", "p"))
        writer.reject("b", "is cut short or damaged (Miller, John)")
        archive = writer.close()
    page = text(summary(archive))
    assert "is cut short or damaged … 1" in page
    assert "Miller" not in page


def test_page_loads_nothing(tmp_path: Path) -> None:
    found = parsed(summary(write(tmp_path / "a", ["0"] * 4)))
    assert [link[:22] for link in found.links] == ["data:image/png;base64,"]
    assert not {"script", "link", "iframe"} & set(found.tags)


def test_a_copied_archive_has_the_same_summary(tmp_path: Path) -> None:
    archive = write(tmp_path / "a", ["0", "1"] * 6)
    shutil.copytree(archive.path, tmp_path / "b")
    pages = [summary(tmp_path / name).read_bytes() for name in "ab"]
    assert hashlib.sha256(pages[0]).digest() == hashlib.sha256(pages[1]).digest()


def test_a_histogram_of_some_scans_says_so(tmp_path: Path) -> None:
    archive = write(tmp_path / "a", ["0"] * 24)
    assert "the histogram is of 8 scans, spread evenly" in text(summary(archive, scans=8))
    assert "the histogram is of all scans" in text(summary(archive))


def test_an_archive_inside_its_source_is_no_source_of_scans(make_scans: MakeScans) -> None:
    folder = make_scans(3)
    archive = pack(folder, folder / "packed", settings=SMALL)
    assert (archive.path / "contact_sheet.png").is_file()
    assert len(pack(folder, folder / "again", settings=SMALL)) == 3


Box = tuple[int, int, int, int]


def write_scans(
    path: Path,
    scans: np.ndarray,
    patients: list[str] | None = None,
    box: Box | None = None,
    value_range: tuple[float, float] | None = None,
    **settings: bool,
) -> Archive:
    with ArchiveWriter(path, shape=scans.shape[1:], dtype=scans.dtype, **settings) as writer:
        for index, one in enumerate(scans):
            patient = (patients or ["p"] * len(scans))[index]
            writer.add(
                PackedScan(one, box, value_range and ValueRange(*value_range), Spacing(0.5, 0.25)),
                Origin(f"s{index}", patient),
            )
        return writer.close()


def noise(rng: np.random.Generator, number: int) -> np.ndarray:
    return rng.integers(0, 256, (number, 1, 40, 48)).astype(np.uint8)


def test_boxes_ranges_and_spacing_are_those_of_every_scan(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    found = overview(
        write_scans(tmp_path / "a", noise(rng, 5), box=(0, 0, 20, 48), value_range=(10, 90))
    )
    assert found.sizes.tolist() == [[20, 48]] * 5
    assert found.padded.tolist() == [0.5] * 5
    assert found.value_range.tolist() == [[10, 90]] * 5
    assert found.spacing_mm.tolist() == [[0.5, 0.25]] * 5


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_intensities_are_unit_values_inside_the_box(tmp_path: Path, dtype: type) -> None:
    scans = np.zeros((2, 2, 8, 8), dtype)
    scans[:, 0, :4], scans[:, 1, :4] = 100, 149
    found = overview(write_scans(tmp_path / "a", scans, box=(0, 0, 4, 8), value_range=(100, 150)))
    expected = np.zeros((2, BINS), np.int64)
    expected[0, 0] = expected[1, int(49 / 50 * BINS)] = 2 * 4 * 8
    np.testing.assert_array_equal(found.histogram, expected)


def test_values_outside_the_range_count_at_the_ends(tmp_path: Path) -> None:
    scans = np.zeros((1, 1, 4, 4), np.uint8)
    scans[0, 0, 2:] = 200
    found = overview(write_scans(tmp_path / "a", scans, value_range=(50, 150)))
    assert found.histogram[0, [0, -1]].tolist() == [8, 8]


def test_equal_scans_are_found_and_whether_patients_share_them(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    scans = noise(rng, 7)
    scans[3], scans[5], scans[6] = scans[0], scans[0], scans[1]
    found = overview(write_scans(tmp_path / "a", scans, ["a", "b", "c", "a", "d", "e", "b"]))
    assert found.duplicates == Duplicates(groups=2, scans=5, shared=1)


def test_scans_that_differ_in_one_pixel_are_no_duplicates(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    scans = np.repeat(noise(rng, 1), 128, axis=0)
    scans.reshape(128, -1)[np.arange(128), np.arange(128) * 15] ^= 1
    assert overview(write_scans(tmp_path / "a", scans)).duplicates == Duplicates(
        groups=0, scans=0, shared=0
    )


def test_sharing_is_unknown_where_patients_are(tmp_path: Path, rng: np.random.Generator) -> None:
    scans = noise(rng, 1).repeat(2, axis=0)
    found = overview(write_scans(tmp_path / "a", scans, patients_known=False))
    assert found.duplicates == Duplicates(groups=1, scans=2, shared=None)


def test_histogram_of_some_is_spread_over_the_archive(tmp_path: Path) -> None:
    scans = np.arange(40, dtype=np.uint8).reshape(40, 1, 1, 1).repeat(4, axis=3)
    archive = write_scans(tmp_path / "a", scans, value_range=(0, 40))
    found = overview(archive, 10)
    assert found.num_counted == 10
    assert len(found.sizes) == 40
    rows = np.ceil(np.flatnonzero(found.histogram[0]) * 40 / BINS)
    assert np.array_equal(rows // 4, np.arange(10))
    assert overview(archive, 0).num_counted == overview(archive, 1000).num_counted == 40


class Killed(BaseException):
    """Ends a command as a kill does: nothing catches it."""


@pytest.mark.parametrize("command", ["pack", "add", "withdraw"])
def test_a_page_that_a_kill_kept_from_being_made_is_made_at_the_next_start(
    command: str, make_scans: MakeScans, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There was none for good after pack and withdraw, and the one of before after add."""
    more = make_scans(4, "more")
    shutil.copytree(more, tmp_path / "scans")
    (tmp_path / "scans" / "scan003.png").unlink()

    def work(target: Path) -> None:
        if command == "pack":
            pack(tmp_path / "scans", target, settings=SMALL)
        elif command == "add":
            add(target, tmp_path / "scans", settings=PackSettings(workers=1))
        else:
            withdraw(target, ["scan001.png"], issuer="scans")

    def prepare(target: Path) -> None:
        if command != "pack":
            pack(tmp_path / "scans", target, settings=SMALL)

    prepare(tmp_path / "whole")
    prepare(tmp_path / "a")
    if command == "add":
        shutil.copy(more / "scan003.png", tmp_path / "scans")
    work(tmp_path / "whole")
    with monkeypatch.context() as patch:

        def die(archive: Archive, scans: int) -> Path:
            raise Killed

        patch.setattr("scanlearn.archive.summary._write", die)
        with pytest.raises(Killed):
            work(tmp_path / "a")
    work(tmp_path / "a")
    for name in (PAGE_FILE, SHEET_FILE):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert len(Archive(tmp_path / "a")) == {"pack": 3, "add": 4, "withdraw": 2}[command]


def test_an_archive_packed_without_a_page_gets_none(make_scans: MakeScans, tmp_path: Path) -> None:
    folder = make_scans(3)
    settings = PackSettings(canvas=32, workers=1, summary=False)
    archive = pack(folder, tmp_path / "a", settings=settings)
    withdraw(archive.path, ["scan001.png"], issuer="scans")
    assert not (archive.path / PAGE_FILE).exists()
