from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from scanlearn.core import ScanBatch
from scanlearn.views.settings import DEFAULT_SETTINGS, RenderSettings

MakeBatch = Callable[..., ScanBatch]


def test_a_blur_is_stated_at_224_px_unless_it_keeps_its_width() -> None:
    sigma = np.array([2.0])
    assert DEFAULT_SETTINGS.blur_px(sigma, 224) == 2
    assert DEFAULT_SETTINGS.blur_px(sigma, 56) == 0.5
    assert RenderSettings(scale_blur=False).blur_px(sigma, 56) == 2


def test_matrices_are_for_scans_of_eight_bits(make_batch: MakeBatch) -> None:
    settings = RenderSettings(resampler="matrices", background="reflect")
    assert settings.fit_for(make_batch()) is settings
    fit = settings.fit_for(make_batch(dtype=torch.uint16))
    assert (fit.resampler, fit.background) == ("bands", "reflect")
