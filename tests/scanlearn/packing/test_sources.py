from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from scanlearn.archive.identity import read_identities, source_name
from scanlearn.errors import ScanlearnError
from scanlearn.packing.pack import pack
from scanlearn.packing.settings import PackSettings
from scanlearn.packing.sources import chosen_canvas, open_archive

MakeScans = Callable[..., Path]
SMALL = PackSettings(canvas=32)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SCANLEARN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_archive_is_opened_where_it_lies(
    make_scans: MakeScans, tmp_path: Path, cache: Path
) -> None:
    packed = pack(make_scans(3), tmp_path / "a", settings=SMALL)
    assert open_archive(tmp_path / "a").content_hash == packed.content_hash
    assert open_archive(str(tmp_path / "a")).path == tmp_path / "a"
    assert not cache.exists()


def test_folder_is_packed_into_the_cache_once_and_said_in_one_line(
    make_scans: MakeScans, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_scans(3)
    first = open_archive(folder, settings=SMALL)
    assert first.path.parent == cache
    said = [line for line in capsys.readouterr().out.splitlines() if "the cache" in line]
    assert said == [f"packing {folder} into the cache: {first.path}"]
    assert open_archive(folder, settings=SMALL).path == first.path
    assert capsys.readouterr().out == ""


def test_other_settings_or_other_files_are_packed_anew(make_scans: MakeScans) -> None:
    folder = make_scans(3)
    first = open_archive(folder, settings=SMALL)
    assert open_archive(folder, settings=PackSettings(canvas=16)).path != first.path
    same = PackSettings(canvas=32, workers=2)
    assert open_archive(folder, settings=same).path == first.path
    (folder / "scan000.png").write_bytes((folder / "scan001.png").read_bytes())
    assert open_archive(folder, settings=SMALL).path != first.path


def test_given_cache_wins(make_scans: MakeScans, tmp_path: Path, cache: Path) -> None:
    archive = open_archive(make_scans(2), settings=SMALL, cache=tmp_path / "mine")
    assert archive.path.parent == tmp_path / "mine"
    assert not cache.exists()


def test_columns_of_a_table_can_be_named(make_scans: MakeScans) -> None:
    folder = make_scans(2)
    (folder / "t.csv").write_text("where,who,y\nscan000.png,ann,1\nscan001.png,bob,0\n")
    settings = PackSettings(canvas=32, path_column="where", patient_column="who")
    archive = open_archive(folder / "t.csv", settings=settings)
    hashed = read_identities(source_name(folder))
    assert archive.patients.tolist() == [hashed.patient("ann"), hashed.patient("bob")]
    assert archive.label_columns == ("y",)


def test_path_that_leads_nowhere_is_one_clear_sentence(tmp_path: Path) -> None:
    with pytest.raises(ScanlearnError, match="no such file or folder"):
        open_archive(tmp_path / "nowhere")


def test_phantom_is_drawn_into_the_cache_once(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = open_archive("phantom:patients=2,seed=3,size=32x32")
    assert first.synthetic_phantom
    assert len(first) == 4
    assert first.path.parent == cache
    assert "into the cache" in capsys.readouterr().out
    assert open_archive("phantom:patients=2,seed=3,size=32x32").path == first.path
    assert open_archive("phantom:patients=2,seed=4,size=32x32").path != first.path


def test_real_labels_survive(real_data: Path, tmp_path: Path) -> None:
    source = real_data / "hygd" / "manifest.csv"
    archive = open_archive(source, settings=SMALL, cache=tmp_path)
    assert archive.shape == (3, 32, 32)
    assert len(set(archive.patients)) == 288
    assert archive.labels("glaucoma").tolist().count("1") == 548


def test_folder_per_class_is_packed_with_its_label(make_scans: MakeScans, cache: Path) -> None:
    folder = make_scans(2)
    (folder / "mild").mkdir()
    (folder / "severe").mkdir()
    (folder / "scan000.png").rename(folder / "mild" / "x.png")
    (folder / "scan001.png").rename(folder / "severe" / "x.png")
    settings = PackSettings(canvas=32, folder_labels=True)
    assert open_archive(folder, settings=settings).labels("folder").tolist() == ["mild", "severe"]
    assert open_archive(folder, settings=PackSettings(canvas=32)).label_columns == ()


@pytest.mark.parametrize(
    ("sizes", "canvas"),
    [
        ([(100, 100)], 50),
        ([(40, 40)], 50),
        ([(100, 246), (100, 100)], (50, 123)),
        ([(246, 100), (100, 150)], (123, 75)),
        ([(100, 246), (246, 100)], 123),
        # A scan that is small keeps its size, and a strip does not widen the canvas for all.
        ([(30, 74)], (30, 74)),
        ([(100, 100), (10, 900)], (50, 200)),
    ],
)
def test_a_canvas_by_the_shorter_side_holds_every_scan(
    sizes: list[tuple[int, int]], canvas: int | tuple[int, int], tmp_path: Path
) -> None:
    folder = tmp_path / "scans"
    folder.mkdir()
    for number, (height, width) in enumerate(sizes):
        Image.new("L", (width, height), 9).save(folder / f"{number}.png")
    (folder / "broken.png").write_text("no picture")
    assert chosen_canvas(folder, 50, PackSettings()) == canvas
    boxes = open_archive(folder, settings=PackSettings(canvas=canvas)).facts["valid_box"][:, 2:]
    for (height, width), box in zip(sizes, boxes.tolist(), strict=True):
        assert min(box) >= (2 if width == 900 else min(50, height, width))
    assert chosen_canvas(folder, 50, PackSettings(fit="crop")) == 50


def test_a_canvas_is_chosen_only_where_scans_are_packed(tmp_path: Path) -> None:
    Image.new("L", (90, 40), 9).save(tmp_path / "a.png")
    packed = pack(tmp_path, tmp_path / "packed", settings=PackSettings(canvas=32))
    assert chosen_canvas(packed.path, 50, PackSettings()) == 50
    assert chosen_canvas("phantom:patients=2,seed=0,size=20x40", 50, PackSettings()) == 50
