from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from scanlearn.scans.archive import Archive
from scanlearn.scans.source import open_archive
from scantune.study.folder import open_study
from scantune.study.plan import CompareConfig
from scantune.study.sheets import draw_sheets

Plan = Callable[..., CompareConfig]


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return open_archive("phantom:patients=2,seed=3,size=48x48", cache=tmp_path / "cache")


def test_a_sheet_shows_every_trained_arm(plan: Plan, archive: Archive) -> None:
    config = plan()
    folder = open_study(config)
    (sheet,) = draw_sheets(config, folder, archive)
    assert sheet.title == "Two views of 4 scans: weak, strong"
    with Image.open(folder.figures / sheet.file) as picture:
        assert picture.width > 600
        # A picture that travels holds no note of where it was made.
        assert set(picture.info) <= {"Software", "dpi"}


def test_many_arms_take_several_sheets(plan: Plan, archive: Archive) -> None:
    names = ("weak", "strong", "c", "d", "e")
    config = plan(arms={name: {"scale": 0.1 * n} for n, name in enumerate(names, 1)})
    sheets = draw_sheets(config, open_study(config), archive)
    assert [sheet.file for sheet in sheets] == ["views_1.png", "views_2.png"]
    assert sheets[1].title.endswith(": e")
