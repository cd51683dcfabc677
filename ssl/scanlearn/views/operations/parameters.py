"""The parameters of a view: what each is called, measured in, moved by and allowed to be."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

BLUR_SIGMA_MIN = 0.1


# Every operation and the fields of `ViewRanges` that are its own.
OPERATIONS: Mapping[str, tuple[str, ...]] = {
    "crop": ("crop_min", "crop_max", "log_aspect", "own_aspect"),
    "flip": ("flip_p",),
    "vflip": ("vflip_p",),
    "rotation": ("rotation_p", "rotation_deg"),
    "translation": ("translation_p", "translation"),
    "stretch": ("stretch_p", "stretch"),
    "shear": ("shear_p", "shear_deg"),
    "elastic": ("elastic_p", "elastic"),
    "jitter": ("jitter_p",),
    "brightness": ("brightness",),
    "contrast": ("contrast",),
    "saturation": ("saturation",),
    "hue": ("hue",),
    "gray": ("gray_p",),
    "gamma": ("gamma_p", "gamma"),
    "histogram_shift": ("histogram_shift_p", "histogram_shift"),
    "blur": ("blur_p", "blur_sigma"),
    "solarize": ("solarize_p",),
    "bias_field": ("bias_field_p", "bias_field"),
    "soft": ("soft_p", "soft_sigma"),
    "noise": ("noise_p", "noise_std"),
}


@dataclass(frozen=True)
class ViewRanges:
    """What may be drawn for one view: the numbers of a recipe at one setting of the dial.

    The defaults are the identity. ``..._p`` is the probability that an operation is done at all;
    other numbers are the largest that is drawn, from a uniform distribution about no change.

    Args:
        crop_min: Smallest crop, as a share of the area of the scan.
        crop_max: Largest crop, as a share of the area of the scan.
        log_aspect: Half range of the logarithm of the crop's width over its height.
        own_aspect: Where the centre of that range lies: 1 the scan's own aspect, 0 a square.
        flip_p: Mirrored left to right.
        vflip_p: Mirrored top to bottom.
        rotation_p: Rotated.
        rotation_deg: Largest rotation either way, in degrees.
        translation_p: Shifted.
        translation: Largest shift either way, as a share of the view's side.
        stretch_p: Stretched.
        stretch: Largest logarithm of width over height, either way.
        shear_p: Sheared.
        shear_deg: Largest shear either way, in degrees.
        elastic_p: Deformed.
        elastic: Largest displacement, as a share of the view's side.
        jitter_p: Brightness, contrast, saturation and hue change at all.
        brightness: Factors are drawn from ``[max(0, 1 - brightness), 1 + brightness]``.
        contrast: The same for contrast.
        saturation: The same for saturation.
        hue: Largest shift either way, as a share of the colour circle.
        gray_p: Colour is removed.
        gamma_p: Gray values are raised to a power.
        gamma: Largest logarithm of that power, either way.
        histogram_shift_p: The curve of gray values is bent.
        histogram_shift: Largest shift of one of its points, as a share of the unit range.
        blur_p: Blurred.
        blur_sigma: Largest standard deviation in pixels of a 224-px view; the smallest is .1.
        solarize_p: Values from one half upwards are inverted.
        bias_field_p: Multiplied by a smooth field.
        bias_field: Largest coefficient of the polynomial in its exponent, either way.
        soft_p: Blurred by the acquisition.
        soft_sigma: Largest standard deviation in pixels of the view; the smallest is 0.
        noise_p: Noise is added.
        noise_std: Largest standard deviation on the unit range; the smallest is 0.
    """

    crop_min: float = 1.0
    crop_max: float = 1.0
    log_aspect: float = 0.0
    own_aspect: float = 1.0
    flip_p: float = 0.0
    vflip_p: float = 0.0
    rotation_p: float = 0.0
    rotation_deg: float = 0.0
    translation_p: float = 0.0
    translation: float = 0.0
    stretch_p: float = 0.0
    stretch: float = 0.0
    shear_p: float = 0.0
    shear_deg: float = 0.0
    elastic_p: float = 0.0
    elastic: float = 0.0
    jitter_p: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    gray_p: float = 0.0
    gamma_p: float = 0.0
    gamma: float = 0.0
    histogram_shift_p: float = 0.0
    histogram_shift: float = 0.0
    blur_p: float = 0.0
    blur_sigma: float = BLUR_SIGMA_MIN
    solarize_p: float = 0.0
    bias_field_p: float = 0.0
    bias_field: float = 0.0
    soft_p: float = 0.0
    soft_sigma: float = 0.0
    noise_p: float = 0.0
    noise_std: float = 0.0


SubDial = Literal["crop", "geometry", "photometric", "acquisition"]


IDENTITY = ViewRanges()


@dataclass(frozen=True)
class Parameter:
    """A field of `ViewRanges`, for a person and for the checks of what a person gives.

    Args:
        label: What it is, in words.
        unit: What its number is measured in.
        dial: The sub-dial that moves it.
        lowest: Smallest value it may take.
        highest: Largest value it may take.
        needs_colour: Whether it has no meaning on one channel.
    """

    label: str
    unit: str
    dial: SubDial
    lowest: float = 0.0
    highest: float = 1.0
    needs_colour: bool = False

    @property
    def title(self) -> str:
        """What it is and what it is measured in."""
        return f"{self.label}, {self.unit}"


def _probability(label: str, dial: SubDial, *, needs_colour: bool = False) -> Parameter:
    return Parameter(label, "probability", dial, needs_colour=needs_colour)


PARAMETERS: Mapping[str, Parameter] = {
    "crop_min": Parameter("Smallest crop", "of the area", "crop", lowest=0.001),
    "crop_max": Parameter("Largest crop", "of the area", "crop", lowest=0.001),
    "log_aspect": Parameter("Crop aspect", "± ln w/h", "crop", highest=math.log(4)),
    "own_aspect": Parameter("Centre of the aspect", "1 own, 0 square", "crop"),
    "flip_p": _probability("Mirrored left to right", "geometry"),
    "vflip_p": _probability("Mirrored top to bottom", "geometry"),
    "rotation_p": _probability("Rotation", "geometry"),
    "rotation_deg": Parameter("Rotation", "± degrees", "geometry", highest=180),
    "translation_p": _probability("Translation", "geometry"),
    "translation": Parameter("Translation", "± of the side", "geometry", highest=0.5),
    "stretch_p": _probability("Stretch", "geometry"),
    "stretch": Parameter("Stretch", "± ln w/h", "geometry", highest=math.log(2)),
    "shear_p": _probability("Shear", "geometry"),
    "shear_deg": Parameter("Shear", "± degrees", "geometry", highest=45),
    "elastic_p": _probability("Elastic deformation", "geometry"),
    "elastic": Parameter(
        "Elastic deformation, largest displacement", "of the side", "geometry", highest=0.1
    ),
    "jitter_p": _probability("Colour jitter", "photometric"),
    "brightness": Parameter("Jitter of brightness", "± of the factor", "photometric", highest=2),
    "contrast": Parameter("Jitter of contrast", "± of the factor", "photometric", highest=2),
    "saturation": Parameter(
        "Jitter of saturation", "± of the factor", "photometric", highest=2, needs_colour=True
    ),
    "hue": Parameter(
        "Jitter of hue", "± of the circle", "photometric", highest=0.5, needs_colour=True
    ),
    "gray_p": _probability("Colour removed", "photometric", needs_colour=True),
    "gamma_p": _probability("Gamma", "photometric"),
    "gamma": Parameter("Gamma", "± ln exponent", "photometric", highest=math.log(4)),
    "histogram_shift_p": _probability("Histogram shift", "photometric"),
    "histogram_shift": Parameter(
        "Histogram shift of each point", "± of the range", "photometric", highest=0.2
    ),
    "blur_p": _probability("Blur", "photometric"),
    "blur_sigma": Parameter(
        "Blur, largest sigma",
        "px at 224 px",
        "photometric",
        lowest=BLUR_SIGMA_MIN,
        highest=10,
    ),
    "solarize_p": _probability("Solarize", "photometric"),
    "bias_field_p": _probability("Bias field", "acquisition"),
    "bias_field": Parameter(
        "Bias field, coefficients", "± in the exponent", "acquisition", highest=2
    ),
    "soft_p": _probability("Acquisition blur", "acquisition"),
    "soft_sigma": Parameter("Acquisition blur, largest sigma", "px", "acquisition", highest=10),
    "noise_p": _probability("Noise", "acquisition"),
    "noise_std": Parameter("Noise, largest std", "of the range", "acquisition"),
}


# Which operation a parameter is part of.
OPERATION_OF: Mapping[str, str] = {
    field: operation for operation, members in OPERATIONS.items() for field in members
}


JITTERED = ("brightness", "contrast", "saturation", "hue")


def identity_of(parameter: str) -> float:
    """Returns the value at which a parameter changes nothing."""
    return float(getattr(IDENTITY, parameter))


def is_decreasing(parameter: str) -> bool:
    """Whether a stronger setting has the smaller number, as of a crop's area."""
    return identity_of(parameter) == 1


def probability_of(parameter: str) -> str | None:
    """Returns the probability without which a parameter has no effect; None where it needs none."""
    if parameter in JITTERED:
        return "jitter_p"
    probability = f"{OPERATION_OF[parameter]}_p"
    return probability if probability in PARAMETERS and probability != parameter else None


def magnitudes_of(parameter: str) -> tuple[str, ...]:
    """Returns the parameters without which a probability has no effect, if there are any."""
    return tuple(name for name in PARAMETERS if probability_of(name) == parameter)
