"""Views of fine-tuning: the training scans go through the dial, no other scan ever does."""

from __future__ import annotations

from collections.abc import Sequence

from scanlearn.core import ViewPlan
from scanlearn.views.generator import ViewGenerator
from scanlearn.views.scale import Scale
from scantune.tuning.settings import Augment, TuneConfig

# A crop may cut a finding away together with its label, so that it goes half as far.
_CROP_SHARE = 0.5


def training_scale(augment: Augment, scale: float) -> Scale:
    """Returns the dial of the training scans.

    Args:
        augment: "none" is the identity, "basic" intensity and acquisition alone, "complex"
            geometry and a mild crop as well.
        scale: 0 to 1.5.

    Source: the three levels are those of the NIH's chest X-ray tutorial on augmentation; where they
    lie on the dial is ours.
    """
    if augment == "none":
        return Scale.IDENTITY
    shared = {"photometric": scale, "acquisition": scale}
    if augment == "basic":
        return Scale(crop=0.0, geometry=0.0, **shared)
    return Scale(crop=_CROP_SHARE * scale, geometry=scale, **shared)


def training_views(
    config: TuneConfig, size: int, mean: Sequence[float], std: Sequence[float]
) -> ViewGenerator:
    """Returns the generator of the training views, one of each scan.

    There is none for validation and test: their scans are read by `scanlearn.features.extract`,
    which knows the identity alone.

    Args:
        config: Which augmentation.
        size: Side of a view in pixels.
        mean: Per channel, of scans on the unit range.
        std: Per channel, of scans on the unit range.
    """
    dial = training_scale(config.augment, config.scale)
    return ViewGenerator(config.build_recipe(), dial, ViewPlan(1), size, mean, std)
