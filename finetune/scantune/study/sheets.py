"""Pictures of what each arm saw."""

from __future__ import annotations

from scanlearn.scans.archive import Archive
from scantune.study.folder import StudyFolder
from scantune.study.plan import CompareConfig
from scantune.study.results import Sheet


def draw_sheets(
    config: CompareConfig, folder: StudyFolder, unlabeled: Archive
) -> tuple[Sheet, ...]:
    return ()
