"""Geometry beyond crop and flip: rotation, translation, stretch, shear and elastic deformation.

They are composed with crop and flip into one grid, and the packed scan is sampled once through it
(`scanlearn.views.warp`).
"""

from __future__ import annotations

import math

from scanlearn.views.operations.operation import Operation, Parameter, probability

FLIP = Operation(
    "flip",
    "geometry",
    # Mirroring more often than every other time is less variation again.
    (probability("flip", "Mirrored left to right", peak=0.5),),
    lambda quantiles: {"flip": quantiles.happens("flip")},
)
VFLIP = Operation(
    "vflip",
    "geometry",
    (probability("vflip", "Mirrored top to bottom", peak=0.5),),
    lambda quantiles: {"vflip": quantiles.happens("vflip")},
)
ROTATION = Operation(
    "rotation",
    "geometry",
    (
        probability("rotation", "Rotation"),
        Parameter("rotation_deg", "Rotation", "± degrees", highest=180),
    ),
    lambda quantiles: {
        "rotation_deg": quantiles.either_way("rotation", "rotation_deg", "rotation_deg")
    },
)
TRANSLATION = Operation(
    "translation",
    "geometry",
    (
        probability("translation", "Translation"),
        Parameter("translation", "Translation", "± of the side", highest=0.5),
    ),
    lambda quantiles: {"translation": quantiles.pair("translation", "translation")},
)
STRETCH = Operation(
    "stretch",
    "geometry",
    (
        probability("stretch", "Stretch"),
        Parameter("stretch", "Stretch", "± ln w/h", highest=math.log(2)),
    ),
    lambda quantiles: {"stretch": quantiles.either_way("stretch", "stretch", "stretch_ratio")},
)
SHEAR = Operation(
    "shear",
    "geometry",
    (probability("shear", "Shear"), Parameter("shear_deg", "Shear", "± degrees", highest=45)),
    lambda quantiles: {"shear_deg": quantiles.pair("shear", "shear_deg")},
)
ELASTIC = Operation(
    "elastic",
    "geometry",
    (
        probability("elastic", "Elastic deformation"),
        Parameter(
            "elastic", "Elastic deformation, largest displacement", "of the side", highest=0.1
        ),
    ),
    lambda quantiles: {"elastic": quantiles.happens("elastic") * quantiles.span("elastic")},
)
