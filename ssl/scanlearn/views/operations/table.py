"""The operations, in the order in which they are rendered, and their parameters by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scanlearn.views.operations.acquisition import (
    BIAS_FIELD,
    ILLUMINATION,
    JPEG,
    LOW_RESOLUTION,
    NOISE,
    POISSON,
    RICIAN,
    SOFT,
    SPECKLE,
)
from scanlearn.views.operations.colour import (
    BRIGHTNESS,
    CONTRAST,
    GRAY,
    HUE,
    JITTER,
    SATURATION,
    STAIN,
)
from scanlearn.views.operations.crop import CROP
from scanlearn.views.operations.geometry import (
    ELASTIC,
    FLIP,
    QUARTER_TURNS,
    ROTATION,
    SHEAR,
    STRETCH,
    TRANSLATION,
    VFLIP,
)
from scanlearn.views.operations.operation import Operation, Parameter
from scanlearn.views.operations.tone import (
    BLUR,
    GAMMA,
    HISTOGRAM_SHIFT,
    POSTERISE,
    SOLARIZE,
    WINDOW,
)

OPERATIONS = (
    CROP, FLIP, VFLIP, QUARTER_TURNS, ROTATION, TRANSLATION, STRETCH, SHEAR, ELASTIC,
    WINDOW, STAIN, JITTER, BRIGHTNESS, CONTRAST, SATURATION, HUE, GRAY,
    GAMMA, HISTOGRAM_SHIFT, BLUR, SOLARIZE, POSTERISE,
    ILLUMINATION, BIAS_FIELD, SOFT, LOW_RESOLUTION, RICIAN, POISSON, SPECKLE, NOISE, JPEG,
)  # fmt: skip

BY_NAME: Mapping[str, Operation] = {operation.name: operation for operation in OPERATIONS}
PARAMETERS: Mapping[str, Parameter] = {
    parameter.name: parameter for operation in OPERATIONS for parameter in operation.parameters
}
# Which operation a parameter is part of.
OPERATION_OF: Mapping[str, Operation] = {
    parameter.name: operation for operation in OPERATIONS for parameter in operation.parameters
}


def parameters_of(operation: str) -> tuple[str, ...]:
    """Returns the parameters of an operation and of its parts."""
    return tuple(
        name for name, owner in OPERATION_OF.items() if operation in (owner.name, owner.part_of)
    )


def probability_of(parameter: str) -> str | None:
    """Returns the probability without which a parameter has no effect; None where it needs none."""
    operation = OPERATION_OF[parameter]
    name = f"{operation.part_of or operation.name}_p"
    return name if name in PARAMETERS and name != parameter else None


def magnitudes_of(parameter: str) -> tuple[str, ...]:
    """Returns the parameters without which a probability has no effect, if there are any."""
    return tuple(
        name
        for name, each in PARAMETERS.items()
        if probability_of(name) == parameter and each.in_place_of is None
    )


def at_identity_in_words(parameters: Sequence[str]) -> str:
    """Returns ``rotation_deg is 0``, or ``brightness and contrast are 0``."""
    verb = "is" if len(parameters) == 1 else "are"
    return f"{' and '.join(parameters)} {verb} {PARAMETERS[parameters[0]].identity:g}"
