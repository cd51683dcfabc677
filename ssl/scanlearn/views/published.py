"""The published recipes: their numbers, and a weak end for each.

A table lists the parameters that its recipe has; all others are off.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from scanlearn.views.curves import Curve, Row
from scanlearn.views.operations.colour import JITTER_PEAK
from scanlearn.views.operations.table import PARAMETERS
from scanlearn.views.settings import LEAST_BLUR_PX

DERIVED = "derived from Cheng et al. 2025"
_CHENG = "published: Cheng et al. 2025, table 2"
_LITERAL = "published: Cheng et al. 2025, table 2, to the letter"
_DINO = "published: Caron et al. 2021"
_LOG_FOUR_THIRDS = math.log(4 / 3)


@dataclass(frozen=True)
class Published:
    """A recipe's table.

    Args:
        reference: Where the strong end is from, in full.
        has_local_views: Whether it has small views beside the two global ones.
    """

    reference: str
    rows: tuple[Row, ...]
    has_local_views: bool = False


@dataclass(frozen=True)
class _Sources:
    """Where the weak and the strong number of a curve are from."""

    weak: str
    strong: str

    def curve(
        self, parameter: str, weak: float, strong: float, limit: float, *, reach: bool = False
    ) -> Curve:
        identity = PARAMETERS[parameter].identity
        return Curve(identity, weak, strong, limit, reach, self.weak, self.strong)

    def flat(self, parameter: str, limit: float, *values: float) -> Row:
        """A row with one number for weak and strong, for all views or one per view."""
        curves = [self.curve(parameter, v, v, limit if v else 0.0) for v in values]
        return Row(parameter, tuple(curves))

    def halved(self, parameter: str, strong: float, limit: float) -> Row:
        """A row whose weak number is half the strong one."""
        return Row(parameter, (self.curve(parameter, strong / 2, strong, limit),))


def weak_crop(strong: float) -> float:
    """Returns the weak end of a crop's area whose strong end is ``strong``.

    Source: the affine map through the crop points of Cheng et al., MIDL 2025, table 2
    (local .05 -> .2, global .4 -> .5), applied to other recipes; see docs/dial.md.
    """
    return 0.2 + (strong - 0.05) * 0.3 / 0.35


def _shared(sources: _Sources) -> tuple[Row, ...]:
    """What every recipe here has in common."""
    return (
        sources.flat("log_aspect", math.log(2), _LOG_FOUR_THIRDS),
        sources.flat("flip_p", 0.5, 0.5),
        sources.flat("jitter_p", 1.0, 0.8),
        sources.flat("gray_p", 0.5, 0.2),
        sources.flat("blur_sigma", 4.0, 2.0),
    )


def _two_view(
    paper: str,
    crop_min: float,
    jitter: tuple[float, float, float, float],
    *,
    blur_p: tuple[float, ...] = (0.5,),
    solarize_p: tuple[float, ...] = (),
) -> tuple[Row, ...]:
    """A recipe of two views, by the values at 1; blur and solarize may differ between them.

    Args:
        jitter: Brightness, contrast, saturation and hue.
    """
    sources = _Sources(DERIVED, f"published: {paper}")
    brightness, contrast, saturation, hue = jitter
    limit = max(0.02, crop_min / 4)
    crop = sources.curve("crop_min", weak_crop(crop_min), crop_min, limit, reach=True)
    return (
        Row("crop_min", (crop,)),
        sources.flat("crop_max", 1.0, 1.0),
        sources.halved("brightness", brightness, _jitter_limit(brightness)),
        sources.halved("contrast", contrast, _jitter_limit(contrast)),
        sources.flat("saturation", _jitter_limit(saturation), saturation),
        sources.flat("hue", 0.5, hue),
        sources.flat("blur_p", 1.0, *blur_p),
        *((sources.flat("solarize_p", 0.5, *solarize_p),) if solarize_p else ()),
        *_shared(sources),
    )


def _jitter_limit(strong: float) -> float:
    """The limit of brightness, contrast or saturation.

    SimCLR's .8 once grew to 1.2: factors of 0 and views of nothing but black or gray.
    """
    return min(1.5 * strong, JITTER_PEAK)


def _asymmetric(paper: str, crop_min: float) -> tuple[Row, ...]:
    """BYOL's recipe, which MoCo v3 took over: the two views differ in blur and solarize."""
    jitter = (0.4, 0.4, 0.2, 0.1)
    return _two_view(paper, crop_min, jitter, blur_p=(1.0, 0.1), solarize_p=(0.0, 0.2))


@dataclass(frozen=True)
class _Crop:
    """Weak, strong and limit of a crop's area."""

    weak: float
    strong: float
    limit: float


