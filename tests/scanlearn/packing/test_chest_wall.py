from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from scanlearn.archive.reader import Archive
from scanlearn.packing.chest_wall import MIRRORED, Side, with_wall_at
from scanlearn.packing.pack import pack
from scanlearn.packing.settings import PackSettings
from scanlearn.readers.scan import Scan

DICOM_MAMMOGRAM = "1.2.840.10008.5.1.4.1.1.1.2"


def breast(wall: Side, width: int = 40, *, top: int = 3000) -> np.ndarray:
    """Half an ellipse on black whose flat side is an edge of the picture, brightest at the wall."""
    rows, columns = np.mgrid[:96, :64] + 0.5
    inside = ((rows - 40) / 36) ** 2 + (columns / width) ** 2 <= 1
    pixels = np.where(inside, top * (1 - columns / 100), 0).astype(np.uint16)[None]
    return pixels if wall == "left" else np.ascontiguousarray(pixels[..., ::-1])


def wall_of(pixels: np.ndarray) -> Side:
    """Where the lit edge of the picture is, by the rows that it fills."""
    left, right = (int((pixels[..., column] > 0).sum()) for column in (0, -1))
    return "left" if left > right else "right"


@pytest.mark.parametrize("asked", ["left", "right"])
@pytest.mark.parametrize("wall", ["left", "right"])
@pytest.mark.parametrize("tag", [None, "L", "R"])
def test_every_drawn_breast_comes_to_face_one_way(tag: str | None, wall: Side, asked: Side) -> None:
    stored = breast(wall)
    found, notes = with_wall_at(asked, Scan(stored, laterality=tag))
    assert wall_of(found.pixels) == asked
    # The same values: as stored, or each row the other way round.
    expected = stored if wall == asked else stored[..., ::-1]
    np.testing.assert_array_equal(found.pixels, expected)
    assert (MIRRORED in notes) is (wall != asked)
    # A left breast has its wall at the left; a picture that says otherwise is told.
    contradicts = tag is not None and (tag == "L") != (wall == "left")
    assert any("the tissue counts" in note for note in notes) is contradicts


@pytest.mark.parametrize(("tag", "is_mirrored"), [("L", False), ("R", True), (None, False)])
def test_where_tissue_does_not_say_it_the_tag_does(tag: str | None, is_mirrored: bool) -> None:
    even = np.zeros((1, 32, 32), np.uint16)
    even[:, 8:24, 8:24] = 1000
    found, notes = with_wall_at("left", Scan(even, laterality=tag))
    assert (MIRRORED in notes) is is_mirrored
    assert any("left as stored" in note for note in notes) is (tag is None)
    np.testing.assert_array_equal(found.pixels, even)


def test_padding_is_no_tissue_and_is_mirrored_too() -> None:
    stored, padding = breast("right"), np.zeros((1, 96, 64), np.bool_)
    stored[..., :20], padding[..., :20] = 4000, True
    found, notes = with_wall_at("left", Scan(stored, padding=padding))
    assert notes == (MIRRORED,)
    assert found.padding is not None
    np.testing.assert_array_equal(found.padding, padding[..., ::-1])


@pytest.fixture
def mammograms(make_dicom: Callable[..., Path]) -> Path:
    """Four breasts, two of each side, as detectors store them, and a fifth that names no side."""
    sides: list[tuple[str, Side, dict[str, Any]]] = [
        ("a", "left", {"ImageLaterality": "L"}),
        ("b", "right", {"ImageLaterality": "R"}),
        ("c", "left", {"Laterality": "L"}),
        ("d", "right", {"Laterality": "R"}),
        ("e", "right", {}),
    ]
    for name, wall, tags in sides:
        made = make_dicom(
            breast(wall)[0], f"scans/{name}.dcm", SOPClassUID=DICOM_MAMMOGRAM, Modality="MG",
            PatientID=name, PixelSpacing=[0.1, 0.2], **tags,
        )  # fmt: skip
    return made.parent


def packed(source: Path, name: str, **settings: Any) -> Archive:
    return pack(
        source,
        source.parent / name,
        settings=PackSettings(canvas=96, workers=1, summary=False, **settings),
    )


def test_packing_brings_mammograms_to_one_side_and_says_which(mammograms: Path) -> None:
    plain = packed(mammograms, "plain")
    assert "mirrored" not in plain.label_columns
    assert "chest_wall" not in plain.info["settings"]
    faced = packed(mammograms, "faced", chest_wall="left")
    before, after = (archive.gather(np.arange(5)) for archive in (plain, faced))
    width = int(before.valid_box[0, 3])
    mirrored = faced.labels("mirrored").tolist()
    for row, path in enumerate(faced.paths().tolist()):
        was, now = (batch.pixels[row, ..., :width].numpy() for batch in (before, after))
        is_right = path in ("b.dcm", "d.dcm", "e.dcm")
        assert mirrored[row] == ("yes" if is_right else "no")
        np.testing.assert_array_equal(now, was[..., ::-1] if is_right else was)
        assert wall_of(now) == "left"
    assert before.spacing_mm.tolist() == after.spacing_mm.tolist()
    assert faced.info["notes"][MIRRORED] == 3
    assert faced.info["settings"]["chest_wall"] == "left"
    assert faced.content_hash != plain.content_hash
    # What is packed again, for evaluation or to be added, is packed by the archive's settings.
    assert PackSettings.model_validate(faced.info["settings"]).chest_wall == "left"


def test_pictures_without_tags_are_told_by_their_tissue(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    for wall in ("left", "right"):
        pixels = (breast(wall, top=250)[0]).astype(np.uint8)  # type: ignore[arg-type]
        Image.fromarray(pixels).save(tmp_path / "scans" / f"{wall}.png")
    archive = packed(tmp_path / "scans", "faced", chest_wall="right")
    batch = archive.gather(np.arange(2))
    width = int(batch.valid_box[0, 3])
    np.testing.assert_array_equal(batch.pixels[0], batch.pixels[1])
    assert wall_of(batch.pixels[0, ..., :width].numpy()) == "right"


def test_a_side_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="chest_wall"):
        PackSettings(chest_wall="top")  # type: ignore[arg-type]
