from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from scanlearn.archive.reader import Archive
from scanlearn.audit.result import IDENTICAL, NEAR, PAIR, PATIENT, Audit, Comparison
from scanlearn.audit.sheet import draw_sheet

Draw = Callable[..., np.ndarray]
Write = Callable[..., Archive]


@pytest.fixture
def archive(draw_pictures: Draw, write_archive: Write) -> Archive:
    return write_archive(draw_pictures(6, side=40))


def audit_of(kinds: list[int], rows: int = 6) -> Audit:
    pairs = np.zeros(len(kinds), PAIR)
    pairs["kind"], pairs["correlation"] = kinds, np.linspace(1, 0.99, len(kinds))
    pairs["first"], pairs["second"] = np.arange(len(kinds)) % rows, 0
    names = np.array([f"{row:024x}" for row in range(len(kinds))])
    found = Comparison("a", "b", (rows, rows), 0, 9, 0, (), pairs, names, names)
    return Audit((found,))


def test_nothing_is_drawn_of_patients_alone(archive: Archive) -> None:
    archives = {"a": archive, "b": archive}
    assert draw_sheet(audit_of([]), archives, 50) is None
    assert draw_sheet(audit_of([PATIENT, PATIENT]), archives, 50) is None
    assert draw_sheet(audit_of([NEAR]), archives, 0) is None


def test_pairs_stand_four_in_a_row_and_no_more_than_asked_for(archive: Archive) -> None:
    archives = {"a": archive, "b": archive}
    heights = [
        sheet.height
        for kinds, shown in (([NEAR], 50), ([NEAR] * 4, 50), ([NEAR] * 9, 50), ([NEAR] * 40, 8))
        if (sheet := draw_sheet(audit_of(kinds), archives, shown)) is not None
    ]
    row = heights[2] - heights[3]
    assert heights[0] == heights[1] == heights[3] - row
    assert row > 176


def test_both_scans_of_a_pair_are_shown(archive: Archive) -> None:
    sheet = draw_sheet(audit_of([NEAR, IDENTICAL]), {"a": archive, "b": archive}, 50)
    assert sheet is not None
    # The identical pair comes first: row 1 beside row 0, enlarged from 40 to 176 pixels.
    pixels = archive.gather(np.array([1, 0])).pixels.numpy()[:, 0]
    gray = np.asarray(sheet.convert("L"))
    top, left = 32 + 59, 32
    for number in range(2):
        shown = gray[top : top + 176, left + number * 182 :][:, :176]
        small = shown.reshape(8, 22, 8, 22).mean((1, 3))
        stored = pixels[number].reshape(8, 5, 8, 5).mean((1, 3))
        np.testing.assert_allclose(small, stored, atol=3)