def _multi_crop(
    table2: _Sources, global_min: _Crop, local_min: _Crop, local_max: _Crop
) -> tuple[Row, ...]:
    """DINO's recipe: two global views that differ in blur and solarize, and local ones.

    Args:
        table2: Sources of the crops, the brightness and the contrast; all else is DINO's.
    """
    weak = _DINO if table2.weak.startswith("published") else table2.weak
    kept = _Sources(weak, _DINO)

    def crop(parameter: str, area: _Crop) -> Curve:
        return table2.curve(parameter, area.weak, area.strong, area.limit)

    first, small = crop("crop_min", global_min), crop("crop_min", local_min)
    whole, large = table2.curve("crop_max", 1.0, 1.0, 1.0), crop("crop_max", local_max)
    return (
        Row("crop_min", (first, first, small)),
        Row("crop_max", (whole, whole, large)),
        table2.halved("brightness", 0.4, 0.8),
        table2.halved("contrast", 0.4, 0.8),
        kept.flat("saturation", 0.8, 0.2),
        kept.flat("hue", 0.5, 0.1),
        kept.flat("blur_p", 1.0, 1.0, 0.1, 0.5),
        kept.flat("solarize_p", 0.5, 0.0, 0.2, 0.0),
        *_shared(kept),
    )


def _dino_vit(table2: _Sources) -> tuple[Row, ...]:
    return _multi_crop(table2, _Crop(0.5, 0.4, 0.10), _Crop(0.2, 0.05, 0.02), _Crop(0.5, 0.4, 0.20))


def _dino_convnet() -> tuple[Row, ...]:
    """DINO's crop split for convolutional networks; DINO's limits where they fit.

    The strong largest local crop, .14, lies under DINO's limit of .20: half of it is ours.
    """
    return _multi_crop(
        _Sources(DERIVED, _DINO),
        _Crop(weak_crop(0.14), 0.14, 0.10),
        _Crop(weak_crop(0.05), 0.05, 0.02),
        _Crop(weak_crop(0.14), 0.14, 0.07),
    )


def _cheng2025() -> tuple[Row, ...]:
    """The paper's strong and weak arm, and its third arm's extras as acquisition.

    Source: TorchIO reads a scalar a as U(0, a) for blur and noise, and as U(-a, a) for the bias
    field's coefficients. Half the amplitude at .5 is ours: the paper has one level. Its blur is
    a no-op, and the limit beyond 1 keeps it one.
    """
    extras = _Sources(DERIVED, _CHENG)
    return (
        *_dino_vit(_Sources(_CHENG, _CHENG)),
        *(extras.flat(f"{name}_p", 1.0, 0.5) for name in ("bias_field", "soft", "noise")),
        extras.halved("bias_field", 0.1, 0.15),
        extras.halved("soft_sigma", 0.1, LEAST_BLUR_PX),
        extras.halved("noise_std", 0.1, 0.15),
    )


def _cheng2025_strict() -> tuple[Row, ...]:
    """Table 2 to the letter: its caption's probability 1 for the jitter, and no blur."""
    literal = _Sources(_LITERAL, _LITERAL)
    kept = tuple(
        row for row in _cheng2025() if row.parameter not in ("jitter_p", "blur_p", "blur_sigma")
    )
    return (*kept, literal.flat("jitter_p", 1.0, 1.0))


_CHENG_IN_FULL = (
    "Cheng, Li, Altmann, Keane and Zhou, Enhancing Contrastive Learning for Retinal Imaging via "
    "Adjusted Augmentation Scales, MIDL 2025"
)
_DINO_IN_FULL = (
    "Caron et al., Emerging Properties in Self-Supervised Vision Transformers, ICCV 2021"
)
_MOCO_V3_IN_FULL = (
    "Chen, Xie and He, An Empirical Study of Training Self-Supervised Vision Transformers, "
    "ICCV 2021"
)
_VIT = "ViT; views.recipe=null takes it for transformers"
_RESNET = "ResNet-50; views.recipe=null takes it for networks that are no transformers"

PUBLISHED: Mapping[str, Published] = {
    "simclr": Published(
        "Chen, Kornblith, Norouzi and Hinton, A Simple Framework for Contrastive Learning of "
        "Visual Representations, ICML 2020; jitter of strength 1",
        _two_view("Chen et al. 2020", 0.08, (0.8, 0.8, 0.8, 0.2)),
    ),
    "mocov2": Published(
        "Chen, Fan, Girshick and He, Improved Baselines with Momentum Contrastive Learning, 2020",
        _two_view("Chen, Fan et al. 2020", 0.2, (0.4, 0.4, 0.4, 0.1)),
    ),
    "mocov3": Published(f"{_MOCO_V3_IN_FULL}; {_VIT}", _asymmetric("Chen, Xie and He 2021", 0.08)),
    "mocov3_resnet": Published(
        f"{_MOCO_V3_IN_FULL}; {_RESNET}",
        _asymmetric("Chen, Xie and He 2021", 0.2),
    ),
    "byol": Published(
        "Grill et al., Bootstrap Your Own Latent, NeurIPS 2020",
        _asymmetric("Grill et al. 2020", 0.08),
    ),
    "dino": Published(f"{_DINO_IN_FULL}; {_VIT}", _dino_vit(_Sources(_CHENG, _DINO)), True),
    "dino_convnet": Published(f"{_DINO_IN_FULL}; {_RESNET}", _dino_convnet(), True),
    "cheng2025": Published(_CHENG_IN_FULL, _cheng2025(), True),
    "cheng2025_strict": Published(
        f"{_CHENG_IN_FULL}; table 2 to the letter", _cheng2025_strict(), True
    ),
}
