from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from scanlearn.views.draw import Ranges
from scanlearn.views.recipes import find_recipe
from scanlearn.views.scale import Scale
from scanlearn.views.statistics import crop_statistics, view_statistics


@pytest.mark.parametrize(
    ("crop", "iou", "disjoint"),
    [((0.4, 1.0), 0.634, 0.0), ((0.5, 1.0), 0.690, 0.0), ((0.05, 0.4), 0.225, 0.132),
     ((0.2, 0.5), 0.401, 0.003)],
)  # fmt: skip
def test_the_overlap_of_published_crops_is_the_published_figure(
    crop: tuple[float, float], iou: float, disjoint: float
) -> None:
    strong = find_recipe("simclr").at(Scale.STRONG).views[0]
    found = crop_statistics(Ranges((replace(strong, crop_min=crop[0], crop_max=crop[1]),)))
    assert found.iou == pytest.approx(iou, abs=0.01)
    assert found.disjoint == pytest.approx(disjoint, abs=0.01)


def test_views_share_less_the_higher_the_scale() -> None:
    shared = [
        view_statistics("simclr", Scale.of(s), draws=4000).iou for s in (0, 0.25, 0.5, 1, 1.5)
    ]
    assert shared[0] == 1
    assert (np.diff(shared) < 0).all()
