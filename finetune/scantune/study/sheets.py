"""Pictures of what each arm saw."""

from __future__ import annotations

from dataclasses import replace

from scanlearn.runs import full_disk_explained
from scanlearn.scans.archive import Archive
from scanlearn.views.preview import arm_sheet
from scanlearn.views.render import RenderSettings
from scantune.study.folder import StudyFolder
from scantune.study.plan import CompareConfig
from scantune.study.results import Sheet

_ARMS_A_SHEET = 4
_SCANS = 5
_DPI = 150


def draw_sheets(
    config: CompareConfig, folder: StudyFolder, unlabeled: Archive
) -> tuple[Sheet, ...]:
    """Draws views of the trained arms, the same scans and draws in all of them.

    Returns:
        The sheets, written to the study's ``figures`` as PNG; one for each four arms.
    """
    shared = config.pretrain.views
    recipe = config.pretrain.build_recipe()
    if not config.pretrain.method.num_local_views:
        recipe = replace(recipe, has_local_views=False)
    settings = RenderSettings(scale_blur=shared.scale_blur)
    dials = [(name, arm.dial()) for name, arm in config.arms.items() if arm.kind == "pretrained"]
    folder.figures.mkdir(exist_ok=True)
    sheets = []
    for number, start in enumerate(range(0, len(dials), _ARMS_A_SHEET)):
        members = dict(dials[start : start + _ARMS_A_SHEET])
        figure = arm_sheet(
            unlabeled, members, recipe=recipe, scans=_SCANS, size=shared.size, settings=settings
        )
        path = folder.figures / f"views_{number + 1}.png"
        with full_disk_explained(path):
            figure.savefig(path, dpi=_DPI)
        title = f"Two views of {min(_SCANS, len(unlabeled))} scans: {', '.join(members)}"
        sheets.append(Sheet(title=title, file=path.name))
    return tuple(sheets)
