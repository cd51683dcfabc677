from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scanlearn.archive.reader import Archive
from scanlearn.errors import ScanlearnError
from scanlearn.packing.sources import open_archive
from scanlearn.views.extra_settings import ExtraConfig, build_extras
from scanlearn.views.preview import (
    Sheet,
    SheetGrid,
    arm_sheet,
    colour_of,
    named_columns,
    preview,
    preview_sheet,
)
from scanlearn.views.recipes import find_recipe
from scanlearn.views.scale import Scale
from scanlearn.views.settings import RenderSettings


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    folder = tmp_path_factory.mktemp("scans")
    rng = np.random.default_rng(0)
    for number in range(4):
        pixels = rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return open_archive(folder, cache=tmp_path_factory.mktemp("cache"))


def test_a_sheet_shows_each_scan_once_and_two_views_per_scale(archive: Archive) -> None:
    figure = preview_sheet(archive, scales=[0, "weak", 1.0], scans=3, size=32)
    assert len(figure.axes) == 3 * (1 + 3 * 2)
    texts = [text.get_text() for text in figure.texts]
    for title in ("identity 0", "weak 0.5", "strong 1"):
        assert title in texts
    # Two crop boxes per scale on each original.
    assert [len(axes.patches) for axes in figure.axes[:3]] == [6, 6, 6]


def test_local_views_stand_beside_the_global_ones(archive: Archive) -> None:
    figure = preview_sheet(archive, recipe="dino", scales=[0, "weak"], scans=3, size=56)
    # Twice the scan, for the crops of either kind, and four views in each column.
    assert len(figure.axes) == 3 * (2 + 2 * 4)
    assert [len(axes.patches) for axes in figure.axes[:6]] == [4] * 6
    sides = {np.asarray(axes.images[0].get_array()).shape[0] for axes in figure.axes[6:]}
    assert sides == {56, 24}
    widths = [axes.get_position().width for axes in figure.axes[6:]]
    assert min(widths) == pytest.approx(max(widths) * 96 / 224, rel=1e-6)


def test_a_column_says_what_its_views_share(archive: Archive) -> None:
    texts = [text.get_text() for text in preview_sheet(archive, scales=[0, 1], scans=1).texts]
    assert any(text.startswith("two views: IoU 1.00") for text in texts)
    assert any(text.startswith("two views: IoU 0.4") for text in texts)
    dino = preview_sheet(archive, recipe="dino", scales=[1], scans=1)
    starts = {text.get_text().split(":")[0] for text in dino.texts}
    assert {"global/global", "global/local", "local/local"} <= starts


def test_what_was_set_by_hand_is_said(archive: Archive) -> None:
    recipe = find_recipe("simclr").adjusted({"rotation_deg": [7, 15], "gray": "off"})
    texts = preview_sheet(archive, recipe=recipe, scales=[1], scans=1).texts
    said = " ".join(text.get_text() for text in texts)
    assert "Recipe simclr, by hand: rotation_deg 7/15, gray off" in said


def test_a_policy_has_rows_of_its_own_below_the_recipe(archive: Archive) -> None:
    pure = find_recipe("simclr")
    sheet = Sheet(pure.under("xray"), 32, 0, RenderSettings(), beside=pure)
    columns = named_columns([0.5, 1.0])
    figure = sheet.draw(archive, columns, 2)
    labels = [text for text in figure.texts if text.get_text().startswith("scan ")]
    labels.sort(key=lambda text: -text.get_position()[1])
    assert [text.get_text().split("\n")[1] for text in labels] == ["simclr", "xray"] * 2
    figure.canvas.draw()
    left = min(axes.get_window_extent().x0 for axes in figure.axes)
    assert all(0 < text.get_window_extent().x1 < left for text in labels)
    pictures = {
        tuple(np.round(axes.get_position(original=True).bounds, 6)): np.asarray(
            axes.images[0].get_array()
        )
        for axes in figure.axes
    }
    assert len(pictures) == 2 * 2 * (1 + 2 * 2)
    # From above: the recipe alone, the policy alone, for the first scan and for the second.
    heights = sorted({bounds[1] for bounds in pictures}, reverse=True)
    for line, recipe in enumerate((pure, pure.under("xray"))):
        alone = Sheet(recipe, 32, 0, RenderSettings()).draw(archive, columns, 2)
        expected = [np.asarray(axes.images[0].get_array()) for axes in alone.axes]
        for scan in range(2):
            row = sorted(bounds for bounds in pictures if bounds[1] == heights[2 * scan + line])
            assert (pictures[row[0]] == expected[scan]).all()
            for place, number in zip(row[1:], (0, 1, 2, 3), strict=True):
                column, view = divmod(number, 2)
                there = 2 + column * 4 + view * 2 + scan
                assert (pictures[place] == expected[there]).all()
    said = " ".join(text.get_text() for text in figure.texts)
    assert "simclr: crops ≥23%" in said
    assert "xray: crops ≥41%" in said


def test_operations_and_unscaled_blur_change_the_views(archive: Archive) -> None:
    def views(**change: object) -> list[np.ndarray]:
        figure = preview_sheet(archive, scales=[1.0], scans=4, size=32, **change)  # type: ignore[arg-type]
        return [np.asarray(axes.images[0].get_array()) for axes in figure.axes[4:]]

    plain = views()
    turned = views(recipe=find_recipe("simclr").adjusted({"rotation_deg": 40}))
    blurred = views(settings=RenderSettings(scale_blur=False))
    assert all((a != b).any() for a, b in zip(plain, turned, strict=True))
    assert any((a != b).any() for a, b in zip(plain, blurred, strict=True))


