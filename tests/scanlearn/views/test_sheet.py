from __future__ import annotations

from scanlearn.views.sheet import SheetGrid, colour_of

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
