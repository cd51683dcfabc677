"""The parameters of a view: what each is called, measured in, moved by and allowed to be."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from scanlearn.views.ranges import BLUR_SIGMA_MIN, OPERATIONS, ViewRanges

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
