from __future__ import annotations

import numpy as np

from scanlearn.views.settings import DEFAULT_SETTINGS, RenderSettings


def test_a_blur_is_stated_at_224_px_unless_it_keeps_its_width() -> None:
    sigma = np.array([2.0])
    assert DEFAULT_SETTINGS.blur_px(sigma, 224) == 2
    assert DEFAULT_SETTINGS.blur_px(sigma, 56) == 0.5
    assert RenderSettings(scale_blur=False).blur_px(sigma, 56) == 2


def test_local_views_are_blurred_by_the_side_of_the_global_ones() -> None:
    sigma = np.array([2.0])
    assert RenderSettings(global_size=224).blur_px(sigma, 96) == 2
    assert RenderSettings(global_size=112).blur_px(sigma, 48) == 1
    assert RenderSettings(scale_blur=False, global_size=112).blur_px(sigma, 48) == 2
