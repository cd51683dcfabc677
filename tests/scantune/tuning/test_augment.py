from __future__ import annotations

import numpy as np
import pytest

from scanlearn.views.scale import Scale
from scantune.tuning.augment import training_scale, training_views
from scantune.tuning.settings import TuneConfig


def test_none_is_the_identity_at_every_scale() -> None:
    assert training_scale("none", 1.5) == Scale.IDENTITY


def test_basic_moves_intensity_alone() -> None:
    scale = training_scale("basic", 0.8)
    assert (scale.crop, scale.geometry) == (0.0, 0.0)
    assert (scale.photometric, scale.acquisition) == (0.8, 0.8)


def test_complex_adds_geometry_and_a_milder_crop() -> None:
    basic, both = training_scale("basic", 0.8), training_scale("complex", 0.8)
    assert (both.photometric, both.acquisition) == (basic.photometric, basic.acquisition)
    assert both.geometry == 0.8
    assert 0 < both.crop < both.geometry


@pytest.mark.parametrize("augment", ["none", "basic", "complex"])
def test_a_scan_has_one_view_of_the_recipe_that_was_asked_for(augment: str) -> None:
    config = TuneConfig.model_validate(
        {"augment": augment, "recipe": "dino", "operations": {"solarize": "off"}}
    )
    views = training_views(config, 32, (0.5,), (0.2,))
    assert (views.num_views, views.size, views.recipe.name) == (1, 32, "dino")
    assert views.ranges.views[0].solarize_p == 0


def test_scale_zero_is_no_augmentation() -> None:
    for augment in ("basic", "complex"):
        found = training_scale(augment, 0.0)  # type: ignore[arg-type]
        assert found == Scale.IDENTITY
    assert np.isfinite(training_scale("complex", 1.5).crop)