def test_a_sheet_of_arms_names_them_and_spells_out_sub_dials(archive: Archive) -> None:
    arms = {"calm": Scale.WEAK, "crops only": Scale(1, 0, 0)}
    texts = [text.get_text() for text in arm_sheet(archive, arms, scans=9).texts]
    assert "calm 0.5" in texts
    assert "crop 1, geometry 0, photometric 0" in texts


def test_the_same_seed_gives_the_same_sheet(archive: Archive) -> None:
    first, again, other = (
        [np.asarray(axes.images[0].get_array()) for axes in figure.axes]
        for figure in (preview_sheet(archive, scans=2, size=16, seed=seed) for seed in (3, 3, 4))
    )
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_a_preview_is_written_where_it_was_asked_for(archive: Archive, tmp_path: Path) -> None:
    target = tmp_path / "sheets" / "sheet.png"
    assert preview(archive.path, output=target, scales=(0, 1), scans=2, size=16) == target
    with Image.open(target) as picture:
        assert min(picture.size) > 200


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scales": ("weakk",)}, "did you mean 'weak'"),
        ({"scales": ()}, "scales: none given"),
        ({"scans": 0}, "scans: 0"),
        ({"output": Path("sheet.bmp")}, "'sheet.bmp' is no picture"),
        ({"recipe": "simcl"}, "did you mean 'simclr'"),
        ({"operations": {"blurr": "off"}}, "did you mean 'blur'"),
        ({"operations": {"noise_std": 0.05}}, "no effect while the sub-dial acquisition is 0"),
    ],
)
def test_what_cannot_be_shown_is_refused(
    archive: Archive, change: dict[str, object], words: str, tmp_path: Path
) -> None:
    given = {"output": tmp_path / "sheet.png"} | change
    with pytest.raises(ScanlearnError, match=words):
        preview(archive.path, **given)  # type: ignore[arg-type]


HEADINGS = [("weak", ["a line"]), ("strong", ["another", "and a second"])]


def grid(local_share: float = 0.0, **change: object) -> SheetGrid:
    given = {"headings": HEADINGS, "foot": ["Below."]} | change
    return SheetGrid(2, local_share=local_share, **given)  # type: ignore[arg-type]


def box(axes: object) -> tuple[float, float, float, float]:
    return axes.get_position().extents  # type: ignore[attr-defined, no-any-return]


def test_no_picture_covers_another() -> None:
    for share, views, scans in ((0.0, 2, 1), (96 / 224, 4, 2)):
        sheet = grid(share)
        places = [sheet.original(row, number) for row in range(2) for number in range(scans)]
        places += [sheet.view(r, c, v) for r in range(2) for c in range(2) for v in range(views)]
        boxes = [box(axes) for axes in places]
        assert all(0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1 for x0, y0, x1, y1 in boxes)
        for number, (ax0, ay0, ax1, ay1) in enumerate(boxes):
            for bx0, by0, bx1, by1 in boxes[number + 1 :]:
                apart = ax1 <= bx0 or bx1 <= ax0 or ay1 <= by0 or by1 <= ay0
                assert apart


def test_two_local_views_are_no_higher_than_a_global_one() -> None:
    sheet = grid(0.9)
    large, upper, lower = (box(sheet.view(0, 0, view)) for view in (0, 2, 3))
    assert upper[3] <= large[3] + 1e-9
    assert lower[1] >= large[1] - 1e-9


def test_words_stay_on_the_sheet() -> None:
    long = "crop 1, geometry 0, photometric 0.25, acquisition 1.5"
    sheet = grid(headings=[("an_arm_with_a_name_of_forty_characters_x", [long])], foot=[long * 4])
    figure = sheet.figure
    figure.canvas.draw()
    for text in figure.texts:
        extent = text.get_window_extent()
        assert extent.x0 >= 0
        assert extent.x1 <= figure.bbox.width, text.get_text()
        assert 0 <= extent.y0 < extent.y1 <= figure.bbox.height


def test_columns_are_told_apart_by_colour() -> None:
    assert len({colour_of(column) for column in range(6)}) == 6
    sheet = grid()
    titles = {text.get_text(): text.get_color() for text in sheet.figure.texts}
    assert titles["weak"] == colour_of(0)
    assert titles["strong"] == colour_of(1)


@pytest.mark.parametrize("place", ["before", "after"])
def test_extras_are_drawn_and_said(archive: Archive, place: str) -> None:
    # Beyond the range before standardisation, where the sheet ends too: white or black all over.
    config = {
        "name": "torchvision.transforms.v2.Normalize",
        "arguments": {"mean": [50.0] * 3, "std": [1.0] * 3},
        "place": place,
    }
    extras = build_extras([ExtraConfig.model_validate(config)])
    figure = arm_sheet(archive, {"weak": Scale.WEAK}, scans=2, size=32, extras=extras)
    pictures = [np.asarray(axes.images[0].get_array()) for axes in figure.axes]
    assert all(picture.std() > 0.1 for picture in pictures[:2])
    assert all((picture == 0).all() for picture in pictures[2:])
    said = " ".join(text.get_text() for text in figure.texts)
    assert "extras: torchvision.transforms.v2.Normalize" in " ".join(said.split())
